"""Figures of the network: what an exchange and a step take, and how far predictions err."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from lib.paper.plots import NAMES, figure
from lib.paper.plots_style import STYLES

COLOURS = {name: look.colour for name, look in STYLES.items()}
PART_COLOURS = COLOURS


def level_times(table: pd.DataFrame) -> Figure:
    """Time of the exchange against the level (columns fabric, level, mean_us, low_us, high_us,
    p50_us, p95_us, p99_us, p99_low_us, p99_high_us).
    """
    fabrics = list(table.fabric.unique())
    fig, axes = figure(1, len(fabrics), height=3.2)
    for ax, fabric in zip(axes[0], fabrics, strict=True):
        part = table[table.fabric == fabric]
        colour = COLOURS["power"]
        ax.fill_between(part.level, part.low_us, part.high_us, color=colour, alpha=0.3, lw=0)
        ax.fill_between(
            part.level, part.p99_low_us, part.p99_high_us, color="#444444", alpha=0.15, lw=0
        )
        ax.plot(part.level, part.mean_us, "o-", color=colour, label="mean")
        for name, style in (("p50_us", ":"), ("p95_us", "--"), ("p99_us", "-.")):
            ax.plot(part.level, part[name], style, color="#444444", lw=1.3, label=name[:3].upper())
        ax.set(
            title=fabric,
            xlabel="level (Gini of the router)",
            ylabel="time of the exchange (µs)",
            ylim=(0, None),
        )
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def slowdown_families(table: pd.DataFrame, predecessor: pd.DataFrame) -> Figure:
    """Slowdown over level 0 against the level per family of routes (columns family, level,
    slowdown, p05, p95), beside the predecessor's table (columns level, slowdown).
    """
    fig, axes = figure(height=3.8)
    ax = axes[0][0]
    for family, part in table.groupby("family"):
        ax.fill_between(
            part.level, 100 * part.p05, 100 * part.p95, color=COLOURS[family], alpha=0.15, lw=0
        )
        ax.plot(part.level, 100 * part.slowdown, "o-", color=COLOURS[family], label=NAMES[family])
    ax.plot(predecessor.level, 100 * predecessor.slowdown, "kX", ms=9, label=NAMES["predecessor"])
    ax.set(xlabel="level (Gini of the router)", ylabel="slowdown over level 0 (%)")
    ax.legend()
    return fig


def layer_times(table: pd.DataFrame) -> Figure:
    """Slowdown of measured routes per layer (columns arm, fabric, layer, slowdown, p95), a panel
    per fabric.
    """
    fabrics = list(table.fabric.unique())
    fig, axes = figure(1, len(fabrics), height=3.0, sharey=True)
    for ax, fabric in zip(axes[0], fabrics, strict=True):
        for arm, part in table[table.fabric == fabric].groupby("arm"):
            ax.fill_between(part.layer, part.p05, part.p95, color=COLOURS[arm], alpha=0.2, lw=0)
            ax.plot(
                part.layer,
                part.slowdown,
                "s--" if arm == "with" else "o-",
                color=COLOURS[arm],
                label=NAMES[arm],
            )
        ax.axhline(1, color=COLOURS["null"], lw=1)
        ax.set(title=fabric, xlabel="layer", xticks=sorted(table.layer.unique()))
    axes[0][0].set_ylabel("time / time of even routes")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def parity(table: pd.DataFrame) -> Figure:
    """Predicted against measured times (columns experiment, part, measured_us, predicted_us), a
    panel per experiment.
    """
    names = list(table.experiment.unique())
    rows = -(-len(names) // 2)
    fig, axes = figure(rows, 2, height=2.8 * rows)
    for ax in list(axes.flat)[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        own = table[table.experiment == name]
        ends = [
            own[["measured_us", "predicted_us"]].min().min() / 1.5,
            own[["measured_us", "predicted_us"]].max().max() * 1.5,
        ]
        ax.plot(ends, ends, color=COLOURS["null"], lw=1)
        for part, mark, colour in (("fit", "+", "#0072B2"), ("held_out", "o", "#D55E00")):
            known = own[own.part == part]
            ax.plot(
                known.measured_us,
                known.predicted_us,
                mark,
                ms=4,
                color=colour,
                mfc="none",
                alpha=0.8,
                label=part.replace("_", " "),
            )
        ax.set(
            title=name,
            xlabel="measured (µs)",
            ylabel="predicted (µs)",
            xscale="log",
            yscale="log",
            xlim=ends,
            ylim=ends,
        )
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def error_shares(table: pd.DataFrame) -> Figure:
    """Share of held-out configurations with at most an error (columns experiment, error), a line
    per experiment.
    """
    fig, axes = figure()
    ax = axes[0][0]
    for (name, own), style in zip(
        table.groupby("experiment", sort=False), ("-", "--", ":", "-."), strict=False
    ):
        ordered = np.sort(own.error)
        ax.step(
            100 * ordered,
            np.arange(1, len(ordered) + 1) / len(ordered),
            style,
            where="post",
            label=name,
        )
    ax.set(
        xlabel="|predicted / measured − 1| (%)",
        ylabel="share of configurations",
        xscale="symlog",
        ylim=(0, 1),
        xlim=(0, None),
    )
    ax.legend(loc="lower right")
    return fig


def elasticities(table: pd.DataFrame) -> Figure:
    """β against tokens of one device with its interval (columns shape, tokens, beta, low, high,
    beta_arithmetic), a panel per shape; the dotted line is the part of β that is arithmetic.
    """
    shapes = list(table["shape"].unique())
    fig, axes = figure(1, len(shapes), height=2.8, sharey=True)
    for ax, shape in zip(axes[0], shapes, strict=True):
        own = table[table["shape"] == shape]
        ax.fill_between(own.tokens, own.low, own.high, color=COLOURS["model"], alpha=0.25, lw=0)
        ax.plot(own.tokens, own.beta, "o-", color=COLOURS["model"], label="β")
        ax.plot(
            own.tokens, own.beta_arithmetic, ":", color=COLOURS["with"], label="of it arithmetic"
        )
        ax.axhline(0, color=COLOURS["null"], lw=1)
        ax.set(title=shape, xlabel="tokens per device", xscale="log")
    axes[0][0].set_ylabel("elasticity β")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def published_times(table: pd.DataFrame) -> Figure:
    """Published (crosses) and predicted times against the number of devices (columns phase,
    devices, time_us, predicted_us, part), a panel per phase; filled circles were fitted, hollow
    ones were not.
    """
    phases = list(table.phase.unique())
    fig, axes = figure(1, len(phases), height=2.8)
    for ax, phase in zip(axes[0], phases, strict=True):
        own = table[table.phase == phase]
        ax.plot(own.devices, own.predicted_us, "-", color=COLOURS["model"], lw=1)
        for part, fill in (("fit", COLOURS["model"]), ("held_out", "none")):
            known = own[own.part == part]
            ax.plot(
                known.devices,
                known.predicted_us,
                "o",
                color=COLOURS["model"],
                mfc=fill,
                label=f"predicted, {part.replace('_', ' ')}",
            )
        ax.plot(own.devices, own.time_us, "kx", label="published")
        ax.set(title=phase, xlabel="devices", ylabel="time (µs)", xscale="log", ylim=(0, None))
        ax.set_xticks(own.devices, own.devices)
        ax.xaxis.set_minor_formatter(NullFormatter())
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


KEYS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def _panels(names: list, height: float, **options) -> tuple[Figure, list]:
    """A panel per name, at most three a row; the rest of the last row is left empty."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    fig, axes = figure(rows, columns, height=height * rows + 0.9, **options)
    for ax in list(axes.flat)[len(names) :]:
        ax.axis("off")
    return fig, list(axes.flat)[: len(names)]


