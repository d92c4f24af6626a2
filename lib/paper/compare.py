"""One table of values and its views: two runs compared, a run against the published one.

A run is a folder of chapters, each with its ``values.json``: ``_build/runs/<name>/01_profile`` for
a user's own, ``data/reference/01`` for the published one (which may also hold ``quick.json.xz``,
the same at the default parameters).
"""

from __future__ import annotations

import html
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

import pandas as pd

from lib import provenance
from lib.paper import chapters

QUICK = "quick.json.xz"  # of a published chapter, its values at the defaults
KEPT_APART = ("model", "runs")  # folders of a chapter that hold what it goes on with


def records(run: Path, file: str = "values.json") -> dict[str, dict]:
    """What each chapter of a run published, by its two digits; those that did not finish are
    absent.
    """
    places = sorted(run.glob(f"[0-9][0-9]*/{file}"))
    return {path.parent.name[:2]: _read(path) for path in places}


def record(run: Path, chapter: str) -> dict | None:
    """What one chapter of a run published; None if it did not finish."""
    path = folder(run, chapter) / "values.json"
    return _read(path) if path.is_file() else None


def told(run: Path) -> Callable[[str, str], bool]:
    """(number of a chapter, name) → whether prose can tell this value: the run has a number for it,
    or has not computed the chapter and the published run has.
    """
    own, published = records(run), records(chapters.PUBLISHED)

    def known(number: str, name: str) -> bool:
        values = (own.get(number) or published.get(number) or {}).get("values", {})
        return name in values and values[name]["value"] is not None

    return known


def _read(path: Path) -> dict:
    place = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    try:
        found = json.loads(provenance.text(path))
    except (ValueError, lzma.LZMAError):
        raise ValueError(f"{place}: must be JSON, is cut off: remove it or the run") from None
    if not isinstance(found, dict) or not isinstance(found.get("values", {}), dict):
        raise ValueError(f"{place}: must be what a chapter published: remove it or the run")
    return found


def folder(run: Path, chapter: str) -> Path:
    """The folder of a chapter in a run."""
    return run / chapter if (run / chapter).is_dir() else run / chapter[:2]


def tables_of(place: Path) -> dict[str, Path]:
    """The tables in the folder of a chapter, by their names below it without what packs them."""
    found = {
        path.relative_to(place).as_posix().removesuffix(".xz").removesuffix(".gz"): path
        for path in sorted(place.rglob("*.csv*"))
    }
    return {name: path for name, path in found.items() if name.split("/")[0] not in KEPT_APART}


def table(run: dict[str, dict]) -> pd.DataFrame:
    """All values of a run's records: value, unit, kind, interval, text and tolerance by chapter and
    name.
    """
    rows = [
        dict(chapter=chapter, name=name, **value)
        for chapter, record in run.items()
        for name, value in record["values"].items()
    ]
    columns = ["chapter", "name", "value", "unit", "kind", "interval", "text", "tolerance"]
    return pd.DataFrame(rows, columns=columns, dtype=object).set_index(["chapter", "name"])


def parameters(a: dict[str, dict], b: dict[str, dict]) -> pd.DataFrame:
    """Parameters that differ between the records of two runs: chapter, parameter, both values; of
    what one names on disk its content, where that is known.
    """
    rows = []
    for chapter in sorted(a.keys() & b.keys()):
        ours, theirs = (_asked(run[chapter]["provenance"]) for run in (a, b))
        rows += [
            dict(chapter=chapter, parameter=name, a=ours.get(name), b=theirs.get(name))
            for name in [*ours, *(theirs.keys() - ours.keys())]
            if name not in provenance.MACHINE and ours.get(name) != theirs.get(name)
        ]
    return pd.DataFrame(rows, columns=["chapter", "parameter", "a", "b"])


def _asked(facts: dict) -> dict:
    """The parameters that a chapter was computed with, files by the beginning of their SHA-256."""
    known = {name: f"SHA-256 {sha[:12]}…" for name, sha in facts.get("given", {}).items()}
    return facts["parameters"] | known


