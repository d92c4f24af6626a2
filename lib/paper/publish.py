"""The published run: what is kept of a computed chapter, and how a later library is known to leave
it as it is.
"""

from __future__ import annotations

import base64
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

from PIL import Image

from lib import provenance
from lib.paper import chapters, compare, stale

LARGE = 80_000  # bytes of a table above which its published copy is compressed


def publish(run: Path, record: dict) -> Path:
    """Make a chapter of a run the published one; of one computed at the default parameters only its
    values, quick.json.

    Its executed copy is kept without what papermill and progress bars left, which names folders of
    the machine, and without its figures, which lie beside it; large tables are compressed, pictures
    shrunk.
    """
    chapter, target = record["chapter"], chapters.PUBLISHED / record["chapter"][:2]
    target.mkdir(parents=True, exist_ok=True)
    theirs = record["provenance"]["parameters"]
    if all(
        theirs[name] == value
        for name, value in chapters.defaults(chapter).items()
        if name not in provenance.MACHINE
    ):
        return confirm(target, record)
    (target / stale.CONFIRMED).unlink(missing_ok=True)
    shutil.copytree(
        run / chapter,
        target,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("model", "runs", ".*"),
    )
    for table in [
        path
        for path in target.rglob("*.csv*")
        if path.stat().st_size > LARGE and path.suffix != ".xz"
    ]:
        content = (
            gzip.decompress(table.read_bytes()) if table.suffix == ".gz" else table.read_bytes()
        )
        Path(f"{str(table).removesuffix('.gz')}.xz").write_bytes(lzma.compress(content, preset=9))
        table.unlink()
    for figure in record["figures"].values():
        figure["data"] += "" if (target / figure["data"]).is_file() else ".xz"
    _write(target / "values.json", record)
    notebook = json.loads((run / f"{chapter}.ipynb").read_text())
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if out.get("name") != "stderr"]
    text = pictures(json.dumps(notebook), target, record["figures"], inside=False)
    _write(target / f"{chapter}.ipynb", json.loads(text))
    for image in target.rglob("*.png"):
        shrink(image)
    return target


def confirm(target: Path, record: dict) -> Path:
    """Keep a run at the default parameters in the published folder `target` of its chapter: its
    values; or, where those that stand there are all reproduced, only that its library still gives
    them, so that a change which touches nothing does not make stale what took a GPU.
    """
    frame = compare.check({record["chapter"][:2]: record})
    if len(frame) and frame.verdict.isin(["reproduced", "not judged"]).all():
        facts = record["provenance"]
        count = int((frame.verdict == "reproduced").sum())
        return _write(
            target / stale.CONFIRMED,
            {"values": count} | {name: facts[name] for name in ("commit", "date", "sources")},
        )
    (target / stale.CONFIRMED).unlink(missing_ok=True)
    return _write(target / "quick.json", record)


def pictures(copy: str, folder: Path, figures: dict, *, inside: bool) -> str:
    """The JSON text of an executed copy with its figures inside, as computed, or only named, as
    published: each picture then lies once in the repository, in the chapter's `folder`.
    """
    for known in figures.values():
        content = base64.b64encode((folder / known["file"]).read_bytes()).decode()
        forms = [
            json.dumps(f'src="{source}"')[1:-1]
            for source in (known["file"], f"data:image/png;base64,{content}")
        ]
        copy = copy.replace(*(forms if inside else forms[::-1]))
    return copy


def shrink(image: Path) -> None:
    """Rewrite a PNG with at most 256 colours, a third of its size: enough for lines, areas and
    their edges.
    """
    part = image.with_suffix(".part")
    Image.open(image).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        part, "PNG", optimize=True
    )
    os.replace(part, image)


def _write(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path
