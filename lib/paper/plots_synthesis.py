"""The figure of the synthesis: what balancing costs, and what it leaves."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.paper.plots import absent, conditions, figure, in_order, key, legend, lines, needs, panels
from lib.paper.plots_style import DARK, GREY, Style, label, style

WAYS = {
    "beaten by none": Style("#D55E00", "D", ""),
    "beaten in both": Style("#0072B2", "o", ""),
}
NEAR = (0.1, 0.06)  # parts of the axes within which marks share one label
FAR = 2.0  # times what the frontier costs at most: what costs more is told in words
LINE = 0.075  # part of an axis that a line of a label is high


def pareto(table: pd.DataFrame) -> Figure:
    """Busiest device over the mean against nats per token lost, a panel per group, a mark per way
    with its interval and name; hollow marks are not causal; the grey line, the same in all panels,
    is the frontier: what no other way beats in both; in brackets the simulated slowdown of a layer.
    What costs more than `FAR` times what the frontier does is counted at the edge.

    Columns: group, way, causal, nats, nats_low, nats_high, rho, slowdown, frontier.
    """
    numbers = ("nats", "nats_low", "nats_high", "rho", "slowdown", "causal", "frontier")
    needs("plots_synthesis.pareto", table, *numbers, names=["group", "way"])
    parts = conditions(table, "group")
    words = "busiest device / mean"
    titles = [title for title, _ in parts]
    xlabel = "nats per token lost (in brackets: time of a layer over even)"
    fig, axes = panels(titles, xlabel, words, 2.5, 1, sharex=True, sharey=True)
    best = table[table.frontier.astype(bool)].sort_values("nats")
    far = FAR * best.nats.max() if best.nats.max() > 0 else table.nats.max()
    near = table[table.nats <= far]
    ends = near[["nats", "nats_low"]].min().min(), near[["nats", "nats_high"]].max().max()
    excess = table.rho.max() - 1
    for ax, (_, own) in zip(axes, parts, strict=True):
        ax.plot(best.nats, best.rho, color=GREY, lw=2, drawstyle="steps-post", zorder=0)
        _beyond(ax, own[own.nats > far])
        own = own[own.nats <= far].dropna(subset=["rho"])
        for row in own.to_dict("records"):
            _mark(ax, row)
        if own.empty:
            absent(ax)
            continue
        ax.set(ylim=(1 - 0.1 * excess, 1 + 1.1 * excess), xlim=_wider(*ends))
        _names(ax, own, best.nats.max())
    marks = [key(words, look) for words, look in WAYS.items()]
    hollow = key("hollow: not causal", Style(DARK, "o", ""), mfc="white")
    legend(fig, [*marks, hollow, key("the best of all panels", Style(GREY, ""), lw=2)])
    return fig


def prices(table: pd.DataFrame) -> Figure:
    """The price of balancing at inference in every pair (columns seed, price, arm): two marks, and
    how far they lie apart.
    """
    needs("plots_synthesis.prices", table, "seed", "price", names=["arm"])
    fig, axes = figure(height=2.9)
    ax, looks = axes[0][0], {arm: style(arm) for arm in in_order(table.arm)}
    for seed, pair in table.groupby("seed"):
        ax.vlines(seed, pair.price.min(), pair.price.max(), color=GREY, lw=1)
    for arm, own in table.groupby("arm", sort=False):
        ax.plot(own.seed, own.price, looks[arm].mark, color=looks[arm].colour)
    ax.set(xlabel="pair of models, each re-routed", ylabel="nats per token added", ylim=(0, None))
    ax.set_xticks(sorted(set(table.seed)))
    legend(fig, [key(label(arm), replace(look, dash="")) for arm, look in looks.items()])
    return fig


def path(table: pd.DataFrame) -> Figure:
    """Gini against training of a model without a balance loss (columns tokens_m, gini)."""
    words = "million tokens of training"
    own = table.assign(arm="without")
    return lines(
        own, "tokens_m", "gini", by="arm", xlabel=words, ylabel="Gini", log="x", ylim=(0, 1)
    )


def _wider(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis with room for names."""
    size = max(high - low, 1e-3)
    return low - 0.05 * size, high + 1.15 * size


def _mark(ax: Axes, row: dict) -> None:
    """One way: its mark and interval."""
    look = WAYS["beaten by none" if row["frontier"] else "beaten in both"]
    ax.hlines(row["rho"], row["nats_low"], row["nats_high"], color=look.colour, lw=1)
    fill = look.colour if row["causal"] else "white"
    ax.plot(
        row["nats"],
        row["rho"],
        look.mark,
        color=look.colour,
        mfc=fill,
        zorder=3 if row["frontier"] else 2,
    )


def _beyond(ax: Axes, rest: pd.DataFrame) -> None:
    """What costs more than a panel shows, in words at its edge."""
    if len(rest):
        words = f"{len(rest)} more to the right, up to {rest.nats.max():.1f}"
        place: dict[str, Any] = dict(transform=ax.transAxes, ha="right", va="top")
        ax.text(0.99, 0.97, words, color=DARK, fontsize="small", **place)


def _names(ax: Axes, own: pd.DataFrame, end: float) -> None:
    """The name of each mark at its right, above the line of the frontier where that goes on to
    `end`; of marks close together one text; each text above the one below it.
    """
    size = [high - low for low, high in (ax.get_xlim(), ax.get_ylim())]
    left = own.sort_values(["rho", "nats"]).to_dict("records")
    texts: list[tuple[float, float, float, str]] = []
    while left:
        first = left[0]
        near = [
            row
            for row in left
            if abs(row["nats"] - first["nats"]) < NEAR[0] * size[0]
            and abs(row["rho"] - first["rho"]) < NEAR[1] * size[1]
        ]
        left = [row for row in left if row not in near]
        ends = [value for row in near for value in (row["nats"], row["nats_high"])]
        x = max(value for value in ends if value == value) + 0.015 * size[0]
        names = [_called(row) for row in near]
        lines = [", ".join(names[at : at + 2]) for at in range(0, len(names), 2)]
        height = LINE * size[1] * len(lines)
        over = any(row["frontier"] for row in near) and x < end
        middle = sum(row["rho"] for row in near) / len(near)
        bottom = first["rho"] + 0.03 * size[1] if over else middle - height / 2
        texts.append((bottom, x, height, "\n".join(lines)))
    free = -np.inf  # where the text below ends
    for bottom, x, height, text in sorted(texts):
        ax.text(x, max(free, bottom), text, fontsize="small", color=DARK, va="bottom")
        free = max(free, bottom) + height


def _called(row: dict) -> str:
    """A way by its name, without its setting, and how much slower a layer is with it."""
    slower, name = row["slowdown"], re.sub(r" [\d.]+$", "", row["way"])
    return label(name) + (f" (+{slower:.0%})" if slower == slower and slower >= 0 else "")
