"""Which chapters there are, what each depends on, and running them: papermill under Snakemake, then
the book.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import filelock
import yaml

from lib import provenance

ROOT = provenance.repository()
PARAMS = ROOT / "notebooks" / "params"
PUBLISHED = ROOT / "data" / "reference"
CONFIRMED = "confirmed.json"  # see publish.confirm
RUNNER = "lib/paper/workflow.py"  # this file runs chapters and computes nothing in them


def source(chapter: str) -> Path:
    """The notebook of a chapter."""
    return ROOT / "notebooks" / f"{chapter}.ipynb"


def chapters() -> list[str]:
    """Names of all chapters, in order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@cache
def _notebook(chapter: str) -> dict:
    return json.loads(source(chapter).read_text())


def needs(chapter: str) -> list[str]:
    """The chapters whose results a chapter reads, as its metadata say."""
    return _notebook(chapter)["metadata"].get("paper", {}).get("needs", [])


def defaults(chapter: str) -> dict[str, object]:
    """The parameters of a chapter with their default values: the literals of its `parameters` cell."""
    for cell in _notebook(chapter)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            tree = ast.parse("".join(cell["source"]))
            return {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body}
    raise ValueError(f"workflow.defaults: {chapter}: must have a cell tagged parameters")


def read(text: str, default: object) -> object:
    """A value typed on the command line, as the type of the parameter's default; a list in
    brackets.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the notebook's own check says what is wrong with it


def known() -> dict[str, object]:
    """Every parameter that a chapter declares, with its default, save `run_dir`, which a run sets
    itself.
    """
    found = {name: value for chapter in chapters() for name, value in defaults(chapter).items()}
    return {name: value for name, value in found.items() if name != "run_dir"}


def parse(given: list[str]) -> dict[str, object]:
    """Parameters from "key=value" texts; a name that no chapter declares is refused with the
    nearest one.
    """
    parsed = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"run: -p {item!r}: must be name=value")
        parsed[name] = read(text, _declared(name, "-p")[name])
    return parsed


def load(file: str) -> dict[str, object]:
    """Parameters from a YAML file of names and values, given by its path or by its name below
    notebooks/params.
    """
    path = next(
        (p for p in (Path(file), PARAMS / file, PARAMS / f"{file}.yml") if p.is_file()), None
    )
    if path is None:
        names = [p.stem for p in PARAMS.glob("*.yml")]
        raise ValueError(
            f"run: --params {file}: no such file, nor one in notebooks/params{provenance.nearest(file, names)}"
        )
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"run: --params {file}: must be YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"run: --params {file}: holds a {type(content).__name__}: must be names with values"
        )
    for name in content:
        _declared(str(name), f"--params {file}:")
    return content


def _declared(name: str, where: str) -> dict[str, object]:
    names = known()
    if name not in names:
        hint = provenance.nearest(name, sorted(names))
        raise ValueError(f"run: {where} {name}: no chapter has this parameter{hint}")
    return names


def settings(chapter: str, given: dict) -> str:
    """The given parameters that a chapter declares, as JSON (which papermill reads as YAML)."""
    own = defaults(chapter)
    return json.dumps({name: value for name, value in given.items() if name in own}, sort_keys=True)


def imported(code: str, seen: set[Path]) -> set[Path]:
    """All files of lib that a piece of Python imports, directly or through others, added to `seen`."""
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] == "lib" and path.is_file() and path not in seen:
                seen.add(path)
                imported(path.read_text(), seen)
    return seen


@cache
def sources(chapter: str) -> dict[str, str]:
    """SHA-256 of every file that a chapter's results depend on: its notebook, the lib files it
    imports, its data.
    """
    cells = [cell for cell in _notebook(chapter)["cells"] if cell["cell_type"] == "code"]
    files = imported("\n".join("".join(cell["source"]) for cell in cells), {source(chapter)})
    for name in _notebook(chapter)["metadata"].get("paper", {}).get("reads", []):
        path = ROOT / name
        files |= {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    names = {file.relative_to(ROOT).as_posix(): file for file in sorted(files)}
    return {name: provenance.sha256(file) for name, file in names.items() if name != RUNNER}


def fingerprint(chapter: str) -> str:
    """SHA-256 over `sources`: changes when a chapter must run again though its parameters stay."""
    return hashlib.sha256(json.dumps(sources(chapter)).encode()).hexdigest()


def stale(run: Path, record: dict) -> list[str]:
    """What changed since a chapter of a run was computed: names of files and of parameters; empty
    if nothing did.
    """
    facts, chapter = record["provenance"], record["chapter"]
    now = sources(chapter) if source(chapter).is_file() else {}
    states = facts["sources"], confirmed(run, chapter).get("sources", facts["sources"])
    changed = min(
        (
            {
                name
                for name in (now.keys() | then.keys()) - {RUNNER}
                if now.get(name) != then.get(name)
            }
            for then in states
        ),
        key=len,
    )
    for name, sha in facts["files"].items():
        places = [run / name, run / name[:2] / Path(name).name, ROOT / name]
        path = next((place for place in places if place.is_file()), None)
        changed |= {name} if path is None or provenance.sha256(path) != sha else set()
    given = asked(run)
    if given is not None and now:
        wanted = defaults(chapter) | json.loads(settings(chapter, given))
        changed |= {
            f"parameter {name}"
            for name, value in wanted.items()
            if name not in provenance.MACHINE and value != facts["parameters"].get(name)
        }
    return sorted(changed)


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
    if run == PUBLISHED:
        return load("paper")
    config = run / "run.json"
    return json.loads(config.read_text())["parameters"] if config.is_file() else None


def execute(folder: Path, given: dict, only: list[str], *, jobs: int = 1, origin: str = "") -> bool:
    """Run the chapters that are not up to date, `jobs` at a time on equal shares of the cores; True
    if all that should be there are.

    A chapter that fails does not stop those that do not need it.  What an interrupted run left
    half-done is done again. `origin` names the file of the parameters, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "run.json"
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    threads = max(1, cores // jobs)
    content = {
        "name": folder.name,
        "parameters": given,
        "parameters_file": origin,
        "chapters": only,
        "threads": threads,
    }
    config.write_text(json.dumps(content, indent=1) + "\n")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "notebooks" / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(config),
        "--cores",
        str(jobs * threads),
        "--keep-going",
        "--nolock",
        "--rerun-incomplete",
        "--quiet",
        "all",
        "--rerun-triggers",
        "mtime",
        "params",
    ]
    environment = provenance.environment(PAPER_RUN_NAME=folder.name, PAPER_PARAMETERS_FILE=origin)
    done = subprocess.run(command, check=False, env=environment).returncode == 0
    if not done and not any(failure(folder, chapter) for chapter in only):
        logs = sorted((folder / ".snakemake" / "log").glob("*.log"))
        raise RuntimeError(
            "run: the workflow itself failed:\n"
            + (logs[-1].read_text()[-2000:] if logs else "no log")
        )
    return done


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold a run for this process.  The lock goes with the process, so one that was killed leaves
    none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"run: {folder.name}: is being computed by another process") from None
    try:
        yield
    finally:
        lock.release()


