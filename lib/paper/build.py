"""The book of a run: Jupyter Book, built from nothing and put in place when it is whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from lib import provenance
from lib.paper import chapters, settings

# Jupyter Book's command line; jsonschema would compile its grammars for 3 seconds, for formats that
# no configuration has
BUILDER = """import sys
sys.modules["rfc3987_syntax"] = None
from jupyter_book.cli.main import main
main()"""


def book(run: Path, folder: Path) -> Path:
    """Build the book of a run in a folder and return its index page; nothing is done where nothing
    changed.

    It is built from nothing, so that equal inputs give equal bytes, and takes the place of the old
    one when it is whole. Warnings of Sphinx are errors; their lines of its report are the message.
    """
    index, stamp = folder / "_build" / "html" / "index.html", folder / "fingerprint"
    state = _book_state(run)
    if index.is_file() and stamp.is_file() and stamp.read_text() == state:
        return index
    part = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        BUILDER,
        "build",
        str(chapters.ROOT),
        "--toc",
        str(chapters.ROOT / "book/_toc.yml"),
        "--config",
        str(chapters.ROOT / "_config.yml"),
        "--path-output",
        str(part),
        "-W",
        "-n",
        "--keep-going",
        "--quiet",
    ]
    environment = provenance.environment(PAPER_RUN=str(run), PYTHONUTF8="1")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=chapters.ROOT
    )
    if done.returncode or not (part / "_build" / "html" / "index.html").is_file():
        shutil.rmtree(part, ignore_errors=True)
        raise RuntimeError(f"book: {_cause(done.stdout + done.stderr)} (exit {done.returncode})")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    stamp.write_text(state)
    return index


def _cause(said: str) -> str:
    """Of what the builder said: what the system refused it, else its warnings and errors, else the
    first exception that says something, else its last line.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip(" =-^~\x1b[0m19")]
    report = [line for line in lines if "WARNING" in line or "ERROR" in line]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception): \S", line)]
    system = [line for line in lines if "[Errno " in line]
    return "\n".join(system[:1] or report or raised[:1] or lines[-1:] or ["it said nothing"])


def _book_state(run: Path) -> str:
    """A digest of all that the book is made of."""
    made = [
        path
        for pattern in ("*.ipynb", "*/*.ipynb.xz", "*/values.json", "run.json")
        for path in run.glob(pattern)
    ]
    texts = [path for path in (chapters.ROOT / "book").rglob("*") if path.is_file()]
    code = [
        *(chapters.ROOT / "lib").rglob("*.py"),
        chapters.ROOT / "_config.yml",
        *(chapters.ROOT / "notebooks").glob("*.ipynb"),
        *settings.PARAMS.glob("*.yml"),
    ]
    data = [path for path in (chapters.ROOT / "data").rglob("*") if path.is_file()]
    files = sorted({*made, *texts, *code, *data})
    return "\n".join(f"{path.name} {provenance.sha256(path)}" for path in files)
