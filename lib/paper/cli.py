"""The command line: ``python -m lib run`` computes what changed and builds the book."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from lib.paper import workflow

RUNS = workflow.ROOT / "_build" / "runs"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def folder(name: str) -> Path:
    """The folder of a run; its name must be a plain one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"run: --name {name!r}: must be letters, digits, '.', '_' and '-', beginning with one of the first two"
        )
    return RUNS / name


def chosen(only: str | None) -> list[str]:
    """The chapters that --only names by their number (all without it; none for "book")."""
    if only is None:
        return workflow.chapters()
    found = [chapter for chapter in workflow.chapters() if chapter[:2] == only or chapter == only]
    if not found and only != "book":
        numbers = ", ".join(chapter[:2] for chapter in workflow.chapters())
        raise ValueError(f"run: --only {only!r}: must be one of {numbers}, book")
    return found


@app.command()
def run(
    name: Annotated[str, typer.Option(help="name of the run, a folder below _build/runs")] = "default",
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, for every chapter that has it")] = None,
    only: Annotated[str | None, typer.Option(help="the number of one chapter, or book")] = None,
) -> None:
    """Run the chapters whose parameters, code or data changed, then build the book."""
    try:
        where, given, chapters = folder(name), workflow.parse(parameter or []), chosen(only)
    except ValueError as error:
        fail(str(error))
    try:
        fine = workflow.execute(where, given, chapters) if chapters else True
        index = workflow.build_book(where)
    except RuntimeError as error:
        fail(str(error))
    for chapter in chapters:
        if reason := workflow.failure(where, chapter):
            page = index.parent / "notebooks" / f"{chapter}.html"
            print(f"{chapter} failed: {reason}\n  its page: {page}", file=sys.stderr)
        elif not (where / f"{chapter}.ipynb").is_file():
            print(f"{chapter} not run: it needs {', '.join(workflow.needs(chapter))}", file=sys.stderr)
    print(f"book: {index}")
    if not fine:
        raise typer.Exit(1)


@app.command("list")
def list_runs() -> None:
    """Name the runs there are, with the chapters that each has finished."""
    for path in sorted(RUNS.glob("*/run.json")):
        done = [chapter.parent.name[:2] for chapter in sorted(path.parent.glob("[0-9][0-9]_*/values.json"))]
        print(f"{path.parent.name}: {' '.join(done) or 'nothing finished'}")


def fail(message: str) -> None:
    """Say what is wrong in one line and end with exit code 2."""
    print(message, file=sys.stderr)
    raise typer.Exit(2)
