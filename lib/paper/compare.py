"""One table of values and its views: two runs side by side, a run against the published one, the
claims.

A run is a folder of chapters, each with its ``values.json``: ``_build/runs/<name>/01_profile`` for
a user's own, ``data/reference/01`` for the published one (which may also hold ``quick.json``, the
same at the default parameters).
"""

from __future__ import annotations

import base64
import html
import json
import math
from pathlib import Path

import pandas as pd

from lib import provenance
from lib.paper import chapters


def records(run: Path, file: str = "values.json") -> dict[str, dict]:
    """What each chapter of a run published, by its two digits; those that did not finish are
    absent.
    """
    return {
        path.parent.name[:2]: json.loads(path.read_text())
        for path in sorted(run.glob(f"[0-9][0-9]*/{file}"))
    }


def folder(run: Path, chapter: str) -> Path:
    """The folder of a chapter in a run."""
    return run / chapter if (run / chapter).is_dir() else run / chapter[:2]


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
    """Parameters that differ between the records of two runs: chapter, parameter, and both values."""
    rows = []
    for chapter in sorted(a.keys() & b.keys()):
        ours, theirs = (run[chapter]["provenance"]["parameters"] for run in (a, b))
        rows += [
            dict(chapter=chapter, parameter=name, a=ours.get(name), b=theirs.get(name))
            for name in [*ours, *(theirs.keys() - ours.keys())]
            if name not in provenance.MACHINE and ours.get(name) != theirs.get(name)
        ]
    return pd.DataFrame(rows, columns=["chapter", "parameter", "a", "b"])


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


def _number(value: object) -> bool:
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
    found = [
        records(chapters.PUBLISHED, file).get(number) for file in ("values.json", "quick.json")
    ]
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


def claims(run: dict[str, dict], other: dict[str, dict]) -> pd.DataFrame:
    """All claims of a run with their predicates and verdicts, beside those of another run."""
    rows = [
        dict(
            chapter=number,
            claim=claim["text"],
            here=claim["verdict"],
            published=other.get(number, {})
            .get("claims", {})
            .get(name, {})
            .get("verdict", "not there"),
            predicate=claim["predicate"],
        )
        for number, record in run.items()
        for name, claim in record["claims"].items()
    ]
    return pd.DataFrame(rows, columns=["chapter", "claim", "here", "published", "predicate"])


def to_html(frame: pd.DataFrame, label: str) -> str:
    """A table as one line of HTML that scrolls by itself; all texts are escaped."""
    body = frame.to_html(index=False, border=0, classes="paper-table paper-texts").replace("\n", "")
    return f'<div class="paper-scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{body}</div>'


def page(a: Path, b: Path, target: Path) -> None:
    """Write two runs side by side as one HTML file that stands alone: parameters, values, and
    figures that differ.
    """
    one, two = records(a), records(b)
    names = {"a": a.name, "b": b.name}
    parts = [f"<h1>{html.escape(a.name)} and {html.escape(b.name)}</h1>"]
    for title, frame in (("Parameters", parameters(one, two)), ("Values", compare(one, two))):
        text = (
            to_html(frame.rename(columns=names), title) if len(frame) else "<p>No difference.</p>"
        )
        parts.append(f"<h2>{title}</h2>{text}")
    parts.append("<h2>Figures</h2>")
    for chapter in sorted(one.keys() & two.keys()):
        for name, known in one[chapter]["figures"].items():
            images = [(folder(run, one[chapter]["chapter"]) / known["file"]) for run in (a, b)]
            if (
                all(image.is_file() for image in images)
                and images[0].read_bytes() != images[1].read_bytes()
            ):
                shown = "".join(
                    _image(image, f"{run.name}: {known['alt']}")
                    for image, run in zip(images, (a, b), strict=True)
                )
                parts.append(
                    f"<h3>{chapter} {html.escape(name)}</h3><div class='pair'>{shown}</div>"
                )
    style = (chapters.ROOT / "book/_static/paper.css").read_text()
    with provenance.writing(target) as part:
        part.write_text(
            f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
            f"<title>{html.escape(a.name)} and {html.escape(b.name)}</title><style>{style}\n"
            ":root{color-scheme:light dark;--pst-color-text-base:light-dark(#222,#ddd)}body{font:1rem/1.5 sans-serif;"
            "max-width:76rem;margin:auto;padding:1rem}.pair{display:grid;grid-template-columns:repeat(auto-fit,"
            f"minmax(18rem,1fr));gap:1rem}}.pair img{{width:100%;background:#fff}}</style><main>{''.join(parts)}</main></html>"
        )


def _image(path: Path, alt: str) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" alt="{html.escape(alt)}">'
