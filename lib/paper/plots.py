"""Figures: arrays and tables in, a matplotlib Figure out.  Nothing here computes a result or saves a file.

One colour per checkpoint, per null and per strategy throughout the book (Okabe-Ito, safe for colour blindness).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")  # figures are shown by the chapter, once, with caption and alternative text
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

plt.style.use(Path(__file__).with_name("paper.mplstyle"))

COLOURS = {
    "model": "#D55E00",
    "without": "#D55E00", "with": "#0072B2", "null": "#7F7F7F", "predecessor": "#000000",
    "none": "#D55E00", "switch": "#0072B2", "gini": "#009E73", "entropy": "#CC79A7", "cv2": "#E69F00", "max": "#56B4E9",
    "stock": "#882255", "z": "#8C564B", "bias": "#000000", "start": "#7F7F7F",
    "power": "#009E73", "sorted": "#CC79A7", "lognormal": "#E69F00", "one_hot": "#56B4E9",
}  # fmt: skip
NAMES = {"model": "the model", "without": "without balance loss", "with": "with balance loss", "one_hot": "one hot expert",
         "sorted": "power law, hot experts side by side", "power": "power law", "lognormal": "log-normal",
         "predecessor": "the predecessor", "none": "no loss", "switch": "Switch, per layer", "gini": "Gini", "cv2": "importance CV²",
         "entropy": "entropy", "max": "maximum", "stock": "stock (transformers)", "z": "z-loss", "bias": "loss-free bias",
         "start": "before training"}  # fmt: skip


def figure(
    rows: int = 1, columns: int = 1, width: float = 6.2, height: float = 3.2, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` × `columns` axes, width and height of the whole in inches."""
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
    return fig, axes


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
        gini.annotate(NAMES[arm], (x.iloc[-1], part.gini.iloc[-1]), xytext=(0, 14), textcoords="offset points",
                      ha="right", color=colour)  # fmt: skip
    loss.set(xlabel="training tokens (million)", ylabel="nats per token", ylim=(1.2, 5))
    gini.set(xlabel="training tokens (million)", ylabel="Gini of the expert load", ylim=(0, 1))
    return fig


def load_maps(loads: Mapping[str, np.ndarray]) -> Figure:
    """Load over its mean, experts sorted within each layer, one map per checkpoint; loads [layers, experts]."""
    fig, axes = figure(1, len(loads), height=3.0, sharey=True)
    relative = {arm: np.sort(load / load.mean(1, keepdims=True), axis=1)[:, ::-1] for arm, load in loads.items()}
    top = max(part.max() for part in relative.values())
    for ax, (arm, part) in zip(axes[0], relative.items(), strict=True):
        last = ax is axes[0][-1]
        sns.heatmap(part, ax=ax, vmin=0, vmax=top, center=1, cmap="RdBu_r", cbar=last, linewidths=0.5,
                    xticklabels=[1, *[""] * (part.shape[1] - 2), part.shape[1]], yticklabels=range(1, len(part) + 1),
                    cbar_kws={"label": "load / mean load"} if last else None)  # fmt: skip
        ax.set(title=NAMES.get(arm, arm), xlabel="expert, busiest first")
    axes[0][0].set_ylabel("layer")
    return fig


def load_explorer(loads: Mapping[str, np.ndarray]) -> dict:
    """The maps of `loads` ([layers, experts] each, by name) as an interactive figure with a choice; experts in own order."""
    relative = {name: np.round(load / load.mean(1, keepdims=True), 3) for name, load in loads.items()}
    top = max(2.0, *(float(part.max()) for part in relative.values()))
    choices = {name: {"z": [part.tolist()]} for name, part in relative.items()}
    scale = [[0, "#2166AC"], [1 / top, "#F7F7F7"], [1, "#B2182B"]]  # white is the mean, in every map of the menu
    trace = dict(type="heatmap", z=next(iter(relative.values())).tolist(), zmin=0, zmax=top, colorscale=scale, x0=1, y0=1,
                 colorbar=dict(title=dict(text="load / mean")),
                 hovertemplate="layer %{y}, expert %{x}: %{z:.2f} × the mean<extra></extra>")  # fmt: skip
    axis = dict(dtick=1, fixedrange=True)
    layout = dict(xaxis=dict(title=dict(text="expert"), **axis),
                  yaxis=dict(title=dict(text="layer"), autorange="reversed", **axis), margin=dict(l=50, r=10, t=15, b=45))  # fmt: skip
    return dict(data=[trace], layout=layout, choices=choices)


