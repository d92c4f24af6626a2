"""The published run: what is kept of a computed chapter, and how a later library is known to leave
it as it is.
"""

from __future__ import annotations

import gzip
import html
import json
import lzma
import shutil
from pathlib import Path

import pandas as pd

from lib import provenance
from lib.paper import chapters, compare, stale, svg

LARGE = 16_000  # bytes of a table or drawing above which its published copy is packed


def publish(run: Path, record: dict) -> Path:
    """Make a chapter of a run the published one; of one computed at the default parameters only its
    values, packed (`compare.QUICK`).

    The new one is made whole beside the old one and then takes its place. Refused: the published
    run itself, and a chapter that has work left.
    """
    chapter, target = record["chapter"], chapters.PUBLISHED / record["chapter"][:2]
    if run.resolve() == chapters.PUBLISHED.resolve():
        raise ValueError(f"publish: {run.name}: is the published run")
    _finished(record)
    if changed := stale.altered(run, chapter):
        raise ValueError(f"publish: {changed[0]}: must be as the run left it: run it again")
    theirs = record["provenance"]["parameters"]
    if all(
        theirs.get(name) == value
        for name, value in chapters.defaults(chapter).items()
        if name not in provenance.MACHINE
    ):
        return quick(target, record)
    part, old = target.with_name(f".part-{target.name}"), target.with_name(f".old-{target.name}")
    if old.is_dir() and not target.is_dir():  # killed between the two renames
        old.rename(target)
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    _copy(run, record, part)
    if (target / compare.QUICK).is_file():
        shutil.copy2(target / compare.QUICK, part)
    if target.is_dir():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _finished(record: dict) -> None:
    if left := record.get("left"):
        raise ValueError(f"publish: {record['chapter']}: {left}: must have nothing left")


def _copy(run: Path, record: dict, target: Path) -> None:
    """What is kept of a chapter: its files, the large ones packed, and its executed copy without
    what papermill and progress bars left, which names folders of the machine, and without its
    figures, which lie beside it.
    """
    chapter = record["chapter"]
    left_out = shutil.ignore_patterns("model", "runs", "*.png", ".*")
    shutil.copytree(run / chapter, target, ignore=left_out)
    notebook = json.loads((run / f"{chapter}.ipynb").read_text())
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if out.get("name") != "stderr"]
    thin = pictures(json.dumps(notebook), target, record["figures"], inside=False)
    _pack(_write(target / f"{chapter}.ipynb", json.loads(thin)))
    for figure in record["figures"].values():
        figure["file"] = _packed(target, figure["file"])
    for table in compare.tables_of(target).values():
        _packed(target, str(table.relative_to(target)))
    for figure in record["figures"].values():
        figure["data"] += "" if (target / figure["data"]).is_file() else ".xz"
    _write(target / "values.json", record)


def _packed(folder: Path, name: str) -> str:
    """The name of a file of `folder` as it is kept: packed by xz where it is large."""
    path = folder / name
    if path.stat().st_size <= LARGE or path.suffix == ".xz":
        return name
    return str(_pack(path).relative_to(folder))


def _pack(path: Path) -> Path:
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    packed = Path(f"{str(path).removesuffix('.gz')}.xz")
    packed.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    path.unlink()
    return packed


def quick(target: Path, record: dict) -> Path:
    """Keep a run at the default parameters in the published folder `target` of its chapter: its
    values; or, where those that stand there are all reproduced, only that its library still gives
    them.
    """
    if confirm(record).empty:
        return target / stale.CONFIRMED
    (target / stale.CONFIRMED).unlink(missing_ok=True)
    return _pack(_write(target / compare.QUICK.removesuffix(".xz"), record))


def confirm(record: dict) -> pd.DataFrame:
    """Note that a later library still gives a published chapter, so that a change which touches
    nothing does not make stale what took a GPU: rows of `compare.check` that say otherwise, none
    if it is noted.

    `record` is of a run at the parameters of the published one, or at the defaults, of which
    compare.QUICK is kept.  Refused: one with work left, and one of which nothing was published.
    """
    _finished(record)
    chapter = record["chapter"]
    frame = compare.check({chapter[:2]: record})
    if frame.empty:
        return pd.DataFrame([{"chapter": chapter[:2], "verdict": "not published so"}])
    bad = frame[~frame.verdict.isin(["reproduced", "not judged"])]
    if bad.empty:
        facts, count = record["provenance"], int((frame.verdict == "reproduced").sum())
        whole = compare.published(record) == compare.record(chapters.PUBLISHED, chapter)
        note = {"values": count, "at": "the paper's parameters" if whole else "its defaults"}
        note |= {name: facts[name] for name in ("commit", "date", "sources")}
        _write(chapters.PUBLISHED / chapter[:2] / stale.CONFIRMED, note)
    return bad


def pictures(copy: str, folder: Path, figures: dict, *, inside: bool) -> str:
    """The JSON text of an executed copy with its figures inside, as computed, or only named, as
    published: each picture then lies once in the repository, in the chapter's `folder`.
    """
    for name, known in figures.items():
        drawing = svg.told(provenance.text(folder / known["file"]), known["alt"])
        named, whole = (
            json.dumps(part)[1:-1]
            for part in (f'<svg data-figure="{html.escape(name)}"></svg>', drawing)
        )
        copy = copy.replace(named, whole) if inside else copy.replace(whole, named)
    return copy


def written(content: dict) -> str:
    """A record as JSON: an item a line, save what an explorer draws, which nobody reads: a line."""
    figures = content.get("figures", {})
    drawn = {name for name, known in figures.items() if known.get("interactive")}
    named = {name: figures[name] | {"interactive": f"\0{name}"} for name in drawn}
    short = content | ({"figures": figures | named} if drawn else {})
    text = json.dumps(short, indent=1, ensure_ascii=False)
    for name in drawn:
        whole = json.dumps(figures[name]["interactive"], ensure_ascii=False)
        text = text.replace(json.dumps(f"\0{name}"), whole)
    return text


def _write(path: Path, content: dict) -> Path:
    with provenance.writing(path) as part:
        part.write_text(written(content) + "\n")
    return path
