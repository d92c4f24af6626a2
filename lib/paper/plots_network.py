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
from lib.paper.plots_style import BETA, DARK, GREY, STYLES, Style, label, style
from lib.paper.plots_tables import joined, stacked

ROWS = {"random": 0, "in order": 1, "packed": 2, "replicated": 3}
TEXTS = {  # that placements were made for, as both figures of placements call them
    "no text": "no text",
    "same domain": "the domain served",
    "packed for": "the domain served",
    "another domain": "another domain",
    "all other domains": "all other domains",
    "all domains": "all domains",
}
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
        ylabel="slowdown over even",
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
    fig, axes = panels(titles, "tokens per device", "slowdown over even", sharey=True)
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
    names = sorted(dict.fromkeys(table.placement), key=lambda name: ROWS.get(name, len(ROWS)))
    where = [name for name in TEXTS if name in set(table["where"])]
    where += [name for name in dict.fromkeys(table["where"]) if name not in where]
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
    keys = [key(TEXTS.get(n) or label(n), look, mfc=fills[n]) for n, look in looks.items()]
    bands = [key("nine in ten draws", Style(DARK, ""))] if "rho_low" in table else []
    legend(fig, [*keys, *bands])
    return fig


def scaling(table: pd.DataFrame) -> Figure:
    """Against the number of devices, at the left time over that of even routes, a line per fabric,
    one for those that lie on each other; at the right seconds of one call by the bound and exactly,
    median over fabrics with a band from the least to the most.

    Columns: devices, fabric, slowdown, slowdown_low, slowdown_high, bound_s, exact_s.
    """
    needs("plots_network.scaling", table, "devices", "bound_s", "exact_s", names=["fabric"])
    fig, axes = figure(1, 2, height=3.2)
    left, right = axes[0]
    over = _over_even(table)
    over = over.assign(height=np.log(over.time))
    alike, called = joined(over, "devices", "height", by="fabric")
    together = [fabric for fabric, words in called.items() if words != label(fabric)]
    keys: list[Artist] = []
    for fabric, own in alike.groupby("fabric", sort=False):
        look = replace(style(fabric), dash="-")
        line(left, own, "devices", "time", look, ms=4)
        words = called[fabric]
        if together == [fabric]:
            words = "the others, all alike" if len(called) > 1 else "all fabrics"
        keys.append(key(words, look))
    left.legend(handles=[*keys, shaded("95 % interval")], loc="upper left", fontsize="small")
    for name in ("exact", "bound"):
        both = table.groupby("devices")[f"{name}_s"].agg(["median", "min", "max"]).reset_index()
        both = both.set_axis(["devices", name, f"{name}_low", f"{name}_high"], axis=1)
        line(right, both, "devices", name, style(name), ms=4)
    most = table.devices[table.exact_s.notna()].max()
    right_keys = [key("bound", style("bound"))]
    if most == most:  # else none was computed exactly
        right_keys.insert(0, key(f"exact, to {most:,g}", style("exact")))
    right.legend(handles=[*right_keys, shaded("all fabrics")], loc="upper left", fontsize="small")
    left.set(title="the exchange", xlabel="devices", ylabel="time / even")
    right.set(title="its simulation", xlabel="devices", ylabel="seconds to compute")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log")
        ticks(ax, table.devices)
    plain(left.yaxis, 2)
    for ax, room in ((left, 3), (right, 300)):  # for its legend
        ax.set_ylim(None, room * ax.get_ylim()[1])
    return fig
