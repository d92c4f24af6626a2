"""Measured tables are read whole or refused in one line: they may come from another machine, or
have been edited.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pandas as pd

TIMES = ("p10_us", "p50_us", "p90_us")  # of every experiment; finite, and above zero
COLUMNS = {
    "exchange": ("size_bytes", "wire_bytes", "own_bytes", "messages", "rank", "phase", *TIMES),
    "layer": ("shape", "tokens", "routes", "wire_bytes", "own_bytes", "rank", "phase", *TIMES),
    "compute": ("shape", "rows", "active", "rank", "phase", *TIMES),
    "native": ("shape", "tokens", "level", "rho", "engine", "launch", "rank", "phase", *TIMES),
}


def table(path: Path, experiment: str) -> pd.DataFrame:
    """A table of an experiment.

    Refused: a file that is no whole CSV as xz, lacks a row or one of `COLUMNS`, and a time that
    is no finite number above zero.
    """
    try:
        found = pd.read_csv(path, dtype={"skew": str, "routes": str})
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise ValueError(f"{_where(path)}: must be a CSV table packed as xz: {error}") from None
    if lacking := [name for name in COLUMNS[experiment] if name not in found]:
        raise ValueError(f"{_where(path)}: lacks the column {lacking[0]}")
    if found.empty:
        raise ValueError(f"{_where(path)}: has no row: must have at least one")
    for name in TIMES:
        times = pd.to_numeric(found[name], errors="coerce").to_numpy(float)
        bad = ~np.isfinite(times) | (times <= 0)
        if bad.any():
            row = int(bad.argmax())
            value = found[name].iloc[row]
            raise ValueError(f"{_where(path)}: row {row + 1}: {name} = {value}: must be above 0")
    return found


def facts(path: Path) -> dict:
    """The provenance beside a table: JSON, at least with the number of devices, seed and date."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_where(path)}: must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{_where(path)}: is a {type(found).__name__}: must be an object")
    for name, kind in {"devices": int, "seed": int, "date": str}.items():
        if type(found.get(name)) is not kind:
            words = "a whole number" if kind is int else "a text"
            raise ValueError(f"{_where(path)}: {name} = {found.get(name)!r}: must be {words}")
    return found


def _where(path: Path) -> str:
    return f"records.load: {path.parent.name}/{path.name}"
