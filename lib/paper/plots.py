"""Figures: tables in, a matplotlib Figure out.  Nothing here computes a result or saves a file.

The one shape that most figures have is `lines`: a line per group, a panel per condition, a band.
Figures that need more stand in plots_<what>.py and are made of the same parts.  Everywhere a name
looks as `style` says and is called as `label` says; a band of y is its columns <y>_low, <y>_high.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_file, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lib.paper.plots_style import DARK, DASHES, GREY, MARKS, NAMES, Style, label, style

__all__ = ["NAMES", "Style", "label", "lines", "style"]

LEAST_BAND = 0.02  # of the height of a panel: a narrower band cannot be told from its line

rc_file(Path(__file__).with_name("paper.mplstyle"))


def figure(
    rows: int = 1, columns: int = 1, width: float = 6.2, height: float = 3.2, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` × `columns` axes, width and height of the whole in inches."""
    fig = Figure(figsize=(width, height))  # not pyplot's, which would keep and show it
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def in_order(names: Iterable[Hashable]) -> list:
    """Each name once, in its order; the model without a balance loss first, its twin after it."""
    return sorted(dict.fromkeys(names), key=lambda name: {"without": 0, "with": 1}.get(name, 2))


def conditions(table: pd.DataFrame, column: str | None) -> list[tuple[str, pd.DataFrame]]:
    """The title and the rows of each panel, numbers in their order, names in that of the table; of
    an empty one a single panel without a title.
    """
    if column is None or not len(table):
        return [("", table)]
    names = in_order(table[column])
    names = sorted(names) if pd.api.types.is_numeric_dtype(table[column]) else names
    titles = [label(name) if isinstance(name, str) else f"{column} {name:g}" for name in names]
    parts = [table[table[column] == name] for name in names]
    return list(zip(titles, parts, strict=True))


