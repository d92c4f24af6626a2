"""The interval of a column of a table stands in two more: its name with `_low` and `_high`."""

from __future__ import annotations

import math

import pandas as pd


def of(row: dict, name: str) -> tuple[float, float] | None:
    """The interval of a column in a row of a table; None where it has none."""
    low, high = (row.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
    return None if pd.isna(low) or pd.isna(high) else (float(low), float(high))


def without(names: list[str]) -> list[str]:
    """The names of columns without those that hold the interval of another one."""
    ends = {f"{name}_{end}" for name in names for end in ("low", "high")}
    return [name for name in names if name not in ends]
