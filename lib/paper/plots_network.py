"""Figures of the network: what an exchange and a step take, and what spreads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from lib.paper.plots import (
    absent,
    conditions,
    figure,
    key,
    legend,
    line,
    lines,
    needs,
    panels,
    plain,
    rows,
    shaded,
    ticks,
)
from lib.paper.plots_style import BETA, GREY, STYLES, label, style
from lib.paper.plots_tables import joined, stacked

OWN = ("same domain", "packed for")  # whose text a placement was made for, or of its kind


def level_times(table: pd.DataFrame) -> Figure:
    """Time of the exchange against the level, a panel per fabric: its mean and percentiles, bands
    of mean and P99.

    Columns: fabric, level, mean_us, p50_us, p95_us, p99_us, and of mean_us and p99_us their
    intervals <name>_low, <name>_high.
    """
    names = {"mean_us": "mean", "p50_us": "P50", "p95_us": "P95", "p99_us": "P99"}
    return lines(
        stacked(table, "us", names),
        "level",
        "us",
        by="of",
        panel="fabric",
        xlabel="level (Gini of the router)",
        ylabel="time of the exchange (µs)",
        ylim=(0, None),
        sharey=False,
        shade="95 % interval",
    )


def slowdown_families(table: pd.DataFrame, predecessor: pd.DataFrame) -> Figure:
    """Slowdown over level 0 against the level per family of routes (columns family, level,
    slowdown, slowdown_low, slowdown_high), beside the predecessor's table (columns level,
    slowdown).
    """
    for part in (table, predecessor):
        needs("plots_network.slowdown_families", part, "level", "slowdown")
    known = predecessor[["level", "slowdown"]].assign(family="predecessor")
    fig = lines(
        pd.concat([table, known], ignore_index=True),
        "level",
        "slowdown",
        by="family",
        xlabel="level (Gini of the router)",
        ylabel="slowdown over level 0",
        height=2.9,
        shade="nine in ten runs",
    )
    fig.axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    return fig


def layer_times(table: pd.DataFrame) -> Figure:
    """Time of measured routes over that of even ones per layer with its band, a panel per fabric, a
    line per checkpoint (columns arm, fabric, layer, over_even, over_even_low, over_even_high).
    """
    return lines(
        table,
        "layer",
        "over_even",
        by="arm",
        panel="fabric",
        xlabel="layer",
        ylabel="time / even",
        reference=1,
        shade="nine in ten batches",
    )


def carried(table: pd.DataFrame) -> Figure:
    """Slowdown of layers against tokens per device with its interval (columns arm, shape, tokens,
    slowdown, slowdown_low, slowdown_high), a panel per checkpoint, a line per shape.
    """
    fig = lines(
        table,
        "tokens",
        "slowdown",
        by="shape",
        panel="arm",
        xlabel="tokens per device",
        ylabel="slowdown",
        log="x",
        shade="95 % interval",
    )
    for ax in fig.axes:
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return fig


def _over_even(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `time`, the time over that of even routes, and its interval."""
    ends = ("", "_low", "_high")
    needs("plots_network", table, *(f"slowdown{end}" for end in ends))
    return table.assign(**{f"time{end}": 1 + table[f"slowdown{end}"] for end in ends})


def step_levels(table: pd.DataFrame) -> Figure:
    """Time of a layer over that of even routes against the level with its band (columns shape,
    devices, tokens, level, slowdown, slowdown_low, slowdown_high), a panel per shape: on its most
    devices a line per number of tokens, the darker the fewer.
    """
    own = _over_even(table)
    needs("plots_network.step_levels", own, "level", names=["shape", "devices", "tokens"])
    return lines(
        _most_devices(own),
        "level",
        "time",
        by="tokens",
        panel="shape",
        log="y",
        xlabel="level (Gini)",
        ylabel="time / even",
        reference=1,
        shade="95 % interval",
    )


def betas(table: pd.DataFrame) -> Figure:
    """Elasticity against tokens per device with its interval (columns fabric, shape, devices,
    tokens, beta, beta_low, beta_high), a panel per fabric: on its most devices a line per shape.
    """
    names = ["fabric", "shape", "devices", "tokens"]
    needs("plots_network.betas", table, "beta", names=names)
    return lines(
        _most_devices(table),
        "tokens",
        "beta",
        by="shape",
        panel="fabric",
        log="x",
        xlabel="tokens per device",
        ylabel=BETA,
        reference=0,
        height=2.9,
        shade="95 % interval",
    )


