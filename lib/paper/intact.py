"""Data of the repository are what their inventory says, or nothing is computed from them.

`data/manifest.csv` lists every file below `data` with its SHA-256.  Who changes data on purpose
renews the list (`python data/inventory.py`), or runs with ``--changed-data``, which the provenance
then tells.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from lib import provenance
from lib.paper import chapters

ON_PURPOSE = "PAPER_CHANGED_DATA"  # environment: data that differ may be used
SHOWN = 3  # files that a message names


def places(chapter: str) -> list[str]:
    """What a chapter reads below data, files and folders, the published results of others too."""
    known = [*chapters.reads(chapter)]
    known += [f"data/reference/{other[:2]}" for other in chapters.before(chapter)]
    return [name for name in known if name.startswith("data/")]


def changed(names: Iterable[str], home: Path | None = None) -> list[str]:
    """The files at or below `names` ("data/…") that are not what the inventory lists: altered,
    missing, or not listed, each with a word that says which; in order of name.  None where there is
    no inventory.
    """
    data = (home or provenance.repository()) / "data"
    if not (data / "manifest.csv").is_file():
        return []
    listed = pd.read_csv(data / "manifest.csv", index_col="file").sha256
    found = {}
    for name in names:
        below = name.removeprefix("data/").rstrip("/")
        own = listed[[file == below or file.startswith(f"{below}/") for file in listed.index]]
        for file, digest in own.items():
            path = data / str(file)
            if not path.is_file():
                found[str(file)] = "missing"
            elif provenance.sha256(path) != digest:
                found[str(file)] = "changed"
        for path in _files(data / below):
            file = path.relative_to(data).as_posix()
            if file not in listed.index:
                found[file] = "not listed"
    return [f"data/{file} ({why})" for file, why in sorted(found.items())]


def _files(place: Path) -> list[Path]:
    """The files that are data at or below a place."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [
        path
        for path in found
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and not path.name.startswith(".")
        and path.name != "manifest.csv"
    ]


def check(names: Iterable[str]) -> list[str]:
    """`changed`, refused in one line unless it is on purpose."""
    found = changed(names)
    if found and not os.environ.get(ON_PURPOSE):
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(
            f"data: {', '.join(found[:SHOWN])}{more}: must be as data/manifest.csv lists it; "
            "restore it, or say --changed-data"
        )
    return found


def relist() -> None:
    """Renew the inventory, where there is one, after what belongs to it was written on purpose."""
    script = provenance.repository() / "data" / "inventory.py"
    if script.is_file():
        runpy.run_path(str(script), run_name="__main__")
