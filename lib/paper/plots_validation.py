"""Figures of validation: how far predictions lie from what was measured and published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from lib.paper.plots import (
    absent,
    conditions,
    figure,
    key,
    legend,
    lines,
    needs,
    panels,
    plain,
    ticks,
)
from lib.paper.plots_style import BETA, DARK, GREY, Style, label, style
from lib.paper.plots_tables import stacked


def parity(table: pd.DataFrame) -> Figure:
    """Predicted against measured times (columns experiment, part, measured_us, predicted_us), a
    panel per experiment; crosses were fitted, circles were not, the line is where both are equal.
    """
    needs(
        "plots_validation.parity",
        table,
        "measured_us",
        "predicted_us",
        names=["experiment", "part"],
    )
    titles, parts = zip(*conditions(table, "experiment"), strict=True)
    fig, axes = panels(titles, "measured (µs)", "predicted (µs)", 2.4)
    for ax, own in zip(axes, parts, strict=True):
        both = own[["measured_us", "predicted_us"]].stack()
        if not len(both):
            absent(ax)
            continue
        ends = (both.min() / 1.5, both.max() * 1.5)
        ax.plot(ends, ends, color=GREY, lw=1)
        for name, known in own.groupby("part"):
            look, times = style(name), (known.measured_us, known.predicted_us)
            ax.plot(*times, look.mark, ms=4, color=look.colour, mfc="none", alpha=0.8)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        _half_within(ax, own)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_formatter(NullFormatter())
            if ends[1] < 100 * ends[0]:
                plain(axis)
    looks = {name: replace(style(name), dash="") for name in sorted(set(table.part))}
    legend(fig, [key(label(name), look, mfc="none") for name, look in looks.items()])
    return fig


def _half_within(ax: Axes, own: pd.DataFrame) -> None:
    """The median error of what was not fitted, in the corner of its panel."""
    rest = own[own.part != "fit"]
    error = (rest.predicted_us / rest.measured_us - 1).abs().median()
    if error == error:
        at: dict[str, Any] = dict(transform=ax.transAxes, va="top", fontsize="x-small", color=DARK)
        ax.text(0.04, 0.97, f"half within {100 * error:.2g} %", **at)


def error_shares(table: pd.DataFrame) -> Figure:
    """Share of configurations with at most an error (columns experiment, error), a line per
    experiment; a dot, and its number, where nineteen in twenty are within.
    """
    needs("plots_validation.error_shares", table, "error", names=["experiment"])
    fig, axes = figure(height=3.6)
    ax, keys = axes[0][0], []
    for name, own in table.groupby("experiment", sort=False):
        look, words = Style(style(name).colour, "", style(name).dash), label(name)
        if len(known := 100 * own.error.dropna()):
            ax.ecdf(known, color=look.colour, ls=look.dash)
            within = float(known.quantile(0.95))
            ax.plot(within, 0.95, "o", color=look.colour, ms=6, zorder=3)
            words = f"{words}, 95 % within {within:.2g} %"
        keys.append(key(words, look))
    ax.axhline(0.95, color=GREY, lw=1, ls=":")
    ax.set(xlabel="|predicted / measured − 1| (%)", ylabel="share of configurations")
    ax.set(xscale="symlog", ylim=(0, 1.02), xlim=(0, None))
    ax.xaxis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20, 50, 100]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend(fig, keys)
    return fig


def elasticities(table: pd.DataFrame) -> Figure:
    """β against tokens of one device with its interval (columns shape, tokens, beta, beta_low,
    beta_high, beta_arithmetic), a panel per shape; dotted: the part of β that is arithmetic.
    """
    return lines(
        stacked(table, "β", {"beta": "β", "beta_arithmetic": "of it arithmetic"}),
        "tokens",
        "β",
        by="of",
        panel="shape",
        log="x",
        xlabel="tokens per device",
        ylabel=BETA,
        reference=0,
        shade="95 % interval",
    )


def published_times(table: pd.DataFrame) -> Figure:
    """Published (crosses) and predicted times against the number of devices (columns phase,
    devices, time_us, predicted_us, part), a panel per phase; filled circles were fitted, hollow
    ones were not.
    """
    numbers = ("devices", "time_us", "predicted_us")
    needs("plots_validation.published_times", table, *numbers, names=["phase", "part"])
    titles, parts = zip(*conditions(table, "phase"), strict=True)
    fig, axes = panels(titles, "devices", "time (µs)")
    colour = style("model").colour
    for ax, own in zip(axes, parts, strict=True):
        ax.plot(own.devices, own.predicted_us, "-", color=colour, lw=1)
        for fitted, known in own.groupby(own.part == "fit"):
            fill = colour if fitted else "none"
            ax.plot(known.devices, known.predicted_us, "o", color=colour, mfc=fill)
        ax.plot(own.devices, own.time_us, "kx")
        ax.set(xscale="log", ylim=(0, None))
        ticks(ax, own.devices)
        if not own.predicted_us.notna().any():
            absent(ax)
    dot = Style(colour, "o", "")
    keys = [key("predicted, fit", replace(dot, dash="-"))]
    keys.append(key("predicted, held out", dot, mfc="none"))
    legend(fig, [*keys, key("published", Style("#000000", "x", ""))])
    return fig
