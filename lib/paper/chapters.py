"""Which chapters there are, and what each depends on."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from lib import provenance

ROOT = provenance.repository()
PUBLISHED = ROOT / "data" / "reference"
BUDGET_S = 120.0  # of a chapter that states none
# files of lib/paper, by the first word of their names, on which no value depends: they say how a
# result looks, or refuse a parameter
LOOKS = ("columns", "markup", "plots", "ranges", "svg")


def source(chapter: str) -> Path:
    """The notebook of a chapter."""
    return ROOT / "notebooks" / f"{chapter}.ipynb"


def names() -> list[str]:
    """Names of all chapters, in order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@cache
def _notebook(chapter: str) -> dict:
    return json.loads(source(chapter).read_text())


def cells(chapter: str) -> list[dict]:
    """The cells of a chapter's notebook."""
    return _notebook(chapter)["cells"]


def _says(chapter: str) -> dict:
    return _notebook(chapter)["metadata"].get("paper", {})


def needs(chapter: str) -> list[str]:
    """The chapters whose results a chapter reads, as its metadata say."""
    return _says(chapter).get("needs", [])


def follows(chapter: str) -> list[str]:
    """The chapters whose results a chapter reads where there are any, as its metadata say: of those
    that run together with it, it comes after them; else it takes what is published.
    """
    return _says(chapter).get("follows", [])


def with_needs(wanted: list[str]) -> list[str]:
    """Chapters and all that they need, directly or not, in order."""
    found = set(wanted)
    while more := {name for chapter in found for name in needs(chapter)} - found:
        found |= more
    return sorted(found)


def before(chapter: str) -> list[str]:
    """The chapters that a chapter needs or follows."""
    return [*needs(chapter), *follows(chapter)]


def reads(chapter: str) -> list[str]:
    """The files and folders of the repository that a chapter reads, as its metadata say."""
    return _says(chapter).get("reads", [])


def on_gpu(chapter: str) -> bool:
    """Whether a chapter's metadata say that the paper's parameters ask for a GPU: `"gpu": true`."""
    return _says(chapter).get("gpu", False)


def declares(chapter: str, name: str) -> bool:
    """Whether a chapter says that it reads a file of the repository, itself or as a result of a
    chapter that it needs or follows; one that is no notebook here says nothing and may read all.
    """
    if not source(chapter).is_file():
        return True
    places = [*reads(chapter), *(f"data/reference/{other[:2]}" for other in before(chapter))]
    return any(name == place or name.startswith(f"{place}/") for place in places)


def budget_s(chapter: str) -> float:
    """The seconds that a chapter may take at its defaults on two idle cores, by its metadata."""
    return _says(chapter).get("budget_s", BUDGET_S)


def parameters_cell(chapter: str) -> str:
    """The source of the cell tagged `parameters`."""
    for cell in cells(chapter):
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"])
    raise ValueError(f"chapters: {chapter}: must have a cell tagged parameters")


def defaults(chapter: str) -> dict[str, object]:
    """The parameters of a chapter with their defaults: the literals of its `parameters` cell."""
    return {name: ast.literal_eval(value) for name, value in _assigned(chapter)}


@cache
def _assigned(chapter: str) -> list[tuple[str, ast.expr]]:
    tree = ast.parse(parameters_cell(chapter))
    pairs = [(node.targets[0], node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return [(ast.unparse(name), value) for name, value in pairs]


@cache
def modules(code: str) -> frozenset[str]:
    """The modules of lib, and what is taken from them, that a piece of Python imports itself."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.startswith("lib."))


def imported(code: str, seen: set[Path]) -> set[Path]:
    """All files of lib that a piece of Python imports, directly or not, added to `seen`."""
    for name in modules(code):
        path = ROOT / (name.replace(".", "/") + ".py")
        if path.is_file() and path not in seen:
            seen.add(path)
            imported(path.read_text(), seen)
    return seen


def looks(name: str) -> bool:
    """Whether a file of the repository leaves every value as it is, as `LOOKS` says."""
    path = Path(name)
    return path.parent == Path("lib/paper") and path.stem.split("_")[0] in LOOKS


@cache
def sources(chapter: str) -> dict[str, str]:
    """SHA-256 of all that a chapter's values depend on: its code cells (not its prose), the lib
    files they import, its data.

    What only says how they look (`looks`) does not count: a page keeps the figures and tables that
    its run drew, and a run that shall draw them anew is removed (`python -m lib clean`) and made
    again.
    """
    code = [cell for cell in cells(chapter) if cell["cell_type"] == "code"]
    files = imported("\n".join("".join(cell["source"]) for cell in code), set())
    for name in reads(chapter):
        path = ROOT / name
        files |= {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    own = json.dumps([[cell["source"], cell["metadata"].get("tags", [])] for cell in code])
    notebook = {f"notebooks/{chapter}.ipynb": hashlib.sha256(own.encode()).hexdigest()}
    places = {file.relative_to(ROOT).as_posix(): file for file in sorted(files)}
    return notebook | {
        name: provenance.sha256(file) for name, file in places.items() if not looks(name)
    }


def fingerprint(chapter: str) -> str:
    """SHA-256 over `sources`: changes when a chapter must run again though its parameters stay."""
    return hashlib.sha256(json.dumps(sources(chapter)).encode()).hexdigest()
