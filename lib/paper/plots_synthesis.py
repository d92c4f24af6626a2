"""The figure of the synthesis: what balancing costs, and what it leaves."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.paper.plots import (
    absent,
    conditions,
    figure,
    in_order,
    interval,
    key,
    legend,
    line,
    needs,
    plain,
    rows,
    ticks,
)
from lib.paper.plots_style import DARK, GREY, Style, label, style

WAYS = {
    "nothing better in loss and load": Style("#D55E00", "D", ""),
    "something better in both": Style("#0072B2", "o", ""),
}
COLUMNS = "nats per token\nlost", "busiest device\n/ mean", "layer\nslower"
FAR = 2.0  # times what the frontier costs at most: what costs more is told in words


def pareto(table: pd.DataFrame) -> Figure:
    """A row per way, those of a group in a panel: at the left nats per token lost with their
    interval, at the right the busiest device over the mean, and beside it the simulated slowdown of
    a layer; hollow marks are not causal.  What costs more than `FAR` times what the frontier (what
    no other way beats in both) does is told in words.

    Columns: group, way, causal, nats, nats_low, nats_high, rho, slowdown, frontier.
    """
    numbers = ("nats", "nats_low", "nats_high", "rho", "slowdown", "causal", "frontier")
    needs("plots_synthesis.pareto", table, *numbers, names=["group", "way"])
    parts = conditions(table.sort_values(["nats", "rho"], kind="stable"), "group")
    counts = [max(len(own), 1) for _, own in parts]
    ratios = dict(height_ratios=[count + 0.6 for count in counts], width_ratios=[3, 2, 0.8])
    height = 0.21 * sum(counts) + 0.3 * len(counts) + 0.9
    fig, axes = figure(len(parts), 3, height=height, sharex="col", gridspec_kw=ratios)
    best = table.nats[table.frontier.astype(bool)].max()
    far = FAR * best if best > 0 else table.nats.max()
    for (title, own), (lost, left, slower) in zip(parts, axes, strict=True):
        lost.set_title(title, loc="left")
        if own.empty:
            absent(lost)
        for place, row in enumerate(own.to_dict("records")):
            _mark(lost, place, row, far)
            _mark(
                left,
                place,
                dict(nats=row["rho"], frontier=row["frontier"], causal=row["causal"]),
                np.inf,
            )
        lost.axvline(0, color=GREY, lw=1, zorder=0)
        left.axvline(1, color=GREY, lw=1, zorder=0)
        rows(lost, [re.sub(r" [\d.]+$", "", way) for way in own.way])
        for ax in (left, slower):
            rows(ax, [""] * len(own))
            ax.tick_params(left=False)
        for place, slow in enumerate(own.slowdown):
            words = f"{slow:+.0%}" if slow == slow else ""
            slower.text(0.5, place, words, ha="center", va="center", color=DARK)
        slower.spines[:].set_visible(False)
        slower.set(xlim=(0, 1), xticks=[])
    for ax, words in zip(axes[-1], COLUMNS, strict=True):
        ax.set_xlabel(words)
    marks = [key(words, look) for words, look in WAYS.items()]
    legend(fig, [*marks, key("hollow: not causal", Style(DARK, "o", ""), mfc="white"), interval()])
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


def gains(pairs: pd.DataFrame, sizes: pd.DataFrame) -> Figure:
    """What a loss from the start gains against size: a mark per pair (columns parameters_m, gain),
    and of each size the mean with its interval (columns parameters_m, gain, gain_low, gain_high).
    """
    needs("plots_synthesis.gains", pairs, "parameters_m", "gain")
    needs("plots_synthesis.gains", sizes, "parameters_m", "gain", "gain_low", "gain_high")
    fig, axes = figure(height=2.9)
    ax, mean, one = axes[0][0], Style("#0072B2", "D"), Style(GREY, "o", "")
    ax.axhline(0, color=GREY, lw=1)
    ax.plot(pairs.parameters_m, pairs.gain, one.mark, color=one.colour, mfc="none")
    ax.vlines(sizes.parameters_m, sizes.gain_low, sizes.gain_high, color=mean.colour)
    line(ax, sizes[["parameters_m", "gain"]], "parameters_m", "gain", mean)
    ax.set(xscale="log", xlabel="million parameters", ylabel="nats per token gained")
    ticks(ax, sizes.parameters_m.round(1))
    legend(fig, [key("a pair", one, mfc="none"), key("mean, 95 % interval", mean)])
    return fig


def path(table: pd.DataFrame) -> Figure:
    """Gini against training of a model without a balance loss (columns tokens_m, gini)."""
    needs("plots_synthesis.path", table, "tokens_m", "gini")
    fig, axes = figure(height=2.6)
    ax = axes[0][0]
    line(ax, table, "tokens_m", "gini", style("without"))
    ax.set(xscale="log", xlabel="million tokens of training", ylabel="Gini", ylim=(0, 1))
    plain(ax.xaxis)
    return fig


def _mark(ax: Axes, place: int, row: dict, far: float) -> None:
    """One way: its mark, its interval where it has one, in words where it is far."""
    if row["nats"] > far:
        at: dict = dict(transform=ax.get_yaxis_transform(), ha="right", va="center", color=DARK)
        ax.text(0.98, place, f"{row['nats']:.1f} →", **at)
        return
    look = WAYS[
        "nothing better in loss and load" if row["frontier"] else "something better in both"
    ]
    if row.get("nats_low", np.nan) < row.get("nats_high", np.nan):
        ax.plot([row["nats_low"], row["nats_high"]], [place] * 2, "|-", color=look.colour, ms=5)
    fill = look.colour if row["causal"] else "white"
    ax.plot(row["nats"], place, look.mark, color=look.colour, mfc=fill, zorder=3)
