"""The house: who may import whom, what a reader meets on one page, and what may be committed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "lib").rglob("*.py") if path.name != "__init__.py")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LEAVES = {"choices", "provenance", "stats"}  # importable by all; they import nothing of lib
# per room: what it may import beside itself and the leaves, a room or one of its modules
MAY = {
    "model": set(),
    "routing": set(),
    "balance": {"model", "routing.adapter", "routing.scoring"},
    "network": set(),
    "measure": {"network.cost", "network.placement", "network.synthetic", "network.traffic"},
    "engines": set(),
    "paper": set(),
    "commands": {"model", "routing", "balance", "network", "measure", "engines", "paper"},
    "__main__": {"paper", "commands"},
}
OWNERS = {
    "torch": (
        "model/",
        "routing/",
        "balance/",
        "measure/collectives",
        "measure/clock",
        "measure/native",
        "measure/parallel",
        "commands/",
    ),
    "matplotlib": ("paper/plots", "paper/svg"),
    "seaborn": ("paper/plots",),
    "sphinx": ("paper/sphinxext.py", "paper/roles.py"),
    "docutils": ("paper/sphinxext.py", "paper/roles.py", "paper/glossary.py"),
    "plotly": ("paper/",),
    "beartype": (),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports(path):
    own = path.relative_to(ROOT / "lib")
    room = own.parts[0].removesuffix(".py")
    allowed = {"lib"} | {f"lib.{name}" for name in MAY.get(room, set()) | LEAVES | {room}}
    if room in LEAVES:
        allowed = {"lib"}
    inside = {module(known) for known in FILES} | {f"lib.{name}" for name in MAY}
    for name in imports(path):
        if name in inside and name != "lib":
            ends = [name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)]
            part_of_allowed = any(known.startswith(f"{name}.") for known in allowed)
            assert part_of_allowed or set(ends) & (allowed - {"lib"}), f"{own} imports {name}"
        top = name.split(".")[0]
        if top in OWNERS:
            assert own.as_posix().startswith(OWNERS[top]), f"{own} imports {name}"


def test_no_circle():
    arrows = {module(path): imports(path) & {module(p) for p in FILES} for path in FILES}
    while arrows:
        ends = [name for name, needed in arrows.items() if not needed & arrows.keys()]
        assert ends, f"a circle among {sorted(arrows)}"
        for name in ends:
            del arrows[name]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_file_is_one_idea(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name}: a body of {lines} lines"


def test_layout_is_not_switched_off():
    own = [*(ROOT / "lib").rglob("*.py"), *(ROOT / "tests").glob("*.py"), *NOTEBOOKS]
    marks = [
        path.name for path in own for _ in re.findall(r"# fmt: (?:skip|off)", path.read_text())
    ]
    assert len(marks) - 1 <= 10, marks  # one is this test's own pattern


def statements(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - sum(
        isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_does_one_thing(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in code:
        assert not cell["outputs"] and cell["execution_count"] is None
        tree = ast.parse("".join(cell["source"]))
        assert not any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
        if "parameters" not in cell["metadata"].get("tags", []):
            assert statements(tree) <= 10, "".join(cell["source"])[:200]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_its_parts(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parameters = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    source = "".join(parameters[0]["source"])
    names = {node.targets[0].id for node in ast.parse(source).body}
    assert {"device", "seed", "run_dir"} <= names
    assert source.count("#") >= len(names)
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    parts = ("**Question.**", "**Answer.**", "What this does not show", "chapter.close()")
    assert all(part in text for part in parts)


def test_the_tree_can_travel():
    assert sum(path.stat().st_size for path in tracked()) < 35 * 2**20


def test_no_path_of_a_machine_is_committed():
    pattern = re.compile(rb"(?<![\w.])/(?:work|farm|root|home|tmp)/[\w.]")
    kinds = (".py", ".md", ".ipynb", ".yml", ".toml", ".json", ".csv", ".sh", ".txt", "")
    for path in tracked():
        if path.suffix in kinds:
            assert not pattern.search(path.read_bytes()), path


@pytest.mark.parametrize(
    "tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join
)
def test_style(tool):
    paths = [] if tool[0] == "mypy" else ["lib", "tests", "notebooks", "data"]
    done = subprocess.run(
        [sys.executable, "-m", *tool, *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
