"""Figures of assigning otherwise: what it costs, and what it balances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.paper.plots import conditions, figure, key, legend, lines, needs, nested, plain
from lib.paper.plots_style import DARK, GREY, Style, label, style

NAMED = 7  # strategies that one figure names
TINY = 1e-3  # nats per token that count as nothing


def trade_off(table: pd.DataFrame) -> Figure:
    """Cost in nats per token against the P95 of busiest over nominal (columns arm, family, causal,
    p95, delta, delta_low, delta_high), a panel per arm side by side: a mark per setting, settings
    of one strategy joined in the order of the table; hollow marks are not causal in a stream.

    Named are the strategies that come nearest to the least cost of their balance, at most `NAMED`;
    the rest is grey, and where it costs more than the panel shows, told in words at its top.
    """
    numbers = ("causal", "p95", "delta", "delta_low", "delta_high")
    needs("plots_assignment.trade_off", table, *numbers, names=["arm", "family"])
    parts, named = conditions(table, "arm"), nearest(table)
    fig, axes = figure(1, len(parts), height=4.3, sharex=True, sharey=True)
    most = table[table.family.isin(named)][["delta", "delta_high"]].max(axis=None)
    top = 1.08 * most if most > 0 else 1
    for ax, (title, own) in zip(axes[0], parts, strict=True):
        rest = own[~own.family.isin(named)]
        for _, part in rest.groupby("family", sort=False):
            _settings(ax, part, Style("#BBBBBB", "o"))
        for family, part in own[own.family.isin(named)].groupby("family", sort=False):
            _settings(ax, part, style(family))
        _above(ax, rest[rest.delta > top])
        ax.axhline(0, color=GREY, lw=1)
        ax.set(title=title, xscale="log", ylim=(-0.03 * top, top))
        plain(ax.xaxis)
    axes[0][0].set_ylabel("added nats per token")
    fig.supxlabel("busiest expert / nominal load, P95 of groups", fontsize="medium")
    causal = table.groupby("family", sort=False).causal.all()
    keys = [
        key(label(name), replace(style(name), dash=""), mfc=None if causal[name] else "white")
        for name in named
    ]
    if set(table.family) - set(named):
        keys.append(key("others", Style("#BBBBBB", "o", "")))
    legend(fig, keys)
    return fig


def nearest(table: pd.DataFrame) -> list[str]:
    """The strategies of which some setting costs least among those as balanced, at most `NAMED` of
    them, the next nearest where there are fewer, in the order of the table.

    A setting is compared within its arm, a causal one with causal ones.
    """
    ratio: dict[str, float] = {}
    for _, own in table.groupby("arm", sort=False):
        for row in own.to_dict("records"):
            others = own[own.causal | (not row["causal"])]
            least = others[others.p95 <= row["p95"]].delta.min()
            over = (row["delta"] + TINY) / (max(least, 0) + TINY)
            ratio[row["family"]] = min(over, ratio.get(row["family"], over))
    best = sorted(ratio, key=lambda family: ratio[family])[:NAMED]
    return [family for family in dict.fromkeys(table.family) if family in best]


def _above(ax: Axes, rest: pd.DataFrame) -> None:
    """What costs more than a panel shows, in words at its top."""
    costs = rest.groupby("family", sort=False).delta.agg(["min", "max"])
    lines_ = [
        f"{label(name)} {low:.1f}" + (f" to {high:.1f}" if f"{low:.1f}" != f"{high:.1f}" else "")
        for name, low, high in costs.itertuples()
    ]
    if lines_:
        words = "\n".join(["above:", *lines_])
        place: dict[str, Any] = dict(
            transform=ax.transAxes, ha="right", va="top", fontsize="x-small"
        )
        ax.text(0.99, 0.99, words, color=DARK, linespacing=1.1, **place)


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
    words = "correlation of bias and −price"
    return lines(table, "layer", "price_correlation", by="arm", xlabel="layer", ylabel=words)


def sweep(table: pd.DataFrame, x: str, xlabel: str, log: bool = False) -> Figure:
    """Cost in nats per token with its band against a column `x` (columns arm, family, delta,
    delta_low, delta_high): of one strategy a line per checkpoint; of several a panel per
    checkpoint, a line per strategy, the later thinner, so that each is seen where they coincide.
    """
    needs("plots_assignment.sweep", table, "delta", names=["arm", "family"])
    alone = table.family.nunique() == 1
    fig = lines(
        table,
        x,
        "delta",
        by="arm" if alone else "family",
        panel=None if alone else "arm",
        log="x" if log else "",
        xlabel=xlabel,
        ylabel="added nats per token",
        reference=0,
    )
    for ax in fig.axes if not alone else []:
        nested(ax)
    return fig