def compare(a: dict[str, dict], b: dict[str, dict]) -> pd.DataFrame:
    """Values that differ between the records of two runs: chapter, value, both texts, the change,
    and its significance.

    A change of a number is significant where it exceeds √(h² + h'²), h the half-widths of both 95 %
    intervals (the two taken as independent); without both intervals that is not known.
    """
    both = table(a).join(table(b), how="outer", lsuffix="_a", rsuffix="_b").sort_index()
    rows = []
    for (chapter, name), row in both.iterrows():
        if chapter not in a or chapter not in b or _same(row.value_a, row.value_b):
            continue
        rows.append(
            dict(
                chapter=chapter,
                value=name,
                a=_text(row.text_a, row.unit_a),
                b=_text(row.text_b, row.unit_b),
                change=_change(row.value_a, row.value_b),
                significance=_significance(row),
            )
        )
    return pd.DataFrame(rows, columns=["chapter", "value", "a", "b", "change", "significance"])


def _same(one: object, other: object) -> bool:
    if _number(one) and _number(other):
        return math.isclose(one, other, rel_tol=1e-12)  # sums in another order
    return one == other or (pd.isna(one) and pd.isna(other))


def _text(text: object, unit: object) -> str:
    return "not there" if not isinstance(text, str) else f"{text} {unit}".strip()


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not math.isnan(value)


def _change(old: object, new: object) -> str:
    if not (_number(old) and _number(new)):
        return ""
    return f"{new - old:+.3g}" + (f" ({new / old - 1:+.1%})" if old else "")


def _significance(row: pd.Series) -> str:
    if not (_number(row.value_a) and _number(row.value_b)):
        return ""
    if not (isinstance(row.interval_a, list) and isinstance(row.interval_b, list)):
        return "no intervals"
    half = math.hypot(*((high - low) / 2 for low, high in (row.interval_a, row.interval_b)))
    return "significant" if abs(row.value_b - row.value_a) > half else "not significant"


def published(record: dict) -> dict | None:
    """What was published of a chapter with the parameters of `record`; None if nothing was."""
    number = record["chapter"][:2]
    found = [records(chapters.PUBLISHED, file).get(number) for file in ("values.json", QUICK)]
    return next(
        (other for other in found if other and parameters({number: record}, {number: other}).empty),
        None,
    )


def check(run: dict[str, dict]) -> pd.DataFrame:
    """Every value of a run against the published one of the same parameters: chapter, value, here,
    published, verdict.

    *reproduced*: equal, or within its tolerance relative to the published one, or for a value with
    an interval within that; *differs*; *not judged*: a time or a rate, whose tolerance is infinite;
    *not there*.  Chapters for which nothing was published with their parameters are left out.
    """
    rows = []
    for chapter, record in run.items():
        other = published(record)
        if other is None:
            continue
        both = table({chapter: record}).join(
            table({chapter: other}), how="outer", lsuffix="_a", rsuffix="_b"
        )
        rows += [
            dict(
                chapter=chapter,
                value=name,
                here=_text(row.text_a, row.unit_a),
                published=_text(row.text_b, row.unit_b),
                tolerance=row.tolerance_b,
                verdict=_verdict(row),
            )
            for (_, name), row in both.iterrows()
        ]
    return pd.DataFrame(
        rows, columns=["chapter", "value", "here", "published", "tolerance", "verdict"]
    )


def _verdict(row: pd.Series) -> str:
    if not isinstance(row.text_a, str) or not isinstance(row.text_b, str):
        return "not there"
    tolerance = float(row.tolerance_b)
    if math.isinf(tolerance):
        return "not judged"
    if _same(row.value_a, row.value_b):
        return "reproduced"
    if not (_number(row.value_a) and _number(row.value_b)):
        return "differs"
    inside = (
        isinstance(row.interval_b, list) and row.interval_b[0] <= row.value_a <= row.interval_b[1]
    )
    near = math.isclose(row.value_a, row.value_b, rel_tol=tolerance)
    return "reproduced" if near or inside else "differs"


def to_html(frame: pd.DataFrame, label: str) -> str:
    """A table as one line of HTML that scrolls by itself; all texts are escaped."""
    body = frame.to_html(index=False, border=0, classes="paper-table paper-texts").replace("\n", "")
    label = html.escape(label)
    return f'<div class="paper-scroll" tabindex="0" role="region" aria-label="{label}">{body}</div>'
