"""Figures of assigning otherwise: what it costs and what it balances."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from lib.paper.plots import NAMES, figure
from lib.paper.plots_style import STYLES

COLOURS = {name: look.colour for name, look in STYLES.items()}
STRATEGIES = COLOURS
STRATEGY_MARKS = {name: look.mark for name, look in STYLES.items()}


def trade_off(table: pd.DataFrame) -> Figure:
    """Cost in nats per token against the p95 of busiest over nominal (columns arm, family, causal,
    p95, delta, low, high): a mark per setting, settings of one strategy joined; hollow marks are
    not causal in a stream.
    """
    arms = list(table.arm.unique())
    fig, axes = figure(len(arms), 1, height=3.6 * len(arms) + 0.9, sharex=True)
    for ax, arm in zip(axes[:, 0], arms, strict=True):
        for family, part in table[table.arm == arm].groupby("family", sort=False):
            part, colour = part.sort_values("p95"), STRATEGIES[family]
            ax.errorbar(
                part.p95,
                part.delta,
                [part.delta - part.low, part.high - part.delta],
                fmt="none",
                ecolor=colour,
                lw=1,
            )
            ax.plot(part.p95, part.delta, "-", color=colour, lw=1)
            ax.plot(
                part.p95,
                part.delta,
                STRATEGY_MARKS[family],
                ls="none",
                color=colour,
                ms=6,
                mew=1.4,
                label=family.replace("_", " "),
                mfc=colour if part.causal.all() else "white",
            )
        ax.set_yscale("symlog", linthresh=0.02)
        ax.axhline(0, color=COLOURS["null"], lw=1)
        ax.set(title=NAMES.get(arm, arm), ylabel="added nats per token", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(ScalarFormatter())
    axes[-1][0].set_xlabel("busiest expert / nominal load, P95 of groups")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def sweep(table: pd.DataFrame, x: str, label: str, log: bool = False) -> Figure:
    """Cost in nats per token with its interval against a column `x` (columns arm, family, delta,
    low, high).
    """
    fig, axes = figure()
    ax = axes[0][0]
    for (arm, family), part in table.groupby(["arm", "family"], sort=False):
        colour, style = STRATEGIES[family], "--" if arm == "with" else "-"
        part = part.sort_values(x)
        ax.fill_between(part[x], part.low, part.high, color=colour, alpha=0.2, lw=0)
        ax.plot(
            part[x],
            part.delta,
            STRATEGY_MARKS[family] + style,
            color=colour,
            label=f"{family.replace('_', ' ')}, {NAMES.get(arm, arm)}",
        )
    ticks = sorted(table[x].unique())
    ax.set(xscale="log" if log else "linear", xlabel=label, ylabel="added nats per token")
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axhline(0, color=COLOURS["null"], lw=1)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
