"""Figures of training: of the base model, and of losses that repair imbalance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.paper.plots import dots, figure, in_order, key, legend, line, lines, needs, rows
from lib.paper.plots_style import DARK, GREY, Style, label, style


def training(curves: pd.DataFrame) -> Figure:
    """Loss (thin: training batches, dots: held-out text) and mean Gini against training tokens, a
    line per arm (columns arm, tokens, nats, held_out, gini).
    """
    needs("plots_training.training", curves, "tokens", "nats", "held_out", "gini", names=["arm"])
    table = curves.assign(million=curves.tokens / 1e6)
    fig, axes = figure(1, 2)
    loss, gini = axes[0]
    looks = {arm: style(arm) for arm in in_order(table.arm)}
    for arm, part in table.groupby("arm", sort=False):
        look = looks[arm]
        line(loss, part, "million", "nats", look, lw=1, alpha=0.8, marker="")
        done = part.dropna(subset="held_out")
        loss.plot(done.million, done.held_out, look.mark, color=look.colour, mfc="none")
        line(gini, part, "million", "gini", look, marker="")
    loss.set(xlabel="training tokens (million)", ylabel="nats per token")
    if len(table):
        loss.set_ylim(None, table.nats.quantile(0.97))  # the first steps would flatten the rest
    gini.set(xlabel="training tokens (million)", ylabel="Gini of the expert load", ylim=(0, 1))
    keys = [key(label(arm), replace(look, mark="")) for arm, look in looks.items()]
    legend(fig, [*keys, key("hollow: held-out text", Style(DARK, "o", ""), mfc="none")])
    return fig


def loss_curves(table: pd.DataFrame) -> Figure:
    """Gini of the training load against steps, a panel per loss, a line per layer with its band
    (columns loss, step, layer, gini, gini_low, gini_high): which loss reaches every layer?
    """
    return lines(
        table,
        "step",
        "gini",
        by="layer",
        panel="loss",
        xlabel="optimizer step",
        ylabel="Gini",
        ylim=(0, None),
        height=1.5,
    )


def layer_gini(table: pd.DataFrame) -> Figure:
    """Held-out Gini of each layer, a row per loss (columns loss, layer, gini), the least even on
    top; their mean as a bar.
    """
    needs("plots_training.layer_gini", table, "gini", names=["loss", "layer"])
    means = table.groupby("loss", sort=False).gini.mean().sort_values(ascending=False)
    fig, axes = figure(height=0.3 * len(means) + 1.1)
    ax, dot, bar = axes[0][0], Style("#009E73", "o", ""), Style("#000000", "|", "")
    place = table.loss.map(list(means.index).index)
    ax.plot(table.gini, place, dot.mark, color=dot.colour, alpha=0.6)
    ax.plot(means, range(len(means)), bar.mark, color=bar.colour, ms=14, mew=2)
    rows(ax, means.index)
    ax.set(xlabel="Gini of the held-out load", xlim=(0, None))
    legend(fig, [key("one layer", dot), key("mean over layers", bar)])
    return fig


def front(table: pd.DataFrame) -> Figure:
    """Nats per token against P95 of MaxVio, a line per loss through its coefficients, bars of 95 %
    where there are seeds.

    Columns: loss, coefficient, and of max_violation and nats the value, <name>_low, <name>_high.
    """
    x, y = "max_violation", "nats"
    ends = [f"{name}_{end}" for name in (x, y) for end in ("low", "high")]
    needs("plots_training.front", table, "coefficient", x, y, *ends, names=["loss"])
    fig, axes = figure(height=4.0)
    ax = axes[0][0]
    looks = {loss: style(loss) for loss in dict.fromkeys(table.loss)}
    for loss, part in table.sort_values("coefficient").groupby("loss", sort=False):
        look = looks[loss]
        ax.hlines(part[y], part[f"{x}_low"], part[f"{x}_high"], color=look.colour, lw=0.8)
        ax.vlines(part[x], part[f"{y}_low"], part[f"{y}_high"], color=look.colour, lw=0.8)
        ax.plot(part[x], part[y], "-", marker=look.mark, color=look.colour, lw=1.2)
    ax.set_xlabel("95th percentile of MaxVio over held-out batches (left: more even)")
    ax.set_ylabel("held-out nats per token (lower: better)")
    legend(fig, [key(label(loss), Style(look.colour, look.mark)) for loss, look in looks.items()])
    return fig


def matched(table: pd.DataFrame, margin: float) -> Figure:
    """Difference in nats per token to Switch at the same MaxVio (columns loss, difference,
    difference_low, difference_high); within ± margin counts as equal.
    """
    fig, axes = figure(height=1.4 + 0.35 * len(table))
    ax = axes[0][0]
    ax.axvspan(-margin, margin, color=GREY, alpha=0.2, lw=0)
    ax.axvline(0, color=style("switch").colour, lw=1)
    dots(ax, table, "difference", "loss")
    for place, value in enumerate(table.difference):
        if value != value:
            _not_reached(ax, place)
    ax.set_xlabel("nats per token above Switch at equal balance\n(grey: counts as equal)")
    return fig


def _not_reached(ax: Axes, place: float, words: str = "does not reach this balance") -> None:
    """Say in a row that its loss is never as even as what is compared."""
    look: dict[str, Any] = dict(ha="right", va="center", fontsize="x-small", color=DARK)
    ax.text(0.98, place, words, transform=ax.get_yaxis_transform(), **look)


def surface(table: pd.DataFrame, margin: float) -> Figure:
    """Difference to Switch, a panel per metric and level, a row per loss, the ways of reading below
    each other within it (columns metric, level, way, loss, difference and its ends); within ±
    margin counts as equal.
    """
    needs("plots_training.surface", table, "difference", names=["metric", "level", "way", "loss"])
    kinds = [list(dict.fromkeys(table[name])) for name in ("metric", "level", "way", "loss")]
    metrics, levels, ways, losses = kinds
    size = (max(len(metrics), 1), max(len(levels), 1))
    height = size[0] * (1.3 + 0.3 * len(losses))
    fig, axes = figure(*size, height=height, sharex=True, sharey=True)
    for row in table.to_dict("records"):
        ax, look = (
            axes[metrics.index(row["metric"])][levels.index(row["level"])],
            style(row["loss"]),
        )
        place = losses.index(row["loss"]) + 0.22 * (ways.index(row["way"]) - 1)
        ends = [row["difference_low"], row["difference_high"]]
        ax.plot(ends, [place, place], "-", color=look.colour, lw=1)
        ax.plot(
            row["difference"], place, "o^s"[ways.index(row["way"]) % 3], color=look.colour, ms=4
        )
        ax.set_title(f"{row['metric']}\nlevel: {row['level']}", fontsize="small")
    for (metric, level, loss), own in table.groupby(["metric", "level", "loss"], sort=False):
        if not own.difference.notna().any():
            _not_reached(
                axes[metrics.index(metric)][levels.index(level)], losses.index(loss), "not reached"
            )
    for ax in axes.flat:
        ax.axvspan(-margin, margin, color=GREY, alpha=0.2, lw=0)
        ax.axvline(0, color=style("switch").colour, lw=1)
        ax.set_xlim(-5 * margin, 5 * margin)
        ax.tick_params(axis="x", labelrotation=45)
    fig.supxlabel("nats per token above Switch (grey: counts as equal)", fontsize="medium")
    rows(axes[0][0], losses)
    marks = zip(ways, "o^s", strict=False)
    legend(fig, [key(way, Style("black", mark, "none")) for way, mark in marks])
    return fig


def router_states(table: pd.DataFrame) -> Figure:
    """Router entropy and specialisation per loss, with their intervals; the line is before
    training, the loss "start".

    Columns: loss, and of router_entropy and specialisation the value, <name>_low, <name>_high.
    """
    needs("plots_training.router_states", table, names=["loss"])
    start, after = table[table.loss == "start"], table[table.loss != "start"]
    fig, axes = figure(1, 2, height=1.6 + 0.3 * len(table), sharey=True)
    words = {"router_entropy": "router entropy (nats)", "specialisation": "specialisation (bits)"}
    for ax, (column, xlabel) in zip(axes[0], words.items(), strict=True):
        dots(ax, after, column, "loss")
        for value in start[column]:
            ax.axvline(value, color=GREY, ls=":")
        ax.set_xlabel(xlabel)
    legend(fig, [key(label("start"), Style(GREY, "", ":"))] if len(start) else [])
    return fig