def layers_and_domains(table: pd.DataFrame) -> Figure:
    """Gini per layer, one panel per domain: checkpoints as points, the document-permutation null as a band.

    Columns: domain, layer (from 1), arm, gini, null_low, null_high.
    """
    domains = list(table.domain.unique())
    columns = 3
    rows = -(-len(domains) // columns)
    fig, axes = figure(rows, columns, height=2.4 * rows, sharex=True, sharey=True)
    for ax, domain in zip(axes.flat, domains, strict=False):
        for arm, part in table[table.domain == domain].groupby("arm"):
            ax.fill_between(part.layer, part.null_low, part.null_high, color=COLOURS[arm], alpha=0.25, lw=0)
            ax.plot(part.layer, part.gini, "s--" if arm == "with" else "o-", color=COLOURS[arm], label=NAMES[arm])
        ax.set(title=domain, ylim=(0, 1), xticks=sorted(table.layer.unique()))
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel("Gini")
    for ax in list(axes.flat)[len(domains) :]:
        ax.axis("off")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def batch_tail(samples: pd.DataFrame, null: np.ndarray) -> Figure:
    """Share of serving batches whose MaxVio exceeds x, per checkpoint, and for a perfect router (null [draws])."""
    fig, axes = figure()
    ax = axes[0][0]
    curves = {arm: part.max_violation.to_numpy() for arm, part in samples.groupby("arm")} | {"null": null}
    for arm, values in curves.items():
        ordered = np.sort(values)
        share = 1 - np.arange(len(ordered)) / len(ordered)
        style = {"with": "--", "null": ":"}.get(arm, "-")
        ax.step(ordered, share, style, color=COLOURS[arm], where="post", label=NAMES.get(arm, "perfect router"))
    ax.set(xlabel="MaxVio = busiest expert / mean − 1", ylabel="share of batches above", yscale="log", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower left")
    return fig


def batch_size(table: pd.DataFrame) -> Figure:
    """Gini against tokens per batch per checkpoint (columns arm, tokens, gini, low, high) with the null's curve."""
    fig, axes = figure()
    ax = axes[0][0]
    for arm, part in table.groupby("arm"):
        ax.fill_between(part.tokens, part.low, part.high, color=COLOURS[arm], alpha=0.25, lw=0)
        ax.plot(part.tokens, part.gini, ":" if arm == "null" else "s--" if arm == "with" else "o-",
                color=COLOURS[arm], label=NAMES.get(arm, "perfect router"))  # fmt: skip
    ax.set(xscale="log", xlabel="tokens per batch", ylabel="Gini of the batch's load", ylim=(0, None))
    ticks = sorted(table.tokens.unique())
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks], rotation=30)
    ax.xaxis.set_minor_formatter(NullFormatter())
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def level_times(table: pd.DataFrame) -> Figure:
    """Time of the exchange against the level (columns fabric, level, mean_us, low_us, high_us, p50_us, p95_us, p99_us,
    p99_low_us, p99_high_us)."""
    fabrics = list(table.fabric.unique())
    fig, axes = figure(1, len(fabrics), height=3.2)
    for ax, fabric in zip(axes[0], fabrics, strict=True):
        part = table[table.fabric == fabric]
        colour = COLOURS["power"]
        ax.fill_between(part.level, part.low_us, part.high_us, color=colour, alpha=0.3, lw=0)
        ax.fill_between(part.level, part.p99_low_us, part.p99_high_us, color="#444444", alpha=0.15, lw=0)
        ax.plot(part.level, part.mean_us, "o-", color=colour, label="mean")
        for name, style in (("p50_us", ":"), ("p95_us", "--"), ("p99_us", "-.")):
            ax.plot(part.level, part[name], style, color="#444444", lw=1.3, label=name[:3].upper())
        ax.set(title=fabric, xlabel="level (Gini of the router)", ylabel="time of the exchange (µs)", ylim=(0, None))
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def slowdown_families(table: pd.DataFrame, predecessor: pd.DataFrame) -> Figure:
    """Slowdown over level 0 against the level per family of routes (columns family, level, slowdown, p05, p95), beside
    the predecessor's table (columns level, slowdown)."""
    fig, axes = figure(height=3.8)
    ax = axes[0][0]
    for family, part in table.groupby("family"):
        ax.fill_between(part.level, 100 * part.p05, 100 * part.p95, color=COLOURS[family], alpha=0.15, lw=0)
        ax.plot(part.level, 100 * part.slowdown, "o-", color=COLOURS[family], label=NAMES[family])
    ax.plot(predecessor.level, 100 * predecessor.slowdown, "kX", ms=9, label=NAMES["predecessor"])
    ax.set(xlabel="level (Gini of the router)", ylabel="slowdown over level 0 (%)")
    ax.legend()
    return fig


def layer_times(table: pd.DataFrame) -> Figure:
    """Slowdown of measured routes per layer (columns arm, fabric, layer, slowdown, p95), a panel per fabric."""
    fabrics = list(table.fabric.unique())
    fig, axes = figure(1, len(fabrics), height=3.0, sharey=True)
    for ax, fabric in zip(axes[0], fabrics, strict=True):
        for arm, part in table[table.fabric == fabric].groupby("arm"):
            ax.fill_between(part.layer, part.p05, part.p95, color=COLOURS[arm], alpha=0.2, lw=0)
            ax.plot(part.layer, part.slowdown, "s--" if arm == "with" else "o-", color=COLOURS[arm], label=NAMES[arm])
        ax.axhline(1, color=COLOURS["null"], lw=1)
        ax.set(title=fabric, xlabel="layer", xticks=sorted(table.layer.unique()))
    axes[0][0].set_ylabel("time / time of even routes")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


