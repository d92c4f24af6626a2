"""``python -m lib sweep --params grid.yml``: a run for every combination of values.

In the file a parameter has a list of values to try; one that is itself a list, a list of lists.
Chapters whose parameters are the same are computed once.  Of two or more values of `seed` the table
gives means with 95 % intervals (Student) over seeds.  No book is built: `python -m lib run --name`
builds that of one of the runs.
"""

from __future__ import annotations

import argparse
import html
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance, stats
from lib.commands.line import Line
from lib.paper import chapters, compare, rules, runner, runs, scheduler, settings

MOST = 1000  # runs of a sweep
OVER = "over seeds"  # the column of their number, which no parameter can be called
SWEEPS = chapters.ROOT / "_build" / "sweeps"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = Line(prog="python -m lib sweep", description=__doc__)
    line.add_argument("--params", required=True, help="YAML file: a list of values per parameter")
    line.add_argument("--name", default="sweep", help="what the runs are called, with a number")
    line.add_argument("--only", action="append", default=[], help="number of a chapter")
    words = "values told, e.g. 04.slowdown_top"
    line.add_argument("--value", nargs="+", action="extend", default=[], help=words)
    line.add_argument("--jobs", type=int, default=1, help="chapters computed at the same time")
    line.add_argument("--profile", help="a Snakemake profile: chapters as jobs of a scheduler")
    return line.parse_args(arguments)


def axes(content: dict[str, object]) -> dict[str, list]:
    """Per parameter the values that it takes, from the file's content; refused: a parameter without
    a list of values, and none twice.
    """
    found: dict[str, list] = {}
    for name, values in content.items():
        of_lists = isinstance(settings.declared(name, "--params"), list)
        wanted = "a list of lists" if of_lists else "a list of values"
        fits = not of_lists or (isinstance(values, list) and all(map(_is_list, values)))
        if not (isinstance(values, list) and values and fits):
            raise ValueError(f"sweep: {name}: {values!r}: must be {wanted}, one for each run")
        if any(values.count(value) > 1 for value in values):
            raise ValueError(f"sweep: {name}: {values!r}: no value may stand there twice")
        found[name] = values
    return found


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def grid(along: dict[str, list]) -> list[dict[str, object]]:
    """Every combination, the last parameter changing fastest."""
    combined = [
        dict(zip(along, values, strict=True)) for values in itertools.product(*along.values())
    ]
    if len(combined) > MOST:
        raise ValueError(f"sweep: {len(combined)} runs: must be at most {MOST}")
    return combined


def told(folders: Sequence[Path], given: Sequence[dict], wanted: Sequence[str]) -> pd.DataFrame:
    """A row per run and value: run, the parameters, chapter.name, value (NaN where the run has
    none); all numbers that differ between runs, where no value is wanted.
    """
    rows = []
    for folder, own in zip(folders, given, strict=True):
        known = compare.table(compare.records(folder)).value
        shown = {name: str(value) for name, value in own.items()}
        for (chapter, name), value in known.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if f"{chapter}.{name}" in wanted or (not wanted and number):
                about = {"run": folder.name} | shown
                rows.append(about | {"name": f"{chapter}.{name}", "value": value})
    table = pd.DataFrame(rows, columns=["run", *given[0], "name", "value"])
    if lacking := set(wanted) - set(table.name):
        raise ValueError(f"sweep: --value {min(lacking)}: no run has this value")
    if wanted:
        return table
    return table.groupby("name", sort=False).filter(lambda own: own.value.nunique() > 1)


def _lacking(folder: Path, wanted: Sequence[str]) -> list[str]:
    """The wanted values that a run does not have; other models may have other ones."""
    known = {f"{chapter}.{name}" for chapter, name in compare.table(compare.records(folder)).index}
    return [value for value in wanted if value not in known]


