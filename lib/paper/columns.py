"""How the columns of tables are called and written, everywhere in the book: one place for both.

A table shows `COLUMNS[name]` of its columns, an interval in the cell of its value; a published
value of that name has the same format and unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable
from numbers import Integral
from typing import Any

import pandas as pd

from lib.paper import intervals
from lib.paper.columns_known import COLUMNS, Column
from lib.paper.plots_style import label as words_of
from lib.paper.plots_style import machines

ZERO = re.compile(r"-0(\.0*)?%?")  # what rounds to nothing has no sign
NONE = "–"  # in a table, where there is no number
# columns whose content has words of its own
NAMED = (
    *("arm", "loss", "setting", "family", "between", "source", "shape", "machine", "card"),
    *("hypothesis", "part"),
)


def known(name: Hashable) -> Column:
    """What is known of a column; of one that is not listed its own name in words."""
    return COLUMNS.get(str(name)) or Column(str(name).replace("_", " "))


def show(value: Any, fmt: str) -> str:
    """A value in its format; texts as they are, but machines by their words; booleans in words,
    missing numbers as such.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return machines(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not available"
    text = format(round(value) if fmt.endswith("d") else value, fmt)
    return text.removeprefix("-") if ZERO.fullmatch(text) else text


def fmt(name: Hashable, value: object) -> str:
    """The format of a value of a column; a whole number of a column that is not listed keeps all
    its digits.
    """
    plain = known(name).fmt
    return "d" if isinstance(value, Integral) and plain == Column.fmt else plain


def cell(row: dict, name: str) -> str:
    """One cell of a table for readers: the value, and in brackets its interval unless its ends read
    alike; a checkpoint, a loss, a machine and the like by its words.
    """
    value, limits = row[name], intervals.of(row, name)
    if not isinstance(value, str) and pd.isna(value):
        return NONE
    if name in NAMED:
        return " and ".join(map(words_of, str(value).split(" and ")))
    text = show(value, fmt(name, value))
    ends = list(dict.fromkeys(show(v, known(name).fmt) for v in limits or ()))
    return f"{text} [{', '.join(ends)}]" if len(ends) > 1 else text


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table as texts: heads in words, numbers in their formats, intervals beside their values."""
    names = intervals.without([str(name) for name in table.columns])
    rows = table.to_dict("records")
    columns = [[cell(row, name) for row in rows] for name in names]
    return pd.DataFrame(dict(enumerate(columns))).set_axis([known(n).words for n in names], axis=1)


def listed(names: Iterable[str]) -> str:
    """The words of checkpoints or losses, each once: "entropy, Gini"; "none" of none."""
    return ", ".join(words_of(name) for name in dict.fromkeys(names)) or "none"


def _label(name: Hashable, level: Hashable) -> str:
    if level in NAMED:
        return words_of(name)
    return f"{name:g}" if isinstance(name, float) else str(name)


def told(data: pd.Series | pd.DataFrame) -> str:
    """The numbers of a column or table in a sentence, each after the label that its index gives, a
    checkpoint or a loss by its words: "re-route, 1.25: 0.166; drop, 1.25: 0.166".
    """
    table = data.to_frame() if isinstance(data, pd.Series) else data
    parts = []
    for label, row in zip(table.index, table.to_dict("records"), strict=True):
        names = zip(label if isinstance(label, tuple) else (label,), table.index.names, strict=True)
        words = ", ".join(_label(name, level) for name, level in names)
        numbers = ", ".join(
            cell(row, str(name))
            if len(intervals.without(list(row))) == 1
            else f"{known(name).words} {cell(row, name)}"
            for name in intervals.without([str(name) for name in row])
        )
        parts.append(f"{words}: {numbers}")
    return "; ".join(parts)
