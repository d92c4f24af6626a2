"""Nothing is computed twice: which chapters of a run are due, and which another run has already."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from lib import provenance
from lib.paper import chapters, compare, settings, stale


def due(run: Path, chapter: str, given: dict) -> bool:
    """Whether a chapter of a run must be computed: it never ended, some of its work is left, or
    its code, its data or its parameters changed.
    """
    record, copy = compare.record(run, chapter), run / f"{chapter}.ipynb"
    if record is None or not copy.is_file() or record.get("left") or stale.since(run, record):
        return True
    return _asked(copy, record) != _wished(chapter, given)


def take(run: Path, chapter: str, given: dict) -> str:
    """Take a chapter over from another run that has it with the same parameters, code and data,
    wherever the user's own files lie; that run's name, or nothing if there is none.

    Its provenance says where it comes from. What it read of other chapters must lie here as well.
    """
    wished = _wished(chapter, given)
    for other in sorted(path for path in run.parent.glob("*") if path.is_dir() and path != run):
        record, copy = compare.record(other, chapter), other / f"{chapter}.ipynb"
        if record is None or not copy.is_file() or not _equal(run, record, copy, wished):
            continue
        target, part = run / chapter, run / f".part-{chapter}"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(other / chapter, part)
        facts = record["provenance"]
        facts["taken_from"] = facts.get("taken_from", other.name)
        (part / "values.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        shutil.copyfile(copy, run / copy.name)
        stale.note(run, chapter)
        return other.name
    return ""


def in_order(run: Path, done: list[str]) -> None:
    """Give finished copies their order in time, by which Snakemake sees what is newer."""
    for chapter in done:
        os.utime(run / f"{chapter}.ipynb")
        os.utime(run / chapter / "values.json")


def _equal(run: Path, record: dict, copy: Path, wished: dict) -> bool:
    facts, chapter = record["provenance"], record["chapter"]
    if record.get("left") or facts["sources"] != chapters.sources(chapter):
        return False
    if stale.altered(copy.parent, chapter):
        return False
    same = _asked(copy, record).items() ^ wished.items()
    if any(name not in provenance.MACHINE for name, _ in same):
        return False
    places = {name: (run / name, chapters.ROOT / name) for name in facts["files"]}
    found = {name: next((p for p in both if p.is_file()), None) for name, both in places.items()}
    return all(
        path is not None and provenance.sha256(path) == facts["files"][name]
        for name, path in found.items()
    )


def _asked(copy: Path, record: dict) -> dict[str, str]:
    """The parameters that an executed copy was given, whole; papermill keeps them in it.  What they
    named on disk stands by its content of then.
    """
    kept = json.loads(copy.read_text())["metadata"].get("papermill", {}).get("parameters", {})
    return _whole(record["chapter"], kept) | record["provenance"].get("given", {})


def _wished(chapter: str, given: dict) -> dict[str, str]:
    """The same of parameters that a run is asked for; what they name on disk by its content."""
    return _whole(chapter, given) | provenance.contents(settings.own(chapter, given))


def _whole(chapter: str, given: dict) -> dict[str, str]:
    whole = chapters.defaults(chapter) | settings.own(chapter, given)
    return {name: json.dumps(value) for name, value in whole.items() if name != "run_dir"}