def summary(table: pd.DataFrame, along: Sequence[str]) -> pd.DataFrame:
    """Of told: a row per value and combination; over seeds, mean with interval and their number; a
    value that no seed moves has no interval.
    """
    others = [name for name in along if name != "seed"]
    if "seed" not in along:
        return table[["name", *others, "value"]]
    rows = []
    for key, own in table.groupby(["name", *others], sort=False):
        row = dict(zip(["name", *others], key, strict=True))
        numbers = pd.to_numeric(own.value, errors="coerce")
        moved = numbers.notna().all() and not np.allclose(numbers, numbers.iloc[0], 1e-12, 0)
        ends = stats.mean_interval(numbers) if moved else (np.nan, np.nan)
        row |= {"value": numbers.mean(), "value_low": ends[0], "value_high": ends[1]}
        rows.append(row | {OVER: len(own)})
    return pd.DataFrame(rows, columns=["name", *others, "value", "value_low", "value_high", OVER])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Of `summary`, as people read it: a value with its interval in one cell, of a path its
    name.
    """
    ends = "value_low", "value_high"
    cells = []
    for row in table.to_dict("records"):
        low, high = (row.get(end, float("nan")) for end in ends)
        number = isinstance(row["value"], int | float)
        cell = f"{row['value']:.4g}" if number else str(row["value"])
        cells.append(cell + (f" [{low:.4g}, {high:.4g}]" if low < high else ""))
    shown = table.drop(columns=[end for end in ends if end in table]).assign(value=cells)
    return shown.map(provenance.portable)


def page(table: pd.DataFrame, title: str) -> str:
    """The table as one HTML page that stands alone."""
    style = (chapters.ROOT / "book/_static/paper.css").read_text()
    body = compare.to_html(readable(table), title)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f"<main><h1>{html.escape(title)}</h1>{body}</main></html>"
    )


def _of_chapters(values: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse, before the work, a value of no chapter that is run."""
    numbers = [chapter[:2] for chapter in chapters.with_needs(list(wanted))]
    for value in values:
        number, dot, name = value.partition(".")
        if not (dot and name and number in numbers):
            rule = f"must be NN.name, NN one of {', '.join(numbers)}"
            raise ValueError(f"sweep: --value {value!r}: {rule}")


def main(arguments: Sequence[str]) -> None:
    """Check all runs, compute them one after the other, and leave the table with its page."""
    a = parsed(arguments)
    if a.jobs < 1:
        raise ValueError(f"sweep: --jobs {a.jobs}: must be 1 or more")
    along = axes(settings.load(a.params))
    if not along:
        raise ValueError(f"sweep: --params {a.params}: must name a parameter with its values")
    profile = None if a.profile is None else scheduler.profile(a.profile)
    given, wanted = grid(along), runs.chosen(a.only)
    _of_chapters(a.value, wanted)
    places = [runs.place(f"{a.name}-{number:03d}") for number in range(len(given))]
    rules.check(chapters.with_needs(wanted), *given)
    failed = []
    for number, (where, own) in enumerate(zip(places, given, strict=True)):
        print(f"== {where.name} ({number + 1} of {len(given)}): {own}", file=sys.stderr)
        with runner.sole(where) as held:
            how = dict(jobs=a.jobs, origin=a.params, held=held, profile=profile)
            if not runner.execute(where, own, wanted, **how):
                failed.append(where.name)
        for value in _lacking(where, a.value):  # told now, not after all runs
            print(f"sweep: --value {value}: {where.name} has no such value", file=sys.stderr)
    varied = [name for name, values in along.items() if len(values) > 1]
    table = summary(told(places, given, a.value), varied)
    target = SWEEPS / a.name
    target.mkdir(parents=True, exist_ok=True)
    with provenance.writing(target / "table.csv") as part:
        table.to_csv(part, index=False)
    with provenance.writing(target / "index.html") as part:
        part.write_text(page(table, f"Sweep: {a.name}"))
    print(readable(table).to_string(index=False) if len(table) else "sweep: no number differs")
    print(target / "table.csv", target / "index.html", sep="\n")
    if failed:
        raise RuntimeError(f"sweep: failed: {', '.join(failed)}; their folders hold the reason")
