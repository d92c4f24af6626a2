"""Time that chapters and test files took, beside what they may take on two idle cores."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd

from lib.paper import chapters, compare

TESTS = chapters.ROOT / "_build" / "times.json"  # seconds of each test file, when last run whole


def table(run: Path) -> pd.DataFrame:
    """What the chapters of a run and the test files last took: what, seconds, budget, and "over"
    where it was more; of what was not run yet NaN.

    Budgets: of a chapter in its metadata, of a test file in `[tool.budgets]` of pyproject.toml.
    """
    told = tomllib.loads((chapters.ROOT / "pyproject.toml").read_text())["tool"]["budgets"]
    took = json.loads(TESTS.read_text()) if TESTS.is_file() else {}
    records = compare.records(run)
    rows = [
        (chapter, _seconds(records.get(chapter[:2])), chapters.budget_s(chapter))
        for chapter in chapters.names()
    ]
    rows += [
        (path.name, took.get(path.name, float("nan")), told.get(path.stem, told["default"]))
        for path in sorted((chapters.ROOT / "tests").glob("test_*.py"))
    ]
    frame = pd.DataFrame(rows, columns=["what", "seconds", "budget"])
    return frame.assign(over=["over" if took > may else "" for _, took, may in rows])


def _seconds(record: dict | None) -> float:
    return record["provenance"]["seconds"] if record else float("nan")
