"""The command line: ``python -m lib run`` computes what changed and builds the book."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import traceback
import webbrowser
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from typer.exceptions import TyperException

from lib.paper import (
    build,
    chapters,
    intact,
    pdf,
    renew,
    rules,
    runner,
    runs,
    scheduler,
    settings,
    side,
    times,
)
from lib.paper import compare as views
from lib.paper import publish as publishing

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
STOPPED = "lib: stopped: what is finished stays, and the same command goes on"
Name = Annotated[str, typer.Option(help="name of the run, a folder below _build/runs")]
Params = Annotated[
    str | None, typer.Option(help="a YAML file of parameters, or its name in notebooks/params")
]
Given = Annotated[
    list[str] | None, typer.Option("-p", help="name=value, for every chapter that has it")
]
Only = Annotated[
    list[str] | None, typer.Option(help="the number of a chapter, or book; may be repeated")
]


@app.command()
def run(
    name: Name = runs.DEFAULT,
    params: Params = None,
    parameter: Given = None,
    only: Only = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="chapters that may run at the same time; without a GPU two on two cores or more, "
            "else one",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="a Snakemake profile, or its name in notebooks/profiles: chapters as jobs"
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="open the book in a browser")] = False,
    changed_data: Annotated[
        bool, typer.Option("--changed-data", help="use data that differ from data/manifest.csv")
    ] = False,
) -> None:
    """Run the chapters whose parameters, code or data changed, then build the book."""
    where, wanted = runs.place(name), runs.chosen(only or [])
    place = None if profile is None else scheduler.profile(profile)
    given, published = settings.asked(params, parameter or []), name == runs.PUBLISHED
    if published and (given or set(only or []) - {"book"}):
        raise ValueError(
            f"run: --name {name}: the published run is shown, not computed: "
            "no parameters, no chapter"
        )
    rules.check(chapters.with_needs(wanted), given)
    wanted = [] if published else wanted
    if changed_data:
        os.environ[intact.ON_PURPOSE] = "1"
    for chapter in chapters.with_needs(wanted):
        intact.check(intact.places(chapter))
    if published:
        intact.check(["data/reference"])
    with runner.sole(where) as held:
        fine = not wanted or runner.execute(
            where, given, wanted, jobs=jobs, origin=params or "", held=held, profile=place
        )
        runner.mend(where)
        index = build.book(chapters.PUBLISHED if published else where, where / "book")
    told = runs.verdicts(where, wanted, index)
    print("\n".join(told), file=sys.stderr, end="\n" if told else "")
    print(f"book: {index}")
    if open_:
        webbrowser.open(index.as_uri())
    if not fine or told:
        raise typer.Exit(1)


@app.command("pdf")
def print_pdf(name: Name = runs.PUBLISHED, only: Only = None) -> None:
    """Print the book of a run, or some of its chapters, to a PDF; Chromium prints it."""
    made, where = runs.existing(name), runs.place(name)
    wanted = [f"notebooks/{chapter}" for chapter in runs.chosen(only)] if only else pdf.toc()
    with runner.sole(where):
        index = build.book(made, where / "book")
        target = where / ("-".join(["book", *(only or [])]) + ".pdf")
        count = pdf.printed(index.parent, wanted, target)
    print(f"pdf: {target} ({count} pages)")


@app.command("list")
def list_runs() -> None:
    """Name the runs there are, with the chapters that each has finished."""
    for path in [*runs.known(), chapters.PUBLISHED]:
        print(f"{path.name}: {runs.state(path)}")


@app.command("params")
def list_params(
    only: Only = None,
) -> None:
    """List every parameter: chapter, name with its default, meaning, range."""
    for chapter in runs.chosen(only or []):
        print(chapter)
        for name, default, meaning, span in rules.table(chapter):
            print(f"  {name} = {json.dumps(default)}: {meaning} ({span})")


@app.command()
def show(name: str) -> None:
    """Print every value of a run."""
    frame = views.table(views.records(runs.existing(name))).reset_index()
    frame["interval"] = [
        f"{i[0]:.4g} to {i[1]:.4g}" if isinstance(i, list) else "" for i in frame.interval
    ]
    shown = frame[["chapter", "name", "text", "unit", "interval", "kind"]]
    write(shown.rename(columns={"text": "value"}))


@app.command()
def clean(
    name: Annotated[str | None, typer.Argument(help="one run")] = None,
    every: Annotated[bool, typer.Option("--all", help="all runs of one's own")] = False,
) -> None:
    """Remove a run with its book, or with --all all of them."""
    if name == runs.PUBLISHED:
        raise ValueError(f"clean: {name}: the published run is part of the repository")
    if (name is None) != every:
        raise ValueError("clean: must be given the name of one run, or --all")
    everyone = sorted(path for path in runs.RUNS.glob("*") if path.is_dir())
    for path in everyone if name is None else [runs.existing(name)]:
        with runner.sole(path):
            shutil.rmtree(path)
        print(f"removed: {path}")


@app.command()
def compare(a: str, b: str) -> None:
    """Show what differs between two runs: parameters, values and tables here, figures on a page."""
    one, two = runs.existing(a), runs.existing(b)
    first, second = views.records(one), views.records(two)
    for title, frame in (
        ("parameters", views.parameters(first, second)),
        ("values", views.compare(first, second)),
        ("tables", side.tables(one, two)),
    ):
        print(f"{title}:" + (" no difference" if frame.empty else ""))
        write(frame.rename(columns={"a": one.name, "b": two.name}))
    for number in sorted(first.keys() ^ second.keys()):
        print(f"chapter {number}: only in {(one if number in first else two).name}")
    target = runs.RUNS.parent / "compare" / f"{one.name}, {two.name}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    side.page(one, two, target)
    print(f"page: {target}")


@app.command()
def check(name: Name = runs.DEFAULT) -> None:
    """Say which published values a run reproduces, within which tolerance; exit code 1 if one
    differs.
    """
    own = views.records(runs.existing(name))
    frame = views.check(own)
    for number in sorted(own.keys() - set(frame.chapter)):
        print(f"chapter {number}: nothing was published with these parameters")
    bad = frame[frame.verdict.isin(["differs", "not there"])]
    write(bad)
    counts = frame.verdict.value_counts().items()
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts)
    print(f"{name}: {len(frame)} values: {told or 'none to check'}")
    raise typer.Exit(0 if len(frame) and bad.empty else 1)


@app.command("times")
def print_times(name: Name = runs.DEFAULT) -> None:
    """Print what the chapters of a run and the test files last took, beside their budgets."""
    write(times.table(runs.place(name) if name == runs.DEFAULT else runs.existing(name)))


@app.command()
def publish(name: str, only: Only = None) -> None:
    """Make the chapters of a run the published ones; of those computed at the defaults only the
    values, for `check`.
    """
    run, wanted = runs.existing(name), runs.chosen(only or [])
    if name == runs.PUBLISHED:
        raise ValueError(f"publish: {name}: is the published run")
    with runner.sole(run), runner.sole(runs.RUNS / runs.PUBLISHED):
        for record in _finished("publish", run, wanted):
            print(f"published: {publishing.publish(run, record)}")
        intact.relist()


@app.command()
def confirm(name: str, only: Only = None) -> None:
    """Keep the published chapters from being stale whose every value a run reproduces; exit code
    1 if one does not.
    """
    run, wanted = runs.existing(name), runs.chosen(only or [])
    if name == runs.PUBLISHED:
        raise ValueError(f"confirm: {name}: is the published run")
    with runner.sole(run), runner.sole(runs.RUNS / runs.PUBLISHED):
        finished = _finished("confirm", run, wanted)
        found = {record["chapter"]: publishing.confirm(record) for record in finished}
        intact.relist()
    for chapter, bad in found.items():
        print(f"{chapter}: " + ("confirmed" if bad.empty else "not confirmed"))
        write(bad)
    raise typer.Exit(0 if all(bad.empty for bad in found.values()) else 1)


def _finished(command: str, run: Path, wanted: list[str]) -> list[dict]:
    """The records of a run's chapters that are wanted; refused where none of them has ended."""
    found = [one for one in views.records(run).values() if one["chapter"] in wanted]
    if not found:
        raise ValueError(f"{command}: {run.name}: has no finished chapter of {', '.join(wanted)}")
    return found


