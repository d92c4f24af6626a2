"""Figures of assigning otherwise: what it costs, and what it balances."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lib.paper.plots import conditions, figure, key, legend, lines, needs, plain
from lib.paper.plots_style import GREY, Style, label, style


def trade_off(table: pd.DataFrame) -> Figure:
    """Cost in nats per token against the P95 of busiest over nominal (columns arm, family, causal,
    p95, delta, delta_low, delta_high), a panel per arm: a mark per setting, settings of one
    strategy joined in the order of the table; hollow marks are not causal in a stream.
    """
    numbers = ("causal", "p95", "delta", "delta_low", "delta_high")
    needs("plots_assignment.trade_off", table, *numbers, names=["arm", "family"])
    parts = conditions(table, "arm")
    fig, axes = figure(len(parts), 1, height=3.6 * len(parts) + 0.9, sharex=True)
    for ax, (title, own) in zip(axes[:, 0], parts, strict=True):
        for family, part in own.groupby("family", sort=False):
            _settings(ax, part, style(family))
        ax.set_yscale("symlog", linthresh=0.02)
        ax.axhline(0, color=GREY, lw=1)
        ax.set(title=title, ylabel="added nats per token", xscale="log")
        plain(ax.xaxis)
        ax.yaxis.set_major_formatter(ScalarFormatter())
    axes[-1][0].set_xlabel("busiest expert / nominal load, P95 of groups")
    causal = table.groupby("family", sort=False).causal.all()
    keys = [
        key(label(family), replace(style(family), dash=""), mfc=None if filled else "white")
        for family, filled in causal.items()
    ]
    legend(fig, keys, "outside lower center")
    return fig


def _settings(ax: Axes, part: pd.DataFrame, look: Style) -> None:
    """The settings of one strategy: marks with bars, joined by a thin line."""
    colour = look.colour
    ax.vlines(part.p95, part.delta_low, part.delta_high, color=colour, lw=1)
    ax.plot(part.p95, part.delta, "-", color=colour, lw=1)
    fill = colour if part.causal.all() else "white"
    ax.plot(part.p95, part.delta, look.mark, color=colour, ms=6, mew=1.4, mfc=fill)


def prices(table: pd.DataFrame) -> Figure:
    """The correlation of the fitted bias with minus the prices against the layer (columns arm,
    layer, price_correlation), a line per checkpoint.
    """
    return lines(
        table, "layer", "price_correlation", by="arm", xlabel="layer", ylabel="correlation"
    )


def sweep(table: pd.DataFrame, x: str, xlabel: str, log: bool = False) -> Figure:
    """Cost in nats per token with its band against a column `x` (columns arm, family, delta,
    delta_low, delta_high): colour by strategy, line by checkpoint.
    """
    return lines(
        table,
        x,
        "delta",
        by="family",
        dash="arm",
        log="x" if log else "",
        xlabel=xlabel,
        ylabel="added nats per token",
        reference=0,
    )
