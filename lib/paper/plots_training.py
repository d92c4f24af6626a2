"""Figures of the fine-tuning chapter.  One colour and one mark per loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from lib.paper.plots import NAMES, figure
from lib.paper.plots_style import STYLES

COLOURS = {name: look.colour for name, look in STYLES.items()}

LOSS_MARKS = {
    "none": "o",
    "switch": "s",
    "gini": "^",
    "entropy": "v",
    "cv2": "D",
    "max": "P",
    "stock": "X",
    "bias": "*",
    "z": "h",
}


def _keyed(fig: Figure, ax, columns: int = 3) -> None:
    """One legend for all panels, outside of them."""
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


def training(curves: pd.DataFrame) -> Figure:
    """Loss and mean Gini against training tokens, per arm."""
    fig, axes = figure(1, 2)
    loss, gini = axes[0]
    for arm, part in curves.groupby("arm"):
        x, colour, style = part.tokens / 1e6, COLOURS[arm], "--" if arm == "with" else "-"
        loss.plot(x, part.nats, style, color=colour, lw=0.8, alpha=0.7)
        done = part.dropna(subset="held_out")
        loss.plot(done.tokens / 1e6, done.held_out, "o", color=colour)
        gini.plot(x, part.gini, style, color=colour)
        gini.annotate(
            NAMES[arm],
            (x.iloc[-1], part.gini.iloc[-1]),
            xytext=(0, 14),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    loss.set(xlabel="training tokens (million)", ylabel="nats per token", ylim=(1.2, 5))
    gini.set(xlabel="training tokens (million)", ylabel="Gini of the expert load", ylim=(0, 1))
    return fig


def loss_curves(table: pd.DataFrame) -> Figure:
    """Gini of the training load against steps, a panel per layer, a line per loss with its band
    (columns loss, step, layer, gini, gini_low, gini_high)."""
    layers = sorted(table.layer.unique())
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    fig, axes = figure(rows, columns, height=2.2 * rows + 0.8, sharex=True, sharey=True)
    for ax, layer in zip(axes.flat, layers, strict=False):
        for loss, part in table[table.layer == layer].groupby("loss", sort=False):
            ax.fill_between(
                part.step, part.gini_low, part.gini_high, color=COLOURS[loss], alpha=0.25, lw=0
            )
            ax.plot(
                part.step,
                part.gini,
                color=COLOURS[loss],
                lw=1.4,
                marker=LOSS_MARKS[loss],
                ms=4,
                markevery=max(1, len(part) // 4),
                label=NAMES[loss],
            )
        ax.set_title(f"layer {layer}")
    axes[0][0].set_ylim(0, 1.05 * table.gini.max())
    for ax in axes[-1]:
        ax.set_xlabel("optimizer step")
    for ax in axes[:, 0]:
        ax.set_ylabel("Gini")
    for ax in list(axes.flat)[len(layers) :]:
        ax.axis("off")
    _keyed(fig, axes[0][0])
    return fig


def front(table: pd.DataFrame) -> Figure:
    """Nats per token against p95 MaxVio, a line per loss through its coefficients, bars of 95 %
    where there are seeds.

    Columns: loss, coefficient, max_violation, max_violation_low, max_violation_high, nats,
    nats_low, nats_high.
    """
    fig, axes = figure(height=4.0)
    ax = axes[0][0]
    for loss, part in table.groupby("loss", sort=False):
        part = part.sort_values("coefficient")
        x, y = part.max_violation, part.nats
        bars = dict(
            xerr=[x - part.max_violation_low, part.max_violation_high - x],
            yerr=[y - part.nats_low, part.nats_high - y],
        )
        ax.errorbar(
            x,
            y,
            **bars,
            color=COLOURS[loss],
            marker="_" if loss == "start" else LOSS_MARKS[loss],
            lw=1.2,
            elinewidth=0.8,
            capsize=2,
            label=NAMES[loss],
        )
    ax.set(
        xlabel="95th percentile of MaxVio over held-out batches", ylabel="held-out nats per token"
    )
    _keyed(fig, ax)
    return fig


def matched(table: pd.DataFrame, margin: float) -> Figure:
    """Difference in nats per token to Switch at the same MaxVio (columns loss, difference, low,
    high) and the margin.
    """
    fig, axes = figure(height=1.4 + 0.35 * len(table))
    ax = axes[0][0]
    ax.axvspan(-margin, margin, color=COLOURS["null"], alpha=0.2, lw=0, label="counts as equal")
    for place, row in enumerate(table.itertuples()):
        error = [[row.difference - row.low], [row.high - row.difference]]
        ax.errorbar(
            row.difference,
            place,
            xerr=error,
            fmt=LOSS_MARKS[row.loss],
            color=COLOURS[row.loss],
            capsize=3,
        )
    ax.axvline(0, color=COLOURS["switch"], lw=1)
    ax.set(
        yticks=range(len(table)),
        yticklabels=[NAMES[loss] for loss in table.loss],
        xlabel="nats per token above Switch",
    )
    ax.set_ylim(len(table) - 0.5, -0.5)
    return fig


def layer_gini(table: pd.DataFrame) -> Figure:
    """Held-out Gini per layer, a line per loss with its band (columns loss, layer, gini, gini_low,
    gini_high).
    """
    fig, axes = figure(height=3.6)
    ax = axes[0][0]
    for loss, part in table.groupby("loss", sort=False):
        line = ":" if loss == "start" else "-"
        ax.fill_between(
            part.layer, part.gini_low, part.gini_high, color=COLOURS[loss], alpha=0.25, lw=0
        )
        ax.plot(
            part.layer,
            part.gini,
            line,
            marker=LOSS_MARKS.get(loss, "."),
            color=COLOURS[loss],
            label=NAMES[loss],
        )
    ax.set(
        xlabel="layer",
        ylabel="Gini of the held-out load",
        ylim=(0, None),
        xticks=sorted(table.layer.unique()),
    )
    _keyed(fig, ax)
    return fig


def router_states(table: pd.DataFrame) -> Figure:
    """Router entropy and specialisation per loss, with their intervals; the line is before
    training.

    Columns: loss, and of router_entropy and specialisation the value, <name>_low and <name>_high.
    """
    fig, axes = figure(1, 2, height=1.6 + 0.3 * len(table), sharey=True)
    start, after = table[table.loss == "start"].iloc[0], table[table.loss != "start"]
    labels = {"router_entropy": "router entropy (nats)", "specialisation": "specialisation (bits)"}
    for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
        for place, row in enumerate(after.to_dict("records")):
            error = [[row[column] - row[f"{column}_low"]], [row[f"{column}_high"] - row[column]]]
            ax.errorbar(
                row[column],
                place,
                xerr=error,
                fmt=LOSS_MARKS[row["loss"]],
                color=COLOURS[row["loss"]],
                ms=6,
                capsize=3,
            )
        ax.axvline(start[column], color=COLOURS["start"], ls=":")
        ax.set(
            xlabel=label, yticks=range(len(after)), yticklabels=[NAMES[loss] for loss in after.loss]
        )
        ax.set_ylim(len(after) - 0.5, -0.5)
    return fig