@app.command("renew")
def renew_published() -> None:
    """Recompute on the CPU the published chapters that are stale and need no GPU, confirm those
    whose values are unchanged, and name the rest; exit code 1 if there is a rest.
    """
    with runner.sole(runs.RUNS / runs.PUBLISHED):
        lines, whole = renew.published(runs.place("renewed"))
        intact.relist()
    print("\n".join(lines))
    raise typer.Exit(0 if whole else 1)


def write(frame: pd.DataFrame) -> None:
    """Print a table, nothing if it is empty."""
    if len(frame):
        print(frame.to_string(index=False))


class Stopped(BaseException):
    """What a signal to end raises, whatever a library makes of an interrupt."""


def main() -> None:
    """The command line; what a user got wrong, or the machine refuses, or fails here, is one line
    and exit code 2; one that is stopped from outside is one line too, with the shell's exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show is told by its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    told = ""
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="python -m lib", standalone_mode=False)
    except Stopped as end:
        told, code = f"\n{STOPPED}", 128 + end.args[0]
    except TyperException as error:
        told, code = f"lib: {' '.join(error.format_message().split())}", 2
    except Exception as error:
        told, code = line_of(error), 2
    print(told, file=sys.stderr, end="\n" if told else "")
    sys.exit(code)


def _stop(number: int, _: object) -> None:
    raise Stopped(number)


def line_of(error: Exception) -> str:
    """An error in the words that the command line tells."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"lib: {place}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"lib: {str(error) or 'the memory of this machine does not suffice'}"
    if isinstance(error, ValueError | RuntimeError) and not isinstance(error, RecursionError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"lib: {told} ({last.filename}, line {last.lineno})"
