"""The command line: ``python -m lib run`` computes what changed and builds the book."""

from __future__ import annotations

import re
import shutil
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from lib import provenance
from lib.paper import build, chapters, runner, settings, stale
from lib.paper import compare as views
from lib.paper import publish as publishing

RUNS = chapters.ROOT / "_build" / "runs"
PUBLISHED = (
    "reference"  # the name of the published run, which is shown and compared, never computed
)
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Option(help="name of the run, a folder below _build/runs")]


def place(name: str) -> Path:
    """The folder of a run by its name; refused is a name that cannot be one plain folder."""
    if not re.fullmatch(r"[^\W_][^/\\{}'\"$*\x00-\x1f]*|<[^/\\{}'\"$*\x00-\x1f]*", name):
        raise ValueError(
            f"run: --name {name!r}: must begin with a letter, digit or '<' and hold none of / \\ {{ }} ' \" $ *"
        )
    return RUNS / name


def existing(name: str) -> Path:
    """The folder of a run that there is."""
    if name == PUBLISHED:
        return chapters.PUBLISHED
    path = place(name)
    if not path.is_dir():
        names = [*(other.parent.name for other in RUNS.glob("*/run.json")), PUBLISHED]
        raise ValueError(
            f"run {name!r}: there is none{provenance.nearest(name, names)}; `list` names them"
        )
    return path


def chosen(only: list[str]) -> list[str]:
    """The chapters that --only names by their numbers (all without it; "book" names none)."""
    known = {name: chapter for chapter in chapters.names() for name in (chapter[:2], chapter)}
    if unknown := [name for name in only if name not in (*known, "book")]:
        numbers = ", ".join(chapter[:2] for chapter in chapters.names())
        raise ValueError(f"run: --only {unknown[0]!r}: must be one of {numbers}, book")
    return sorted({known[name] for name in only if name in known}) if only else chapters.names()


@app.command()
def run(
    name: Name = "default",
    params: Annotated[
        str | None, typer.Option(help="a YAML file of parameters, or its name in notebooks/params")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", help="name=value, for every chapter that has it")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="the number of a chapter, or book; may be repeated")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="chapters that may run at the same time")] = 1,
    open_: Annotated[bool, typer.Option("--open", help="open the book in a browser")] = False,
) -> None:
    """Run the chapters whose parameters, code or data changed, then build the book."""
    where, wanted = place(name), chosen(only or [])
    given = (settings.load(params) if params else {}) | settings.parse(parameter or [])
    published = name == PUBLISHED
    if published and (given or set(only or []) - {"book"}):
        raise ValueError(
            f"run: --name {PUBLISHED}: the published run is shown, not computed: no parameters, no chapter"
        )
    with runner.sole(where):
        fine = (
            published
            or not chapters
            or runner.execute(where, given, wanted, jobs=jobs, origin=params or "")
        )
        index = build.book(chapters.PUBLISHED if published else where, where / "book")
    for chapter in wanted if not published else []:
        if reason := runner.failure(where, chapter):
            page = index.parent.parent / "notebooks" / f"{chapter}.html"
            print(f"{chapter} failed: {reason}\n  its page: {page}", file=sys.stderr)
        elif not (where / f"{chapter}.ipynb").is_file():
            print(
                f"{chapter} not run: it needs {', '.join(chapters.needs(chapter))}", file=sys.stderr
            )
    print(f"book: {index}")
    if open_:
        webbrowser.open(index.as_uri())
    if not fine:
        raise typer.Exit(1)


@app.command("list")
def list_runs() -> None:
    """Name the runs there are, with the chapters that each has finished."""
    for path in [*sorted(config.parent for config in RUNS.glob("*/run.json")), chapters.PUBLISHED]:
        done = [
            f"{number} (stale)" if stale.since(path, record) else number
            for number, record in views.records(path).items()
        ]
        print(f"{path.name}: {', '.join(done) or 'nothing finished'}")


@app.command()
def show(name: str) -> None:
    """Print every value of a run."""
    frame = views.table(views.records(existing(name))).reset_index()
    frame["interval"] = [
        f"{i[0]:.4g} to {i[1]:.4g}" if isinstance(i, list) else "" for i in frame.interval
    ]
    write(
        frame[["chapter", "name", "text", "unit", "interval", "kind"]].rename(
            columns={"text": "value"}
        )
    )


@app.command()
def clean(
    name: Annotated[str | None, typer.Argument(help="one run; all without it")] = None,
) -> None:
    """Remove a run with its book, or all of them."""
    if name == PUBLISHED:
        raise ValueError(f"clean: {PUBLISHED}: the published run is part of the repository")
    for path in (
        [existing(name)] if name else sorted(path for path in RUNS.glob("*") if path.is_dir())
    ):
        with runner.sole(path):
            shutil.rmtree(path)
        print(f"removed: {path}")


@app.command()
def compare(a: str, b: str) -> None:
    """Show what differs between two runs: parameters and values here, figures too on a page."""
    one, two = existing(a), existing(b)
    first, second = views.records(one), views.records(two)
    for title, frame in (
        ("parameters", views.parameters(first, second)),
        ("values", views.compare(first, second)),
    ):
        print(f"{title}:" + (" no difference" if frame.empty else ""))
        write(frame.rename(columns={"a": one.name, "b": two.name}))
    for number in sorted(first.keys() ^ second.keys()):
        print(f"chapter {number}: only in {(one if number in first else two).name}")
    target = RUNS.parent / "compare" / f"{one.name}, {two.name}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    views.page(one, two, target)
    print(f"page: {target}")


@app.command()
def check(name: Name = "default") -> None:
    """Say which published values a run reproduces, within which tolerance; exit code 1 if one
    differs.
    """
    own = views.records(existing(name))
    frame = views.check(own)
    for number in sorted(own.keys() - set(frame.chapter)):
        print(f"chapter {number}: nothing was published with these parameters")
    bad = frame[frame.verdict.isin(["differs", "not there"])]
    write(bad)
    counts = ", ".join(
        f"{count} {verdict}" for verdict, count in frame.verdict.value_counts().items()
    )
    print(f"{name}: {len(frame)} values: {counts or 'none to check'}")
    raise typer.Exit(0 if len(frame) and bad.empty else 1)


@app.command()
def publish(name: str) -> None:
    """Make the chapters of a run the published ones; of those computed at the defaults only the
    values, for `check`.
    """
    run = existing(name)
    for record in views.records(run).values():
        print(f"published: {publishing.publish(run, record)}")


def write(frame: pd.DataFrame) -> None:
    """Print a table, nothing if it is empty."""
    if len(frame):
        print(frame.to_string(index=False))


def main() -> None:
    """The command line; what a user got wrong is one line and exit code 2."""
    try:
        app(prog_name="python -m lib")
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
