"""What changed since a chapter of a run was computed."""

from __future__ import annotations

import json
from pathlib import Path

from lib import provenance
from lib.paper import chapters, settings

CONFIRMED = "confirmed.json"  # see publish.confirm
NOTED = "made.json"  # see note
GOES_ON = ("model", "runs")  # folders of a chapter that it changes when it goes on


def since(run: Path, record: dict) -> list[str]:
    """What changed since a chapter of a run was computed: names of files and of parameters; empty
    if nothing did.
    """
    facts, chapter = record["provenance"], record["chapter"]
    now = chapters.sources(chapter) if chapters.source(chapter).is_file() else {}
    states = facts["sources"], confirmed(run, chapter).get("sources", facts["sources"])
    changed = min(
        (
            {
                name
                for name in now.keys() | then.keys()
                if now.get(name) != then.get(name) and not chapters.looks(name)
            }
            for then in states
        ),
        key=len,
    )
    for name, sha in facts["files"].items():
        own = Path(name).parts[1:]  # below the chapter's folder, whose published name is its number
        places = [run / name, run.joinpath(name[:2], *own), chapters.ROOT / name]
        path = next((place for place in places if place.is_file()), None)
        changed |= {name} if path is None or provenance.sha256(path) != sha else set()
    changed |= set(altered(run, chapter))
    wished = asked(run)
    if wished is not None and now:
        wanted = chapters.defaults(chapter) | json.loads(settings.of(chapter, wished))
        changed |= {f"parameter {name}" for name in _others(facts, wanted)}
    return sorted(changed)


def _others(facts: dict, wanted: dict) -> list[str]:
    """The parameters that are not what a chapter was computed with; what one names on disk counts
    by its content, wherever it lies.
    """
    given, here = facts.get("given", {}), provenance.contents(wanted)
    return [
        name
        for name, value in wanted.items()
        if name not in provenance.MACHINE
        and (
            given.get(name) != here.get(name)
            or (name not in given and provenance.portable(value) != facts["parameters"].get(name))
        )
    ]


def note(run: Path, chapter: str) -> None:
    """Note the files that a chapter of a run left, by their SHA-256, as it left them."""
    known = _noted(run) | {chapter: _files(run, chapter)}
    with provenance.writing(run / NOTED) as part:
        part.write_text(json.dumps(known, indent=1) + "\n")


def altered(run: Path, chapter: str) -> list[str]:
    """The files of a chapter that are no longer as it left them; none where that is not noted."""
    then = _noted(run).get(chapter)
    if then is None:
        return []
    now = _files(run, chapter)
    return sorted(name for name, sha in then.items() if now.get(name) != sha)


def _noted(run: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((run / NOTED).read_text()) if (run / NOTED).is_file() else {}
    except ValueError:
        return {}


def _files(run: Path, chapter: str) -> dict[str, str]:
    """What other chapters and pages read of a chapter's folder; not what it goes on with."""
    home = run / chapter
    paths = [path for path in sorted(home.rglob("*")) if path.is_file()]
    kept = [path for path in paths if path.relative_to(home).parts[0] not in GOES_ON]
    return {path.relative_to(run).as_posix(): provenance.sha256(path) for path in kept}


def confirmed(run: Path, chapter: str) -> dict:
    """Of a published chapter, the later commit and sources that were seen to leave its values as
    they are; else empty.
    """
    file = run / chapter[:2] / CONFIRMED
    return json.loads(file.read_text()) if file.is_file() else {}


def asked(run: Path) -> dict | None:
    """The parameters that a run was last asked for; for the published run those of its file; None
    if not known.
    """
    if run == chapters.PUBLISHED:
        return settings.load("paper")
    config = run / "run.json"
    try:
        return json.loads(config.read_text())["parameters"] if config.is_file() else None
    except ValueError:  # half-written, by a run that ended with the power or the disk
        return None
