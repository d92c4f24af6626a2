"""Two runs side by side: the tables whose cells differ, and one page of all that differs."""

from __future__ import annotations

import base64
import html
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance
from lib.paper import chapters, compare

STYLE = (
    ":root{color-scheme:light dark;--pst-color-text-base:light-dark(#222,#ddd)}"
    "body{font:1rem/1.5 sans-serif;max-width:76rem;margin:auto;padding:1rem}"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1rem}"
    ".pair img{width:100%;background:#fff}"
)


def tables(a: Path, b: Path) -> pd.DataFrame:
    """Tables (CSV, packed or not) of the chapters of two runs whose cells differ: chapter, table,
    rows that only one of them has, cells that differ of those compared, the largest change of a
    number relative to the first run, and where it is.
    """
    rows = []
    for number in sorted(compare.records(a).keys() & compare.records(b).keys()):
        places = [next(run.glob(f"{number}*/values.json")).parent for run in (a, b)]
        ours, theirs = (compare.tables_of(place) for place in places)
        for name in sorted(ours.keys() & theirs.keys()):
            if ours[name].suffix == theirs[name].suffix and _same(ours[name], theirs[name]):
                continue
            found = differing(pd.read_csv(ours[name]), pd.read_csv(theirs[name]))
            if found["only a"] or found["only b"] or found["differ"]:
                rows.append({"chapter": number, "table": name, **found})
        for name in sorted(ours.keys() ^ theirs.keys()):
            there = a if name in ours else b
            rows.append({"chapter": number, "table": name, "at": f"only in {there.name}"})
    columns = ["chapter", "table", "only a", "only b", "cells", "differ", "largest change", "at"]
    return pd.DataFrame(rows, columns=columns).fillna("")


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def differing(a: pd.DataFrame, b: pd.DataFrame) -> dict:
    """How two tables differ; their rows are matched by the fewest first columns that name each row
    once in both, else by their place.
    """
    shared = [column for column in a.columns if column in b.columns]
    for count in range(1, len(shared) + 1):
        keys = shared[:count]
        if not (a.duplicated(keys).any() or b.duplicated(keys).any()):
            a, b = a.set_index(keys), b.set_index(keys)
            break
    both = a.index.intersection(b.index)
    columns = [column for column in shared if column in a.columns]
    changes = {}
    for column in columns:
        one, other = a.loc[both, column], b.loc[both, column]
        differ = ~_equal(one, other)
        for key in both[differ.to_numpy()]:
            changes[f"{column} at {_label(key)}"] = _change(one[key], other[key])
    known = {place: change for place, change in changes.items() if not np.isnan(change)}
    place = max(known, key=lambda name: known[name], default=next(iter(changes), ""))
    return {
        "only a": len(a) - len(both),
        "only b": len(b) - len(both),
        "cells": len(both) * len(columns),
        "differ": len(changes),
        "largest change": f"{known[place]:.1%}" if place in known else "",
        "at": place,
    }


def _equal(one: pd.Series, other: pd.Series) -> pd.Series:
    if all(pd.api.types.is_numeric_dtype(part) for part in (one, other)):
        near = np.isclose(one.astype(float), other.astype(float), 1e-12, 0, equal_nan=True)
        return pd.Series(near, one.index)
    return (one == other) | (one.isna() & other.isna())


def _change(old: object, new: object) -> float:
    numbers = [isinstance(value, int | float | np.number) for value in (old, new)]
    return abs(new / old - 1) if all(numbers) and old else np.nan  # type: ignore[operator]


def _label(key: object) -> str:
    return ", ".join(str(part) for part in (key if isinstance(key, tuple) else (key,)))


def page(a: Path, b: Path, target: Path) -> None:
    """Write two runs side by side as one HTML file that stands alone: parameters, values, tables
    and figures that differ.
    """
    one, two = compare.records(a), compare.records(b)
    title = f"{html.escape(a.name)} and {html.escape(b.name)}"
    parts = [f"<h1>{title}</h1>"]
    for head, frame in (
        ("Parameters", compare.parameters(one, two)),
        ("Values", compare.compare(one, two)),
        ("Tables", tables(a, b)),
    ):
        named = frame.rename(columns={"a": a.name, "b": b.name})
        text = compare.to_html(named, head) if len(frame) else "<p>No difference.</p>"
        parts.append(f"<h2>{head}</h2>{text}")
    parts.append("<h2>Figures</h2>")
    for number in sorted(one.keys() & two.keys()):
        parts += _figures(a, b, one[number])
    style = (chapters.ROOT / "book/_static/paper.css").read_text()
    with provenance.writing(target) as part:
        part.write_text(
            "<!doctype html><html lang='en'><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width'>"
            f"<title>{title}</title><style>{style}\n{STYLE}</style>"
            f"<main>{''.join(parts)}</main></html>"
        )


def _figures(a: Path, b: Path, record: dict) -> list[str]:
    """The pairs of pictures of a chapter that differ, as HTML."""
    parts = []
    for name, known in record["figures"].items():
        one, other = (compare.folder(run, record["chapter"]) / known["file"] for run in (a, b))
        if one.is_file() and other.is_file() and not _same(one, other):
            pair = ((one, a.name), (other, b.name))
            shown = "".join(_image(path, f"{run}: {known['alt']}") for path, run in pair)
            head = f"<h3>{record['chapter'][:2]} {html.escape(name)}</h3>"
            parts.append(f"{head}<div class='pair'>{shown}</div>")
    return parts


def _image(path: Path, alt: str) -> str:
    content = base64.b64encode(provenance.text(path).encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{content}" alt="{html.escape(alt)}">'
