"""Tables as `plots.lines` draws them: columns below each other, lines that coincide as one."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lib.paper.plots import needs
from lib.paper.plots_style import label

ALIKE = 0.02  # of the height of a figure: lines no further apart are drawn as one


def stacked(table: pd.DataFrame, y: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """Columns of a table below each other, for `lines`: as `y`, each with its interval, and `of`,
    what each is called.
    """
    ends = ("", "_low", "_high")
    needs("plots.stacked", table, *columns)
    rest = table.drop(columns=[f"{c}{e}" for c in columns for e in ends if f"{c}{e}" in table])
    return pd.concat(
        [
            rest.assign(
                of=words, **{f"{y}{e}": table[f"{c}{e}"] for e in ends if f"{c}{e}" in table}
            )
            for c, words in columns.items()
        ],
        ignore_index=True,
    )


def joined(
    table: pd.DataFrame, x: str, y: str, *, by: str, panel: str | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table without the lines that lie on another, nowhere further from it than `ALIKE` of the
    greatest |y|, and what the line that stands for all of them is called: "drop, re-route".  The
    last of them stands; a line that lacks a point of another is not like it.
    """
    where = [panel, x] if panel else [x]
    needs("plots.joined", table, y, names=[by, *where])
    heights = table.pivot(index=where, columns=by, values=y)
    groups: list[list[str]] = []
    for name in dict.fromkeys(table[by]):
        for group in groups:
            apart = (heights[name] - heights[group[-1]]).abs().max(skipna=False)
            if apart <= ALIKE * heights.abs().max(axis=None):
                group.append(name)
                break
        else:
            groups.append([name])
    called = {group[-1]: ", ".join(map(label, group)) for group in groups}
    return table[table[by].isin(list(called))], called