def panels(
    titles: Sequence[str], xlabel: str, ylabel: str, height=2.1, across: int = 3, **options
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel per title, at most `across` a row, `height` inches each; labels stand
    at the left, and below the lowest panel of each column, also where the last row is not full.
    """
    count = len(titles)
    columns = 2 if count == 4 else min(across, count)
    rows = -(-count // columns)
    fig, grid = figure(rows, columns, height=height * rows + 0.9, **options)
    axes, rest = list(grid.flat[:count]), grid.flat[count:]
    for ax in rest:
        ax.remove()
    for place, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.set_title(title)
        if place % columns == 0:
            ax.set_ylabel(ylabel)
        if place + columns >= count:
            ax.set_xlabel(xlabel)
            ax.tick_params(labelbottom=True)
    return fig, axes


def needs(where: str, table: pd.DataFrame, *columns: str, names: Sequence[str] = ()) -> None:
    """Refuse, in one line, a table that lacks one of these columns, and one that lacks a name in a
    row of `names`, since such a row would be drawn nowhere.
    """
    if missing := [repr(name) for name in (*names, *columns) if name not in table]:
        known = ", ".join(str(name) for name in table)
        raise ValueError(f"{where}: lacks {', '.join(missing)}: must be among its columns: {known}")
    for name in names:
        if count := int(table[name].isna().sum()):
            raise ValueError(f"{where}: {name!r}: is missing in {count} rows: must be in each")


def band(ax: Axes, part: pd.DataFrame, x: str, y: str, colour: str) -> None:
    """The area between the columns <y>_low and <y>_high."""
    ax.fill_between(part[x], part[f"{y}_low"], part[f"{y}_high"], color=colour, alpha=0.2, lw=0)


def line(ax: Axes, part: pd.DataFrame, x: str, y: str, look: Style, **options) -> None:
    """One line in the order of x, with its band where the table has one; of many points a few are
    marked.
    """
    part = part.sort_values(x)
    if f"{y}_low" in part:
        band(ax, part, x, y, look.colour)
    drawn = dict(color=look.colour, marker=look.mark, ls=look.dash)
    every = max(1, len(part) // 5) if len(part) > 10 else 1
    ax.plot(part[x], part[y], **(drawn | dict(markevery=every) | options))


def dots(ax: Axes, table: pd.DataFrame, x: str, by: str) -> None:
    """A mark per row of a table, the first on top, with its interval where it has one."""
    needs("plots.dots", table, x, f"{x}_low", f"{x}_high", names=[by])
    for place, row in enumerate(table.to_dict("records")):
        look, low, high = style(row[by]), row[f"{x}_low"], row[f"{x}_high"]
        ax.plot([low, high], [place, place], "|-", color=look.colour, lw=1.3, ms=7)
        ax.plot(row[x], place, look.mark, color=look.colour, ms=6)
    rows(ax, table[by])


def rows(ax: Axes, names: Sequence[Hashable] | pd.Series) -> None:
    """The words of names down the y axis."""
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)


def absent(ax: Axes) -> None:
    """Say in an empty panel that its data are missing."""
    ax.text(0.5, 0.5, "not available", transform=ax.transAxes, ha="center", color=GREY)


def key(words: str, look: Style, **options) -> Line2D:
    """An entry of a legend."""
    drawn = dict(color=look.colour, marker=look.mark, ls=look.dash) | options
    return Line2D([], [], label=words, **drawn)


def interval() -> Line2D:
    """An entry of a legend: what a line with ends shows."""
    return key("95 % interval", Style(DARK, "|", "-"), ms=7)


def shaded(words: str) -> Patch:
    """An entry of a legend: what a band shows."""
    return Patch(color=DARK, alpha=0.25, lw=0, label=words)


def legend(fig: Figure, keys: Sequence, place: Any = "outside upper center") -> None:
    """One legend for all panels, outside of them, in as many columns as there is room for, read row
    by row.
    """
    if not keys:
        return
    for columns in range(len(keys), 0, -1):
        parts = [keys[start::columns] for start in range(columns)]  # which matplotlib fills first
        widths = [max(0.62 + _inches(str(entry.get_label())) for entry in part) for part in parts]
        if sum(widths) <= fig.get_figwidth():
            break
    fig.legend(handles=[entry for part in parts for entry in part], loc=place, ncols=columns)


def plain(axis: Axis, base: float = 10) -> None:
    """Ticks of a logarithmic axis of few decades, as plain numbers."""
    axis.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def ticks(ax: Axes, values: Sequence[float] | pd.Series) -> None:
    """Ticks of x at the data, at as many of them as a panel of this width has room for."""
    at = np.unique(pd.Series(values, dtype=float).dropna())
    if not len(at):
        return
    places = np.log(at) if ax.get_xscale() == "log" else at
    place, fig = ax.get_subplotspec(), ax.get_figure(root=True)
    columns = place.get_gridspec().ncols if place else 1
    inches = (fig.get_figwidth() if fig else 6.2) / columns - 0.7
    texts = [f"{value:,g}" if value == round(value) else f"{value:.3g}" for value in at]
    widths = np.array([_inches(text) for text in texts])
    for step in range(1, len(at) + 1):
        gaps = np.diff(places[::step]) / max(places[-1] - places[0], 1e-9) * inches
        if (gaps > (widths[::step][1:] + widths[::step][:-1]) / 2 + 0.07).all():
            break
    ax.set_xticks(at[::step], texts[::step])
    ax.xaxis.set_minor_formatter(NullFormatter())


def _inches(text: str) -> float:
    """How wide a text of legends and ticks is."""
    font = FontProperties(size=rcParams["legend.fontsize"])
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str,
    xlabel: str,
    ylabel: str,
    panel: str | None = None,
    dash: str | None = None,
    log: str = "",
    reference: float | None = None,
    ylim: tuple[float | None, float | None] | None = None,
    sharey: bool = True,
    height: float | None = None,
    shade: str = "",
    words: Mapping[str, str] | None = None,
) -> Figure:
    """A line of y against x per `by` (colour and mark; numbers from dark to light) and per `dash`
    (kind of line), a panel per `panel`, a band where there are columns <y>_low and <y>_high.

    log: which axes are logarithmic, "x", "y" or "xy".  reference: where a level line stands.
    height: inches of a panel.  shade: what the bands show.  words: what names of `by` are called
    otherwise than elsewhere.  Rows of NaN are data that are absent: a panel of nothing else says
    so.  Refused: a column that is missing, also one end of a band; a row that belongs to no line;
    two rows at one x of a line, which would go up and down there; what no log axis can show.
    """
    groups = [name for name in (panel, by, dash) if name is not None]
    _refuse(table, x, y, groups, log)
    titles, parts = zip(*conditions(table, panel), strict=True)
    size = height or max(2.1 if len(titles) > 1 else 2.4, 0.095 * len(ylabel))
    fig, axes = panels(titles, xlabel, ylabel, size, sharex=True, sharey=sharey)
    looks, strokes = _looks(table[by]), _strokes(table[dash]) if dash else {}
    thin = dict(lw=1.3, ms=4) if len(looks) * max(1, len(strokes)) > 6 else {}
    for ax, own in zip(axes, parts, strict=True):
        for found, part in own.groupby(groups[-2:] if dash else [by], sort=False):
            look = looks[found[0]]
            look = replace(look, dash=strokes[found[1]]) if dash else look
            line(ax, part, x, y, look, **thin)
        _dress(ax, own, x, y, log, reference)
    if ylim:
        for ax in axes:
            ax.set_ylim(*ylim)
    keys: list[Artist] = [
        key((words or {}).get(str(name)) or _words(name, by), look) for name, look in looks.items()
    ]
    keys += [key(_words(name, dash), Style(DARK, "", ls)) for name, ls in strokes.items()]
    legend(fig, [*keys, *([shaded(shade)] if shade and _seen(axes, table, y, log) else [])])
    return fig


def _seen(axes: Sequence[Axes], table: pd.DataFrame, y: str, log: str) -> bool:
    """Whether a band is anywhere wider than a line."""
    if f"{y}_low" not in table:
        return False
    scale = np.log if "y" in log else np.asarray
    low, high = (scale(table[f"{y}_{end}"].to_numpy(float)) for end in ("low", "high"))
    heights = [np.ptp(scale(np.array(ax.get_ylim()))) for ax in axes]
    return bool(np.nanmax(high - low, initial=0) > LEAST_BAND * min(heights))


def _refuse(table: pd.DataFrame, x: str, y: str, groups: list[str], log: str) -> None:
    """What `lines` refuses of a table."""
    ends = [f"{y}_low", f"{y}_high"]
    needs("plots.lines", table, x, y, *(ends if set(ends) & set(table) else []), names=groups)
    twice = table[table.duplicated([*groups, x])]
    if len(twice):
        row = ", ".join(f"{name} = {twice.iloc[0][name]}" for name in [*groups, x])
        raise ValueError(f"plots.lines: {row}: has several rows: must be one per line and {x}")
    for axis, name in (("x", x), ("y", y)):
        if axis in log and (table[name] <= 0).any():
            least = table[name].min()
            raise ValueError(f"plots.lines: {name} = {least:g}: must be above 0 on a log axis")


def _looks(names: pd.Series) -> dict[Hashable, Style]:
    """The style of each name of a column; of numbers a scale from dark, the least, to light."""
    if not pd.api.types.is_numeric_dtype(names):
        return {name: style(name) for name in in_order(names)}
    order = sorted(set(names))
    scale = [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0.2, 0.85, len(order)))]
    marks = (MARKS[i % len(MARKS)] for i in range(len(order)))  # as neighbours look alike
    return {n: Style(c, mark) for n, c, mark in zip(order, scale, marks, strict=True)}


def _strokes(names: pd.Series) -> dict[Hashable, object]:
    """The kind of line of each name of a column; of numbers in their order."""
    if not pd.api.types.is_numeric_dtype(names):
        return {name: style(name).dash for name in dict.fromkeys(names)}
    return {name: DASHES[i % len(DASHES)] for i, name in enumerate(sorted(set(names)))}


def _words(name: Hashable, column: str | None) -> str:
    """A name in a legend; a number with what it counts, a layer by its number."""
    if isinstance(name, str):
        return label(name)
    return f"layer {name:g}" if column == "layer" else f"{name:,g} {column}"


def _dress(ax: Axes, own: pd.DataFrame, x: str, y: str, log: str, reference: float | None) -> None:
    """Scales, ticks at the data and the level line of one panel."""
    ax.set(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
    if reference is not None:
        ax.axhline(reference, color=GREY, lw=1)
    if not own[y].notna().any():
        return absent(ax)
    if pd.api.types.is_numeric_dtype(own[x]) and own[x].nunique() <= 12:
        ticks(ax, own[x])
    if "y" in log and own[y].max() < 1000 * own[y].min():
        plain(ax.yaxis, 2 if own[y].max() < 100 * own[y].min() else 10)
        if own[y].max() < 3 * own[y].min():  # too narrow for powers of two
            ax.yaxis.set_major_locator(MaxNLocator(4))