def _most_devices(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each shape on its most devices."""
    return table[table.devices == table.groupby("shape").devices.transform("max")]


def anatomy(table: pd.DataFrame) -> Figure:
    """What the slowdown is made of (columns shape, tokens, start, wire, arithmetic, order as shares
    of the even time), a panel per shape, stacked bars per number of tokens; parts that save time
    hang below zero.
    """
    names = ("start", "wire", "arithmetic", "order")
    needs("plots_network.anatomy", table, "tokens", *names, names=["shape"])
    titles, parts = zip(*conditions(table, "shape"), strict=True)
    fig, axes = panels(titles, "tokens per device", "slowdown")
    for ax, own in zip(axes, parts, strict=True):
        up, down, places = np.zeros(len(own)), np.zeros(len(own)), range(len(own))
        for name in names:
            share = own[name].to_numpy(float)
            bottom = np.where(share > 0, up, down)
            ax.bar(places, share, bottom=bottom, color=STYLES[name].colour, width=0.7)
            up, down = up + np.maximum(share, 0), down + np.minimum(share, 0)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.set_xticks(places, [f"{n:g}" for n in own.tokens], rotation=45 if len(own) > 4 else 0)
        if not len(own):
            absent(ax)
    legend(fig, [Patch(color=STYLES[name].colour, label=name) for name in names])
    return fig


def placements(table: pd.DataFrame, xlabel: str) -> Figure:
    """Mean ρ per placement, by the text it was made for (columns group, placement, where, rho, and
    where there is a band rho_low and rho_high), a panel per group, all to one scale; filled
    where it was made for text of the same kind (`OWN`), else hollow, each a little below the last.
    """
    needs("plots_network.placements", table, "rho", names=["group", "placement", "where"])
    names, where = list(dict.fromkeys(table.placement)), list(dict.fromkeys(table["where"]))
    looks = {place: replace(style(place), dash="") for place in where}
    fills = {n: looks[n].colour if n in OWN else "none" for n in where}
    ends = table[[name for name in ("rho", "rho_high") if name in table]].max().max()
    titles, parts = zip(*conditions(table, "group"), strict=True)
    titles = tuple(title.replace(", ", ",\n") for title in titles)
    fig, axes = panels(titles, "", "", 0.9 + 0.34 * len(names), sharey=True)
    fig.supxlabel(xlabel, fontsize="medium")
    for ax, own in zip(axes, parts, strict=True):
        for place, part in own.groupby("where", sort=False):
            look, beside = looks[place], 0.16 * (where.index(place) - (len(where) - 1) / 2)
            heights = part.placement.map(names.index) + beside
            ax.plot(part.rho, heights, look.mark, color=look.colour, mfc=fills[place])
            if "rho_low" in part:
                ax.hlines(heights, part.rho_low, part.rho_high, color=look.colour, lw=1)
        ax.set_xlim(0.95, 1.04 * ends if ends == ends else None)
        ax.axvline(1, color=GREY, lw=1)
        rows(ax, names)
    legend(fig, [key(label(n), look, mfc=fills[n]) for n, look in looks.items()])
    return fig


def scaling(table: pd.DataFrame) -> Figure:
    """Time over that of even routes, and seconds of one call by the bound and exactly, against the
    number of devices, a line per fabric, at the left one for those that lie on each other.

    Columns: devices, fabric, slowdown, slowdown_low, slowdown_high, bound_s, exact_s.
    """
    needs("plots_network.scaling", table, "devices", "bound_s", "exact_s", names=["fabric"])
    fig, axes = figure(1, 2, height=3.2)
    left, right = axes[0]
    over = _over_even(table)
    left_lines, called = joined(
        over.assign(height=np.log(over.time)), "devices", "height", by="fabric"
    )
    looks = {fabric: style(fabric) for fabric in dict.fromkeys(table.fabric)}
    ways = {"bound_s": style("bound"), "exact_s": style("exact")}
    alike = {fabric for fabric, words in called.items() if words != label(fabric)}
    for fabric, own in left_lines.groupby("fabric", sort=False):
        look = style("bound") if fabric in alike else replace(looks[fabric], dash="-")
        line(left, own, "devices", "time", look, ms=4)
    for fabric, own in table.groupby("fabric", sort=False):
        look = looks[fabric]
        for column, way in ways.items():
            line(right, own, "devices", column, replace(look, dash=way.dash), ms=4, lw=1)
    left.set(xlabel="devices", ylabel="time / even")
    right.set(xlabel="devices", ylabel="seconds to compute")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log")
        ticks(ax, table.devices)
    plain(left.yaxis, 2)
    keys = [key(label(fabric), replace(look, dash="-")) for fabric, look in looks.items()]
    right_keys = [key(f"right: {way}", ways[f"{way}_s"]) for way in ("bound", "exact")]
    left_keys: list[Artist] = [key("left: the others, alike", style("bound"))] if alike else []
    left_keys.append(shaded("left: 95 % interval"))
    legend(fig, [*keys, *left_keys, *right_keys])
    return fig
