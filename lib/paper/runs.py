"""Runs by their names: folders below _build/runs, and the published one."""

from __future__ import annotations

import re
from pathlib import Path

from lib import provenance
from lib.paper import chapters, compare, runner, stale

RUNS = chapters.ROOT / "_build" / "runs"
DEFAULT = "default"  # where none is named
PUBLISHED = "reference"  # the run that is shown and compared, never computed
LONGEST = 100  # bytes of a name, two of which stand in the name of a page


def place(name: str) -> Path:
    """The folder of a run by its name; refused is a name that cannot be one plain folder."""
    plain = r"[^/\\{}'\"$*\x00-\x1f]*"
    if not re.fullmatch(rf"[^\W_]{plain}|<{plain}", name) or name.endswith((" ", ".")):
        raise ValueError(
            f"run: --name {name!r}: must begin with a letter, digit or '<', "
            "end with no space or point, and hold none of / \\ { } ' \" $ *"
        )
    if len(name.encode()) > LONGEST:
        raise ValueError(f"run: --name {name[:20]}…: must have at most {LONGEST} bytes")
    return RUNS / name


def existing(name: str) -> Path:
    """The folder of a run that there is."""
    if name == PUBLISHED:
        return chapters.PUBLISHED
    path = place(name)
    if not path.is_dir():
        names = [*(other.name for other in known()), PUBLISHED]
        hint = provenance.nearest(name, names)
        raise ValueError(f"run {name!r}: there is none{hint}; `list` names them")
    return path


def known() -> list[Path]:
    """The folders of all runs of one's own."""
    return sorted(config.parent for config in RUNS.glob("*/run.json"))


def chosen(only: list[str]) -> list[str]:
    """The chapters that --only names by their numbers (all without it; "book" names none)."""
    named = {name: chapter for chapter in chapters.names() for name in (chapter[:2], chapter)}
    if unknown := [name for name in only if name not in (*named, "book")]:
        numbers = ", ".join(chapter[:2] for chapter in chapters.names())
        raise ValueError(f"run: --only {unknown[0]!r}: must be one of {numbers}, book")
    return sorted({named[name] for name in only if name in named}) if only else chapters.names()


def state(run: Path) -> str:
    """Which chapters of a run are finished, in one line, with what is stale or has work left."""
    parts = []
    try:
        for number, record in compare.records(run).items():
            if left := record.get("left"):
                parts.append(f"{number} (unfinished: {left})")
            else:
                parts.append(f"{number} (stale)" if stale.since(run, record) else number)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"unreadable: {' '.join(str(error).split())}"
    return ", ".join(parts) or "nothing finished"


def verdicts(run: Path, wanted: list[str], index: Path) -> list[str]:
    """What a user must know of chapters that did not end, or not with all of their work."""
    lines = []
    for chapter in wanted:
        if reason := runner.failure(run, chapter):
            page = index.parent / "notebooks" / f"{chapter}.html"
            lines.append(f"{chapter} failed: {reason}\n  its page: {page}")
        elif not (run / f"{chapter}.ipynb").is_file():
            lines.append(f"{chapter} not run: it needs {', '.join(chapters.before(chapter))}")
        elif left := runner.left(run, chapter):
            lines.append(f"{chapter} unfinished: {left}: the same command goes on")
    return lines