def step_levels(table: pd.DataFrame) -> Figure:
    """Time of a layer over that of even routes against the level with its band (columns shape,
    devices, tokens, level, slowdown, low, high), a panel per shape; the darker the fewer tokens of
    a device, line: devices.
    """
    shapes, tokens, counts = (
        list(dict.fromkeys(table[name])) for name in ("shape", "tokens", "devices")
    )
    fig, axes = _panels(shapes, 2.1, sharex=True, sharey=True)
    colours, styles = (
        colormaps["viridis"](np.linspace(0, 0.85, len(tokens))),
        ("-", "--", ":", "-."),
    )
    for ax, shape in zip(axes, shapes, strict=True):
        for (batch, devices), part in table[table["shape"] == shape].groupby(["tokens", "devices"]):
            colour = colours[tokens.index(batch)]
            ax.fill_between(part.level, 1 + part.low, 1 + part.high, color=colour, alpha=0.2, lw=0)
            ax.plot(
                part.level,
                1 + part.slowdown,
                styles[counts.index(devices) % len(styles)],
                color=colour,
                lw=1.3,
            )
        ax.set(yscale="log", title=shape, xlabel="level")
        ax.yaxis.set_major_locator(LogLocator(2))
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.axhline(1, color=COLOURS["null"], lw=0.8)
    for ax in axes[::3]:
        ax.set_ylabel("time / even")
    lines = [
        *(
            Line2D([], [], color=colour, label=f"{batch} tokens")
            for colour, batch in zip(colours, tokens, strict=True)
        ),
        *(
            Line2D([], [], color="#444444", ls=styles[i % len(styles)], label=f"{count} devices")
            for i, count in enumerate(counts)
        ),
    ]
    fig.legend(handles=lines, loc="outside upper center", ncols=4)
    return fig


