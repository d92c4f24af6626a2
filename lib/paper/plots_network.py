"""Figures of the network chapters: what an exchange and a step take, and how far predictions err."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lib.paper.plots import COLOURS, NAMES, figure


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


def parity(table: pd.DataFrame) -> Figure:
    """Predicted against measured times (columns experiment, part, measured_us, predicted_us), a panel per experiment."""
    names = list(table.experiment.unique())
    rows = -(-len(names) // 2)
    fig, axes = figure(rows, 2, height=2.8 * rows)
    for ax in list(axes.flat)[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        own = table[table.experiment == name]
        ends = [own[["measured_us", "predicted_us"]].min().min() / 1.5, own[["measured_us", "predicted_us"]].max().max() * 1.5]
        ax.plot(ends, ends, color=COLOURS["null"], lw=1)
        for part, mark, colour in (("fit", "+", "#0072B2"), ("held_out", "o", "#D55E00")):
            known = own[own.part == part]
            ax.plot(known.measured_us, known.predicted_us, mark, ms=4, color=colour, mfc="none", alpha=0.8, label=part.replace("_", " "))
        ax.set(title=name, xlabel="measured (µs)", ylabel="predicted (µs)", xscale="log", yscale="log", xlim=ends, ylim=ends)
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def error_shares(table: pd.DataFrame) -> Figure:
    """Share of held-out configurations with at most an error (columns experiment, error), a line per experiment."""
    fig, axes = figure()
    ax = axes[0][0]
    for (name, own), style in zip(table.groupby("experiment", sort=False), ("-", "--", ":", "-."), strict=False):
        ordered = np.sort(own.error)
        ax.step(100 * ordered, np.arange(1, len(ordered) + 1) / len(ordered), style, where="post", label=name)
    ax.set(xlabel="|predicted / measured − 1| (%)", ylabel="share of configurations", xscale="symlog", ylim=(0, 1), xlim=(0, None))
    ax.legend(loc="lower right")
    return fig


def elasticities(table: pd.DataFrame) -> Figure:
    """β against tokens of one device with its interval (columns shape, tokens, beta, low, high, beta_arithmetic), a panel
    per shape; the dotted line is the part of β that is arithmetic."""
    shapes = list(table["shape"].unique())
    fig, axes = figure(1, len(shapes), height=2.8, sharey=True)
    for ax, shape in zip(axes[0], shapes, strict=True):
        own = table[table["shape"] == shape]
        ax.fill_between(own.tokens, own.low, own.high, color=COLOURS["model"], alpha=0.25, lw=0)
        ax.plot(own.tokens, own.beta, "o-", color=COLOURS["model"], label="β")
        ax.plot(own.tokens, own.beta_arithmetic, ":", color=COLOURS["with"], label="of it arithmetic")
        ax.axhline(0, color=COLOURS["null"], lw=1)
        ax.set(title=shape, xlabel="tokens per device", xscale="log")
    axes[0][0].set_ylabel("elasticity β")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def published_times(table: pd.DataFrame) -> Figure:
    """Published (crosses) and predicted times against the number of devices (columns phase, devices, time_us, predicted_us,
    part), a panel per phase; filled circles were fitted, hollow ones were not."""
    phases = list(table.phase.unique())
    fig, axes = figure(1, len(phases), height=2.8)
    for ax, phase in zip(axes[0], phases, strict=True):
        own = table[table.phase == phase]
        ax.plot(own.devices, own.predicted_us, "-", color=COLOURS["model"], lw=1)
        for part, fill in (("fit", COLOURS["model"]), ("held_out", "none")):
            known = own[own.part == part]
            ax.plot(known.devices, known.predicted_us, "o", color=COLOURS["model"], mfc=fill, label=f"predicted, {part.replace('_', ' ')}")
        ax.plot(own.devices, own.time_us, "kx", label="published")
        ax.set(title=phase, xlabel="devices", ylabel="time (µs)", xscale="log", ylim=(0, None))
        ax.set_xticks(own.devices, own.devices)
        ax.xaxis.set_minor_formatter(NullFormatter())
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
