"""Figures of assigning otherwise: what it costs, and what it balances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.paper.plots import conditions, figure, key, legend, lines, needs, plain
from lib.paper.plots_style import DARK, GREY, Style, label, style
from lib.paper.plots_tables import joined

# what models are trained or served with, which one figure names
NAMED = ("native", "drop", "reroute", "biased", "expert_choice")
REST = Style("#BBBBBB", "o", "")


def trade_off(table: pd.DataFrame) -> Figure:
    """Cost in nats per token against the P95 of busiest over nominal (columns arm, family, causal,
    p95, delta, delta_low, delta_high), a panel per arm side by side: a mark per setting, settings
    of one strategy joined in the order of the table; hollow marks are not causal in a stream.

    Named are those of `NAMED` (else the first as many); the rest is grey, and where it costs more
    than the panel shows, told in words at its top.
    """
    numbers = ("causal", "p95", "delta", "delta_low", "delta_high")
    needs("plots_assignment.trade_off", table, *numbers, names=["arm", "family"])
    parts, families = conditions(table, "arm"), list(table.family.unique())
    named = [name for name in families if name in NAMED] or families[: len(NAMED)]
    fig, axes = figure(1, len(parts), height=4.3, sharex=True, sharey=True)
    most = table[table.family.isin(named)][["delta", "delta_high"]].max(axis=None)
    top = 1.08 * most if most > 0 else 1
    for ax, (title, own) in zip(axes[0], parts, strict=True):
        rest = own[~own.family.isin(named)]
        for _, part in rest[rest.delta <= top].groupby("family", sort=False):
            _settings(ax, part, REST)
        for family, part in own[own.family.isin(named)].groupby("family", sort=False):
            _settings(ax, part, style(family), 9 - named.index(family))
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
        keys.append(key("others", REST))
    if not causal.all():
        keys.append(key("hollow: not causal", Style(DARK, "o", ""), mfc="white"))
    legend(fig, keys)
    return fig


def _above(ax: Axes, rest: pd.DataFrame) -> None:
    """What costs more than a panel shows, in words at its top."""
    if len(rest):
        words = f"{len(rest)} more above, up to {rest.delta.max():.1f}"
        place: dict[str, Any] = dict(transform=ax.transAxes, ha="right", va="top")
        ax.text(0.99, 0.99, words, color=DARK, fontsize="x-small", **place)


def _settings(ax: Axes, part: pd.DataFrame, look: Style, size: float = 6) -> None:
    """The settings of one strategy: marks with bars, joined by a thin line where each is more even
    than the one before it.
    """
    falls = part.p95.is_monotonic_increasing or part.p95.is_monotonic_decreasing
    colour, line = look.colour, "-" if look.dash and falls else "none"
    ax.vlines(part.p95, part.delta_low, part.delta_high, color=colour, lw=1)
    fill = colour if part.causal.all() else "white"
    made: dict[str, Any] = dict(
        color=colour, marker=look.mark, ms=size, mew=1.4, mfc=fill, lw=1, ls=line
    )
    ax.plot(part.p95, part.delta, **made)


def prices(table: pd.DataFrame) -> Figure:
    """How well the fitted bias matches the prices of places at the experts, with their sign turned,
    in each layer (columns arm, layer, price_correlation), a line per checkpoint.
    """
    words = "match of the learned bias with\nthe optimum's prices (correlation)"
    low = min(0, table.price_correlation.min())
    y = "price_correlation"
    shown: dict[str, Any] = dict(xlabel="layer", ylabel=words, ylim=(low, 1), height=2.4)
    return lines(table, "layer", y, by="arm", **shown)


def sweep(table: pd.DataFrame, x: str, xlabel: str, log: bool = False) -> Figure:
    """Cost in nats per token with its band against a column `x` (columns arm, family, delta,
    delta_low, delta_high): of one strategy a line per checkpoint; of several a panel per
    checkpoint, a line per strategy, one for those that lie on each other.
    """
    needs("plots_assignment.sweep", table, "delta", names=["arm", "family"])
    alone = table.family.nunique() == 1
    shown, called = joined(table, x, "delta", by="family", panel="arm")
    return lines(
        shown,
        x,
        "delta",
        by="arm" if alone else "family",
        panel=None if alone else "arm",
        log="x" if log else "",
        xlabel="the one layer that is re-routed" if x == "layer" else xlabel,
        ylabel="added nats per token",
        reference=0,
        shade="95 % interval" if "delta_low" in table else "",
        words=called,
    )
