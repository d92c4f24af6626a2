"""Which chapters there are, what each depends on, and running them: papermill under Snakemake, then the book."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from lib.paper import params, provenance

ROOT = provenance.repository()


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
    """A value typed on the command line, as the type of the parameter's default; a list in brackets."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the notebook's own check says what is wrong with it


def parse(given: list[str]) -> dict[str, object]:
    """Parameters from "key=value" texts; a name that no chapter declares is refused with the nearest one."""
    known = {name: value for chapter in chapters() for name, value in defaults(chapter).items()}
    parsed = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"run: -p {item!r}: must be name=value")
        if name not in known or name == "run_dir":
            names = sorted(set(known) - {"run_dir"})
            raise ValueError(f"run: -p {name}: no chapter has this parameter{params.nearest(name, names)}")
        parsed[name] = read(text, known[name])
    return parsed


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
def fingerprint(chapter: str) -> str:
    """SHA-256 over everything that a chapter's results depend on, but for its parameters and other chapters."""
    cells = [cell for cell in _notebook(chapter)["cells"] if cell["cell_type"] == "code"]
    files = imported("\n".join("".join(cell["source"]) for cell in cells), set())
    reads = _notebook(chapter)["metadata"].get("paper", {}).get("reads", [])
    for name in reads:
        path = ROOT / name
        files |= {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    digest = hashlib.sha256(source(chapter).read_bytes())
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT)} {provenance.sha256(file)}\n".encode())
    return digest.hexdigest()


def execute(folder: Path, given: dict, only: list[str]) -> bool:
    """Run the chapters that are not up to date, one after the other; True if all that should be there are.

    A chapter that fails does not stop those that do not need it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "run.json"
    config.write_text(json.dumps({"parameters": given, "chapters": only}, indent=1) + "\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "notebooks" / "Snakefile"), "--directory",
               str(folder), "--configfile", str(config), "--cores", "1", "--keep-going", "--nolock", "--quiet",
        "all",
               "--rerun-triggers", "mtime", "params"]  # fmt: skip
    done = subprocess.run(command, check=False).returncode == 0
    if not done and not any(failure(folder, chapter) for chapter in only):
        logs = sorted((folder / ".snakemake" / "log").glob("*.log"))
        raise RuntimeError("run: the workflow itself failed:\n" + (logs[-1].read_text()[-2000:] if logs else "no log"))
    return done


def papermill(source: str, target: str, given: str) -> None:
    """Execute one notebook with progress per cell and the progress its cells print; exit code 1 if it fails.

    The kernel runs in the current folder, on this interpreter.  Its errors are in the executed copy.
    """
    import logging

    import papermill.exceptions

    logging.getLogger("papermill").addHandler(logging.StreamHandler())
    print(f"== {Path(source).stem}", file=sys.stderr)
    try:
        papermill.execute_notebook(
            source, target, json.loads(given), kernel_name="python3", log_output=True, progress_bar=True,
            request_save_on_cell_execute=False, extra_arguments=["--IPKernelApp.log_level=40"],
        )  # fmt: skip
    except papermill.exceptions.PapermillExecutionError:
        sys.exit(1)


def failure(folder: Path, chapter: str) -> str | None:
    """Why a chapter failed in a run, in one line per error; None if it did not."""
    log = folder / "logs" / f"{chapter}.ipynb"
    if (folder / f"{chapter}.ipynb").is_file() or not log.is_file():
        return None
    outputs = [out for cell in json.loads(log.read_text())["cells"] for out in cell.get("outputs", [])]
    errors = [out for out in outputs if out["output_type"] == "error"]
    if not errors:
        return f"{chapter}: stopped before it ended"
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}"


def build_book(folder: Path) -> Path:
    """Build the book of a run and return its index page; nothing is done where nothing changed.

    Warnings of Sphinx are errors; the last lines of its report are the message.
    """
    index = folder / "book" / "_build" / "html" / "index.html"
    stamp = folder / "book" / "fingerprint"
    state = _book_state(folder)
    if index.is_file() and stamp.is_file() and stamp.read_text() == state:
        return index
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(ROOT),
        "--toc",
        str(ROOT / "book/_toc.yml"),
        "--config",
        str(ROOT / "_config.yml"),
        "--path-output",
        str(folder / "book"),
        "-W",
        "-n",
        "--keep-going",
        "--quiet",
    ]
    environment = provenance.environment(PAPER_RUN=str(folder))
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode or not index.is_file():
        report = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise RuntimeError("book: " + "\n".join(report or (done.stdout + done.stderr).splitlines()[-15:]))
    stamp.write_text(state)
    return index


def _book_state(folder: Path) -> str:
    """A digest of all that the book is made of."""
    made = [*folder.glob("*.ipynb"), *folder.glob("logs/*.ipynb"), *folder.glob("*/values.json")]
    texts = [path for path in (ROOT / "book").rglob("*") if path.is_file()]
    code = [*(ROOT / "lib" / "paper").glob("*.py"), ROOT / "_config.yml", *(ROOT / "notebooks").glob("*.ipynb")]
    return "\n".join(f"{path.name} {provenance.sha256(path)}" for path in sorted([*made, *texts, *code]))


if __name__ == "__main__":  # what the Snakefile calls
    papermill(*sys.argv[1:])
