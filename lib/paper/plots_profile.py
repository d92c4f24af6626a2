"""Figures of the profile: who does the work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from lib.paper.plots import (
    absent,
    band,
    conditions,
    figure,
    key,
    legend,
    lines,
    needs,
    plain,
    rows,
)
from lib.paper.plots_style import STYLES, Style, label, style
from lib.paper.plots_tables import stacked


def load_maps(loads: Mapping[str, np.ndarray]) -> Figure:
    """Load over its mean, experts sorted within each layer, one map per checkpoint; loads [layers,
    experts].
    """
    relative = {
        arm: np.sort(load / load.mean(1, keepdims=True), axis=1)[:, ::-1]
        for arm, load in loads.items()
    }
    fig, axes = figure(1, len(loads), height=3.0, sharey=True)
    white_at_mean = TwoSlopeNorm(1, 0, max(2, *(part.max() for part in relative.values())))
    for ax, (arm, part) in zip(axes[0], relative.items(), strict=True):
        layers, experts = part.shape
        _map(ax, part, norm=white_at_mean)
        ax.set(title=label(arm), xlabel="expert, busiest first", xticks=[1, experts])
        ax.set_yticks(range(1, layers + 1, 1 + layers // 12))
    axes[0][0].set_ylabel("layer")
    fig.colorbar(axes[0][0].collections[0], ax=axes, label="load / mean load")
    return fig


def coactivation(maps: Mapping[str, np.ndarray]) -> Figure:
    """How often two experts serve a token over what independence expects, [experts, experts] per
    checkpoint, up to a factor of 16; grey: no expectation.
    """
    fig, axes = figure(1, len(maps), height=3.2)
    for ax, (arm, ratio) in zip(axes[0], maps.items(), strict=True):
        _map(ax, np.log2(np.clip(ratio, 1 / 16, 16)), vmin=-4, vmax=4)
        if np.isnan(ratio).all():
            absent(ax)
        ax.set(title=label(arm), xlabel="expert", aspect="equal", facecolor="#BBBBBB")
        ax.set(xticks=[], yticks=[])
    axes[0][0].set_ylabel("expert")
    bar = fig.colorbar(
        axes[0][0].collections[0], ax=axes, label="chosen together / by chance", extend="both"
    )
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["1/16", "1/4", "1", "4", "16"])
    return fig


def _map(ax: Axes, values: np.ndarray, **options) -> None:
    """A heat map with cells numbered from 1, the first row on top: red is much, blue is little."""
    rows, columns = values.shape
    edges = np.arange(columns + 1) + 0.5, np.arange(rows + 1) + 0.5
    ax.pcolormesh(*edges, values, cmap="RdBu_r", edgecolors="white", lw=0.3, **options)
    ax.set_ylim(rows + 0.5, 0.5)
    ax.grid(False)


def layers_and_domains(table: pd.DataFrame) -> Figure:
    """Gini per layer, a panel per domain, a line per checkpoint; the band is its
    cluster-permutation null.

    Columns: domain, layer (from 1), arm, gini, cluster_null_low, cluster_null_high.
    """
    ends = "cluster_null_low", "cluster_null_high"
    needs("plots_profile.layers_and_domains", table, *ends)
    fig = lines(
        table,
        "layer",
        "gini",
        by="arm",
        panel="domain",
        xlabel="layer",
        ylabel="Gini",
        ylim=(0, 1),
        shade="experts' labels permuted by cluster",
    )
    for ax, (_, own) in zip(fig.axes, conditions(table, "domain"), strict=True):
        for arm, part in own.groupby("arm"):
            band(ax, part.sort_values("layer"), "layer", "cluster_null", style(arm).colour)
    return fig


def batch_tail(samples: pd.DataFrame) -> Figure:
    """Share of serving batches whose MaxVio exceeds x, a line per arm (columns arm,
    max_violation); "null" is a perfect router.
    """
    needs("plots_profile.batch_tail", samples, "max_violation", names=["arm"])
    fig, axes = figure()
    ax, keys = axes[0][0], []
    for arm, part in samples.groupby("arm", sort=False):
        look = style(arm)
        if len(known := part.max_violation.dropna()):
            ax.ecdf(known, complementary=True, color=look.colour, ls=look.dash)
        keys.append(key(label(arm), Style(look.colour, "", look.dash)))
    ax.set(xlabel="busiest expert / mean − 1 (MaxVio)", ylabel="share of batches with more")
    if (samples.max_violation > 0).any():  # else all are even, and there is nothing to stretch
        ax.set(xscale="log", yscale="log")
        plain(ax.xaxis)
    legend(fig, keys)
    return fig


def batch_size(table: pd.DataFrame) -> Figure:
    """Gini against tokens per batch, a line per arm with its band (columns arm, tokens, gini,
    gini_low, gini_high); "null" is a perfect router.
    """
    return lines(
        table,
        "tokens",
        "gini",
        by="arm",
        log="x",
        xlabel="tokens per batch",
        ylabel="Gini of the batch's load",
        ylim=(0, None),
        shade="nine in ten batches",
    )


def sampling(table: pd.DataFrame) -> Figure:
    """What a part of the documents says of a router against their number, a line per arm (columns
    arm, documents, and gini, dead and hot, each with its band), a panel per quantity.
    """
    words = dict(gini="Gini", dead="dead experts", hot="hot experts found")
    return lines(
        stacked(table, "value", words),
        "documents",
        "value",
        by="arm",
        panel="of",
        log="x",
        xlabel="documents",
        ylabel="as the sample tells",
        ylim=(0, None),
        sharey=False,
        shade="nine in ten samples",
    )


def structure(table: pd.DataFrame) -> Figure:
    """Share of the first expert's entropy known from each source, against the layer (columns arm,
    layer, source, share).
    """
    return lines(
        table,
        "layer",
        "share",
        by="source",
        panel="arm",
        xlabel="layer",
        ylabel="share of the entropy known",
        ylim=(0, None),
    )


def routers(table: pd.DataFrame) -> Figure:
    """Gini over its largest value per router (columns router, domain, gini_share): a row per
    router, a mark per domain and layer, of domain "pooled", all of them together, as bars.
    """
    needs("plots_profile.routers", table, "gini_share", names=["router", "domain"])
    names = list(dict.fromkeys(table.router))
    fig, axes = figure(height=0.55 * len(names) + 1.2)
    ax, dot, bar = axes[0][0], STYLES["power"], Style("#000000", "|", "")
    place = table.router.map(names.index)
    pooled = table.domain == "pooled"
    ax.plot(table.gini_share[~pooled], place[~pooled], "o", color=dot.colour, alpha=0.5)
    ax.plot(table.gini_share[pooled], place[pooled], "|", color=bar.colour, ms=16, mew=2)
    rows(ax, names)
    ax.set(xlabel="Gini / largest possible Gini", xlim=(0, 1))
    legend(fig, [key("one domain", Style(dot.colour, "o", "")), key("all domains together", bar)])
    return fig
