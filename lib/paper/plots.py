"""Figures: arrays and tables in, a matplotlib Figure out.  Nothing here computes a result or saves
a file.

One colour per checkpoint, per null and per strategy throughout the book (Okabe-Ito, safe for colour
blindness).
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
    "without": "#D55E00",
    "with": "#0072B2",
    "null": "#7F7F7F",
    "predecessor": "#000000",
    "none": "#D55E00",
    "switch": "#0072B2",
    "gini": "#009E73",
    "entropy": "#CC79A7",
    "cv2": "#E69F00",
    "max": "#56B4E9",
    "stock": "#882255",
    "z": "#8C564B",
    "bias": "#000000",
    "start": "#7F7F7F",
    "power": "#009E73",
    "sorted": "#CC79A7",
    "lognormal": "#E69F00",
    "one_hot": "#56B4E9",
}
STRATEGIES = {
    "native": "#000000",
    "random": "#7F7F7F",
    "round_robin": "#B0A000",
    "hashed": "#A6761D",
    "drop": "#D55E00",
    "drop_position": "#8B1A1A",
    "expanded_drop": "#E69F00",
    "reroute": "#0072B2",
    "optimal": "#56B4E9",
    "sinkhorn": "#009E73",
    "biased": "#CC79A7",
    "expert_choice": "#6A3D9A",
    "least_loaded": "#33A02C",
    "threshold": "#E7298A",
    "activate_fewer": "#1B4F72",
}
STRATEGY_MARKS = dict(zip(STRATEGIES, "Xx+1osPDv^*<>hd", strict=True))
SOURCES = {
    "token": "#D55E00",
    "position": "#7F7F7F",
    "domain": "#009E73",
    "second": "#56B4E9",
    "before": "#0072B2",
}
NAMES = {
    "model": "the model",
    "without": "without balance loss",
    "with": "with balance loss",
    "one_hot": "one hot expert",
    "sorted": "power law, hot experts side by side",
    "power": "power law",
    "lognormal": "log-normal",
    "predecessor": "the predecessor",
    "none": "no loss",
    "switch": "Switch, per layer",
    "gini": "Gini",
    "cv2": "importance CV²",
    "entropy": "entropy",
    "max": "maximum",
    "stock": "stock (transformers)",
    "z": "z-loss",
    "bias": "loss-free bias",
    "start": "before training",
}


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


def load_explorer(loads: Mapping[str, np.ndarray]) -> dict:
    """The maps of `loads` ([layers, experts] each, by name) as an interactive figure with a choice;
    experts in own order.
    """
    relative = {
        name: np.round(load / load.mean(1, keepdims=True), 3) for name, load in loads.items()
    }
    top = max(2.0, *(float(part.max()) for part in relative.values()))
    choices = {name: {"z": [part.tolist()]} for name, part in relative.items()}
    scale = [
        [0, "#2166AC"],
        [1 / top, "#F7F7F7"],
        [1, "#B2182B"],
    ]  # white is the mean, in every map of the menu
    trace = dict(
        type="heatmap",
        z=next(iter(relative.values())).tolist(),
        zmin=0,
        zmax=top,
        colorscale=scale,
        x0=1,
        y0=1,
        colorbar=dict(title=dict(text="load / mean")),
        hovertemplate="layer %{y}, expert %{x}: %{z:.2f} × the mean<extra></extra>",
    )
    axis = dict(dtick=1, fixedrange=True)
    layout = dict(
        xaxis=dict(title=dict(text="expert"), **axis),
        yaxis=dict(title=dict(text="layer"), autorange="reversed", **axis),
        margin=dict(l=50, r=10, t=15, b=45),
    )
    return dict(data=[trace], layout=layout, choices=choices)


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


def trade_off(table: pd.DataFrame) -> Figure:
    """Cost in nats per token against the p95 of busiest over nominal (columns arm, family, causal,
    p95, delta, low, high): a mark per setting, settings of one strategy joined; hollow marks are
    not causal in a stream.
    """
    arms = list(table.arm.unique())
    fig, axes = figure(len(arms), 1, height=3.6 * len(arms) + 0.9, sharex=True)
    for ax, arm in zip(axes[:, 0], arms, strict=True):
        for family, part in table[table.arm == arm].groupby("family", sort=False):
            part, colour = part.sort_values("p95"), STRATEGIES[family]
            ax.errorbar(
                part.p95,
                part.delta,
                [part.delta - part.low, part.high - part.delta],
                fmt="none",
                ecolor=colour,
                lw=1,
            )
            ax.plot(part.p95, part.delta, "-", color=colour, lw=1)
            ax.plot(
                part.p95,
                part.delta,
                STRATEGY_MARKS[family],
                ls="none",
                color=colour,
                ms=6,
                mew=1.4,
                label=family.replace("_", " "),
                mfc=colour if part.causal.all() else "white",
            )
        ax.set_yscale("symlog", linthresh=0.02)
        ax.axhline(0, color=COLOURS["null"], lw=1)
        ax.set(title=NAMES.get(arm, arm), ylabel="added nats per token", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(ScalarFormatter())
    axes[-1][0].set_xlabel("busiest expert / nominal load, P95 of groups")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def sweep(table: pd.DataFrame, x: str, label: str, log: bool = False) -> Figure:
    """Cost in nats per token with its interval against a column `x` (columns arm, family, delta,
    low, high).
    """
    fig, axes = figure()
    ax = axes[0][0]
    for (arm, family), part in table.groupby(["arm", "family"], sort=False):
        colour, style = STRATEGIES[family], "--" if arm == "with" else "-"
        part = part.sort_values(x)
        ax.fill_between(part[x], part.low, part.high, color=colour, alpha=0.2, lw=0)
        ax.plot(
            part[x],
            part.delta,
            STRATEGY_MARKS[family] + style,
            color=colour,
            label=f"{family.replace('_', ' ')}, {NAMES.get(arm, arm)}",
        )
    ticks = sorted(table[x].unique())
    ax.set(xscale="log" if log else "linear", xlabel=label, ylabel="added nats per token")
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axhline(0, color=COLOURS["null"], lw=1)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
