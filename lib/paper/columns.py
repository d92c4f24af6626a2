"""How the columns of tables are called and written, everywhere in the book: one place for both.

A table shows `COLUMNS[name]` of its columns.  An interval of a column stands in two more, its name
with `_low` and `_high`, and is shown in the same cell.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import pandas as pd

NONE = "–"  # in a table, where there is no number


@dataclass(frozen=True)
class Column:
    """Words for the head of a column, the format of its numbers (Python's), and their unit."""

    words: str
    fmt: str = ".3g"
    unit: str = ""


COLUMNS = {
    "able": Column("can show the table"),
    "accuracy": Column("next-token accuracy", ".1%"),
    "arm": Column("checkpoint"),
    "beta": Column("elasticity β", ".2f"),
    "bound_ms": Column("bound (ms)", ".0f", "ms"),
    "bytes_leaving": Column("bytes that leave the node per token", ",.0f"),
    "churn": Column("choices changed", ".0%"),
    "delta": Column("added nats per token", ".3f", "nats/token"),
    "dropped": Column("slots left empty", ".1%"),
    "even_us": Column("even routes (µs)", ".0f"),
    "exact_ms": Column("exact (ms)", ".0f", "ms"),
    "gini": Column("Gini", ".3f"),
    "inside": Column("levels that single runs can show", "d"),
    "max_violation": Column("MaxVio", ".2f"),
    "mean_us": Column("mean (µs)", ".0f"),
    "over_even": Column("time over even routes", ".2f"),
    "p50_over_mean": Column("P50 / mean", ".3f"),
    "p95": Column("busiest over nominal, P95", ".2f"),
    "p95_over_mean": Column("P95 / mean", ".3f"),
    "p99_over_mean": Column("P99 / mean", ".3f"),
    "predecessor": Column("the predecessor's slowdown", "+.1%"),
    "rho": Column("ρ", ".2f"),
    "rho_other": Column("ρ, another domain", ".2f"),
    "rho_same": Column("ρ, same domain", ".2f"),
    "saved": Column("time saved", ".0%"),
    "slowdown": Column("slowdown", "+.1%"),
    "slowdown_other": Column("slowdown, another domain", "+.1%"),
    "slowdown_p95": Column("its P95", "+.1%"),
    "slowdown_same": Column("slowdown, same domain", "+.1%"),
    "times_even": Column("time over even routes", ".1f"),
    "us": Column("time (µs)", ".0f"),
    "variant": Column("sent"),
    "whole_step": Column("of a whole step", "+.1%"),
    "wire_share": Column("share of the wire", ".0%"),
}


def known(name: Hashable) -> Column:
    """What is known of a column; of one that is not listed its own name in words."""
    return COLUMNS.get(str(name)) or Column(str(name).replace("_", " "))


def show(value: object, fmt: str) -> str:
    """A value in its format; texts as they are, booleans in words, missing numbers as such."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not available"
    return format(value, fmt)


def interval(row: dict, name: str) -> tuple[float, float] | None:
    """The interval of a column in a row of a table; None where it has none."""
    low, high = (row.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    return None if pd.isna(low) or pd.isna(high) else (float(low), float(high))


def own(names: list[str]) -> list[str]:
    """The names of columns without those that hold the interval of another one."""
    ends = {f"{name}_{end}" for name in names for end in ("low", "high")}
    return [name for name in names if name not in ends]


def cell(row: dict, name: str) -> str:
    """One cell of a table for readers: the value, and in brackets its interval."""
    value, fmt = row[name], known(name).fmt
    if not isinstance(value, str) and pd.isna(value):
        return NONE
    limits = interval(row, name)
    text = show(value, "d" if isinstance(value, int) and fmt == ".3g" else fmt)
    return text if limits is None else f"{text} [{', '.join(show(v, fmt) for v in limits)}]"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table as texts: heads in words, numbers in their formats, intervals beside their values."""
    names = own([str(name) for name in table.columns])
    rows = table.to_dict("records")
    columns = [[cell(row, name) for row in rows] for name in names]
    return pd.DataFrame(dict(enumerate(columns))).set_axis([known(n).words for n in names], axis=1)


def told(data: pd.Series | pd.DataFrame) -> str:
    """The numbers of a column or table in a sentence, each after the label that its index gives:
    "re-route, 1.25: 0.166; drop, 1.25: 0.166".
    """
    table = data.to_frame() if isinstance(data, pd.Series) else data
    parts = []
    for label, row in zip(table.index, table.to_dict("records"), strict=True):
        names = label if isinstance(label, tuple) else (label,)
        words = ", ".join(f"{name:g}" if isinstance(name, float) else str(name) for name in names)
        numbers = ", ".join(
            cell(row, str(name))
            if len(own(list(row))) == 1
            else f"{known(name).words} {cell(row, name)}"
            for name in own([str(name) for name in row])
        )
        parts.append(f"{words}: {numbers}")
    return "; ".join(parts)