LOSS_MARKS = {"none": "o", "switch": "s", "gini": "^", "entropy": "v", "cv2": "D", "max": "P", "stock": "X", "bias": "*", "z": "h"}


def _keyed(fig: Figure, ax, columns: int = 4) -> None:
    """One legend for all panels, outside of them."""
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


def loss_curves(table: pd.DataFrame) -> Figure:
    """Gini of the training load against steps, a panel per layer, a line per loss (columns loss, step, layer, gini)."""
    layers = sorted(table.layer.unique())
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    fig, axes = figure(rows, columns, height=2.2 * rows + 0.8, sharex=True, sharey=True)
    for ax, layer in zip(axes.flat, layers, strict=False):
        for loss, part in table[table.layer == layer].groupby("loss", sort=False):
            ax.plot(part.step, part.gini, color=COLOURS[loss], lw=1.4, marker=LOSS_MARKS[loss], ms=4,
                    markevery=max(1, len(part) // 4), label=NAMES[loss])  # fmt: skip
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
    """Nats per token against p95 MaxVio, a line per loss through its coefficients, bars of 95 % where there are seeds.

    Columns: loss, coefficient, max_violation, max_violation_low, max_violation_high, nats, nats_low, nats_high.
    """
    fig, axes = figure(height=4.0)
    ax = axes[0][0]
    for loss, part in table.groupby("loss", sort=False):
        part = part.sort_values("coefficient")
        x, y = part.max_violation, part.nats
        bars = dict(xerr=[x - part.max_violation_low, part.max_violation_high - x], yerr=[y - part.nats_low, part.nats_high - y])
        ax.errorbar(x, y, **bars, color=COLOURS[loss], marker="_" if loss == "start" else LOSS_MARKS[loss], lw=1.2, elinewidth=0.8,
                    capsize=2, label=NAMES[loss])  # fmt: skip
    ax.set(xlabel="95th percentile of MaxVio over held-out batches", ylabel="held-out nats per token")
    _keyed(fig, ax)
    return fig


def matched(table: pd.DataFrame, margin: float) -> Figure:
    """Difference in nats per token to Switch at the same MaxVio (columns loss, difference, low, high) and the margin."""
    fig, axes = figure(height=1.4 + 0.35 * len(table))
    ax = axes[0][0]
    ax.axvspan(-margin, margin, color=COLOURS["null"], alpha=0.2, lw=0, label="counts as equal")
    for place, row in enumerate(table.itertuples()):
        error = [[row.difference - row.low], [row.high - row.difference]]
        ax.errorbar(row.difference, place, xerr=error, fmt=LOSS_MARKS[row.loss], color=COLOURS[row.loss], capsize=3)
    ax.axvline(0, color=COLOURS["switch"], lw=1)
    ax.set(yticks=range(len(table)), yticklabels=[NAMES[loss] for loss in table.loss], xlabel="nats per token above Switch")
    ax.set_ylim(len(table) - 0.5, -0.5)
    return fig


def layer_gini(table: pd.DataFrame) -> Figure:
    """Held-out Gini per layer, a line per loss (columns loss, layer, gini)."""
    fig, axes = figure(height=3.6)
    ax = axes[0][0]
    for loss, part in table.groupby("loss", sort=False):
        line = ":" if loss == "start" else "-"
        ax.plot(part.layer, part.gini, line, marker=LOSS_MARKS.get(loss, "."), color=COLOURS[loss], label=NAMES[loss])
    ax.set(xlabel="layer", ylabel="Gini of the held-out load", ylim=(0, None), xticks=sorted(table.layer.unique()))
    _keyed(fig, ax)
    return fig


def router_states(table: pd.DataFrame) -> Figure:
    """Router entropy and specialisation per loss, the line is before training (columns loss, router_entropy, specialisation)."""
    fig, axes = figure(1, 2, height=1.6 + 0.3 * len(table), sharey=True)
    start, after = table[table.loss == "start"].iloc[0], table[table.loss != "start"]
    labels = {"router_entropy": "router entropy (nats)", "specialisation": "specialisation (bits)"}
    for ax, (column, label) in zip(axes[0], labels.items(), strict=True):
        for place, row in enumerate(after.to_dict("records")):
            ax.plot(row[column], place, LOSS_MARKS[row["loss"]], color=COLOURS[row["loss"]], ms=8)
        ax.axvline(start[column], color=COLOURS["start"], ls=":")
        ax.set(xlabel=label, yticks=range(len(after)), yticklabels=[NAMES[loss] for loss in after.loss])
        ax.set_ylim(len(after) - 0.5, -0.5)
    return fig