def papermill(source: str, target: str, given: str) -> None:
    """Execute one notebook with progress per cell and the progress its cells print; exit code 1 if
    it fails.

    The kernel runs in the current folder, on this interpreter.  Its errors are in the executed
    copy.
    """
    import logging

    import papermill.exceptions

    logging.getLogger("papermill").addHandler(logging.StreamHandler())
    print(f"== {Path(source).stem}", file=sys.stderr)
    try:
        papermill.execute_notebook(
            source,
            target,
            json.loads(given),
            kernel_name="python3",
            log_output=True,
            progress_bar=True,
            request_save_on_cell_execute=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except papermill.exceptions.PapermillExecutionError:
        sys.exit(1)


def failure(folder: Path, chapter: str) -> str | None:
    """Why a chapter failed in a run, in one line per error; None if it did not."""
    log = folder / "logs" / f"{chapter}.ipynb"
    if (folder / f"{chapter}.ipynb").is_file() or not log.is_file():
        return None
    outputs = [
        out for cell in json.loads(log.read_text())["cells"] for out in cell.get("outputs", [])
    ]
    errors = [out for out in outputs if out["output_type"] == "error"]
    if not errors:
        return f"{chapter}: stopped before it ended"
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}"


def build_book(run: Path, folder: Path) -> Path:
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
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(ROOT),
        "--toc",
        str(ROOT / "book/_toc.yml"),
        "--config",
        str(ROOT / "_config.yml"),
        "--path-output",
        str(part),
        "-W",
        "-n",
        "--keep-going",
        "--quiet",
    ]
    environment = provenance.environment(PAPER_RUN=str(run))
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    if done.returncode or not (part / "_build" / "html" / "index.html").is_file():
        report = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if "WARNING" in line or "ERROR" in line
        ]
        raise RuntimeError(
            "book: " + "\n".join(report or (done.stdout + done.stderr).splitlines()[-15:])
        )
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    stamp.write_text(state)
    return index


def _book_state(run: Path) -> str:
    """A digest of all that the book is made of."""
    made = [
        path
        for pattern in ("*.ipynb", "*/*.ipynb", "*/values.json", "run.json")
        for path in run.glob(pattern)
    ]
    texts = [path for path in (ROOT / "book").rglob("*") if path.is_file()]
    code = [
        *(ROOT / "lib").rglob("*.py"),
        ROOT / "_config.yml",
        *(ROOT / "notebooks").glob("*.ipynb"),
        *PARAMS.glob("*.yml"),
    ]
    data = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    files = sorted({*made, *texts, *code, *data})
    return "\n".join(f"{path.name} {provenance.sha256(path)}" for path in files)


if __name__ == "__main__":  # what the Snakefile calls
    papermill(*sys.argv[1:])
