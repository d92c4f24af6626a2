"""Figures of the profile: who does the work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from lib.paper.plots import NAMES, figure
from lib.paper.plots_style import STYLES

COLOURS = {name: look.colour for name, look in STYLES.items()}
SOURCES = COLOURS


def load_maps(loads: Mapping[str, np.ndarray]) -> Figure:
    """Load over its mean, experts sorted within each layer, one map per checkpoint; loads [layers,
    experts].
    """
    fig, axes = figure(1, len(loads), height=3.0, sharey=True)
    relative = {
        arm: np.sort(load / load.mean(1, keepdims=True), axis=1)[:, ::-1]
        for arm, load in loads.items()
    }
    top = max(part.max() for part in relative.values())
    for ax, (arm, part) in zip(axes[0], relative.items(), strict=True):
        last = ax is axes[0][-1]
        sns.heatmap(
            part,
            ax=ax,
            vmin=0,
            vmax=top,
            center=1,
            cmap="RdBu_r",
            cbar=last,
            linewidths=0.5,
            xticklabels=[1, *[""] * (part.shape[1] - 2), part.shape[1]],
            yticklabels=range(1, len(part) + 1),
            cbar_kws={"label": "load / mean load"} if last else None,
        )
        ax.set(title=NAMES.get(arm, arm), xlabel="expert, busiest first")
    axes[0][0].set_ylabel("layer")
    return fig


def layers_and_domains(table: pd.DataFrame) -> Figure:
    """Gini per layer, one panel per domain: checkpoints as points, the document-permutation null as
    a band.

    Columns: domain, layer (from 1), arm, gini, null_low, null_high.
    """
    domains = list(table.domain.unique())
    columns = 3
    rows = -(-len(domains) // columns)
    fig, axes = figure(rows, columns, height=2.4 * rows, sharex=True, sharey=True)
    for ax, domain in zip(axes.flat, domains, strict=False):
        for arm, part in table[table.domain == domain].groupby("arm"):
            ax.fill_between(
                part.layer, part.null_low, part.null_high, color=COLOURS[arm], alpha=0.25, lw=0
            )
            ax.plot(
                part.layer,
                part.gini,
                "s--" if arm == "with" else "o-",
                color=COLOURS[arm],
                label=NAMES[arm],
            )
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
    """Share of serving batches whose MaxVio exceeds x, per checkpoint, and for a perfect router
    (null [draws]).
    """
    fig, axes = figure()
    ax = axes[0][0]
    curves = {arm: part.max_violation.to_numpy() for arm, part in samples.groupby("arm")} | {
        "null": null
    }
    for arm, values in curves.items():
        ordered = np.sort(values)
        share = 1 - np.arange(len(ordered)) / len(ordered)
        style = {"with": "--", "null": ":"}.get(arm, "-")
        ax.step(
            ordered,
            share,
            style,
            color=COLOURS[arm],
            where="post",
            label=NAMES.get(arm, "perfect router"),
        )
    ax.set(
        xlabel="MaxVio = busiest expert / mean − 1",
        ylabel="share of batches above",
        yscale="log",
        xscale="log",
    )
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower left")
    return fig


def batch_size(table: pd.DataFrame) -> Figure:
    """Gini against tokens per batch per checkpoint (columns arm, tokens, gini, low, high) with the
    null's curve.
    """
    fig, axes = figure()
    ax = axes[0][0]
    for arm, part in table.groupby("arm"):
        ax.fill_between(part.tokens, part.low, part.high, color=COLOURS[arm], alpha=0.25, lw=0)
        ax.plot(
            part.tokens,
            part.gini,
            ":" if arm == "null" else "s--" if arm == "with" else "o-",
            color=COLOURS[arm],
            label=NAMES.get(arm, "perfect router"),
        )
    ax.set(
        xscale="log", xlabel="tokens per batch", ylabel="Gini of the batch's load", ylim=(0, None)
    )
    ticks = sorted(table.tokens.unique())
    ax.set_xticks(ticks, [f"{t:,}" for t in ticks], rotation=30)
    ax.xaxis.set_minor_formatter(NullFormatter())
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def structure(table: pd.DataFrame) -> Figure:
    """Share of the first expert's entropy known from each source, against the layer (columns arm,
    layer, source, share).
    """
    arms = list(table.arm.unique())
    fig, axes = figure(1, len(arms), height=3.4, sharey=True)
    for ax, arm in zip(axes[0], arms, strict=True):
        for (source, part), marker in zip(
            table[table.arm == arm].groupby("source", sort=False), "osD^v", strict=False
        ):
            ax.plot(part.layer, part.share, f"{marker}-", color=SOURCES[source], label=source, ms=5)
        ax.set(
            title=NAMES.get(arm, arm),
            xlabel="layer",
            xticks=sorted(table.layer.unique()),
            ylim=(0, None),
        )
    axes[0][0].set_ylabel("share of the entropy known")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return fig


def coactivation(maps: Mapping[str, np.ndarray]) -> Figure:
    """How often two experts serve a token over what independence expects, [experts, experts] per
    checkpoint.
    """
    fig, axes = figure(1, len(maps), height=3.2)
    for ax, (arm, ratio) in zip(axes[0], maps.items(), strict=True):
        last = ax is axes[0][-1]
        sns.heatmap(
            np.log2(np.clip(ratio, 1 / 16, 16)),
            ax=ax,
            vmin=-4,
            vmax=4,
            cmap="RdBu_r",
            cbar=last,
            square=True,
            xticklabels=False,
            yticklabels=False,
            cbar_kws={"label": "log₂(observed / expected)"} if last else None,
        )
        ax.set(title=NAMES.get(arm, arm), xlabel="expert")
        ax.set_facecolor("#BBBBBB")
    axes[0][0].set_ylabel("expert")
    return fig


def routers(table: pd.DataFrame) -> Figure:
    """Gini over its largest value per router (columns router, domain, layer, gini_share): a row per
    router, a mark per domain and layer, pooled text as bars.
    """
    names = list(dict.fromkeys(table.router))
    fig, axes = figure(height=0.55 * len(names) + 1.2)
    ax = axes[0][0]
    for row, name in enumerate(names):
        part = table[table.router == name]
        single, pooled = part[part.domain != "pooled"], part[part.domain == "pooled"]
        ax.plot(
            single.gini_share,
            np.full(len(single), row),
            "o",
            color=COLOURS["power"],
            alpha=0.5,
            label="one domain" if not row else None,
        )
        ax.plot(
            pooled.gini_share,
            np.full(len(pooled), row),
            "k|",
            ms=16,
            mew=2,
            label="all domains together" if not row else None,
        )
    ax.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="Gini / largest possible Gini",
        xlim=(0, 1),
        ylim=(len(names) - 0.5, -0.5),
    )
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