def anatomy(table: pd.DataFrame) -> Figure:
    """What the slowdown is made of (columns shape, tokens, start, wire, arithmetic, order as shares
    of the even time), a panel per shape, stacked bars per number of tokens; parts that save time
    hang below zero.
    """
    shapes = list(dict.fromkeys(table["shape"]))
    fig, axes = _panels(shapes, 2.1)
    for ax, shape in zip(axes, shapes, strict=True):
        own = table[table["shape"] == shape]
        up, down = np.zeros(len(own)), np.zeros(len(own))
        for part in ("start", "wire", "arithmetic", "order"):
            share = 100 * own[part].to_numpy()
            ax.bar(
                range(len(own)),
                share,
                bottom=np.where(share > 0, up, down),
                color=PART_COLOURS[part],
                label=part,
                width=0.7,
            )
            up, down = up + np.maximum(share, 0), down + np.minimum(share, 0)
        ax.axhline(0, color=COLOURS["null"], lw=0.8)
        ax.set(title=shape, xlabel="tokens per device")
        ax.set_xticks(
            range(len(own)), [f"{n}" for n in own.tokens], rotation=45 if len(own) > 4 else 0
        )
    for ax in axes[::3]:
        ax.set_ylabel("slowdown (%)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def betas(table: pd.DataFrame) -> Figure:
    """Elasticity against tokens per device with its interval (columns fabric, shape, devices,
    tokens, beta, low, high), a panel per fabric; colour: shape, line: devices.
    """
    fabrics, shapes, counts = (
        list(table[name].unique()) for name in ("fabric", "shape", "devices")
    )
    fig, axes = figure(1, len(fabrics), height=3.2, sharey=True)
    styles = ("-", "--", ":", "-.", (0, (1, 5)))
    for ax, fabric in zip(axes[0], fabrics, strict=True):
        for (shape, devices), own in table[table.fabric == fabric].groupby(
            ["shape", "devices"], sort=False
        ):
            colour = KEYS[shapes.index(shape) % len(KEYS)]
            ax.plot(
                own.tokens,
                own.beta,
                styles[counts.index(devices) % len(styles)],
                marker=".",
                color=colour,
                lw=1.3,
            )
            ax.fill_between(own.tokens, own.low, own.high, color=colour, alpha=0.2, lw=0)
        ax.axhline(0, color=COLOURS["null"], lw=1)
        ax.set(title=fabric, xlabel="tokens per device", xscale="log")
    axes[0][0].set_ylabel("elasticity β")
    lines = [
        *(Line2D([], [], color=KEYS[i % len(KEYS)], label=shape) for i, shape in enumerate(shapes)),
        *(
            Line2D([], [], color="#444444", ls=styles[i % len(styles)], label=f"{count} devices")
            for i, count in enumerate(counts)
        ),
    ]
    fig.legend(handles=lines, loc="outside upper center", ncols=3)
    return fig


def placements(table: pd.DataFrame, label: str) -> Figure:
    """Mean ρ per placement, by where it is used (columns group, placement, where, rho), a panel per
    group, two in a row.
    """
    groups, names, where = (list(table[name].unique()) for name in ("group", "placement", "where"))
    rows = -(-len(groups) // 2)
    fig, axes = figure(
        rows, min(2, len(groups)), height=0.6 + (0.9 + 0.28 * len(names)) * rows, sharey=True
    )
    for ax in list(axes.flat)[len(groups) :]:
        ax.axis("off")
    for ax, group in zip(axes.flat, groups, strict=False):
        for mark, colour, place in zip("os", (KEYS[0], KEYS[1]), where, strict=False):
            own = (
                table[(table.group == group) & (table["where"] == place)]
                .set_index("placement")
                .reindex(names)
            )
            ax.plot(
                own.rho,
                range(len(names)),
                mark,
                color=colour,
                label=place,
                mfc="none" if mark == "s" else colour,
            )
        ax.set(
            title=group,
            xlabel=label,
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(len(names) - 0.5, -0.5),
            xlim=(0.95, 1.04 * table.rho[table.group == group].max()),
        )
        ax.axvline(1, color=COLOURS["null"], lw=1)
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def scaling(table: pd.DataFrame) -> Figure:
    """Slowdown (columns devices, fabric, slowdown, low, high) and seconds of one call (bound_s,
    exact_s) against devices.
    """
    fig, axes = figure(1, 2, height=3.2)
    left, right = axes[0]
    for (fabric, own), colour, mark in zip(
        table.groupby("fabric", sort=False), KEYS, "osD^v", strict=False
    ):
        left.fill_between(own.devices, 1 + own.low, 1 + own.high, color=colour, alpha=0.2, lw=0)
        left.plot(own.devices, 1 + own.slowdown, mark + "-", color=colour, ms=4, label=fabric)
        right.plot(own.devices, own.bound_s, mark + "-", color=colour, ms=4, lw=1)
        right.plot(own.devices, own.exact_s, mark + "--", color=colour, ms=4, lw=1)
    left.set(xscale="log", yscale="log", xlabel="devices", ylabel="time / even")
    left.yaxis.set_major_locator(LogLocator(2, numticks=12))
    left.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set(xscale="log", yscale="log", xlabel="devices", ylabel="seconds to compute")
    styles = [
        Line2D([], [], color="#444444", ls=style, label=name)
        for style, name in (("-", "bound"), ("--", "exact"))
    ]
    fig.legend(
        handles=[*left.get_legend_handles_labels()[0], *styles], loc="outside upper center", ncols=3
    )
    return fig
