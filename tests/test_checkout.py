"""What a checkout holds: the same bytes everywhere, and nothing that running a notebook leaves."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*arguments: str) -> str:
    line = ["git", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout


def test_a_checkout_has_the_same_bytes_where_line_ends_are_converted(tmp_path):
    names = ["data/manifest.csv", "data/model/training_with.csv.xz", "data/published/step.csv"]
    wished = git("-c", "core.autocrlf=true", "check-attr", "text", "--", *names).splitlines()
    assert wished == [f"{name}: text: unset" for name in names]


def test_what_a_notebook_leaves_beside_itself_is_ignored():
    left = ["notebooks/04_network/values.json", "04_network/figures/levels.png"]
    assert git("check-ignore", "--no-index", *left).splitlines() == left
    tracked = [name for name in git("ls-files").splitlines() if name]
    assert git("check-ignore", "--no-index", *tracked) == ""


def test_the_tree_in_the_readme_is_the_tree():
    """Every entry of the root and every folder below lib, and nothing that is not there."""
    block = (ROOT / "README.md").read_text().split("```")[3]
    told, parent = set(), ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        parent = "" if not line.startswith(" ") else parent
        told.add(parent + name)
        parent = name if not line.startswith(" ") else parent
    assert [name for name in told if not (ROOT / name).exists()] == []
    tracked = [name for name in git("ls-files").splitlines() if not name.startswith(".")]
    tops = {name.partition("/")[0] + ("/" if "/" in name else "") for name in tracked}
    assert tops - {"README.md"} == {name for name in told if "/" not in name.rstrip("/")}
    inside = [name.split("/") for name in tracked if name.startswith("lib/")]
    rooms = {f"lib/{part[1]}" + ("/" if len(part) > 2 else "") for part in inside}
    assert rooms - {"lib/__init__.py", "lib/__main__.py"} == {
        name for name in told if name.startswith("lib/") and name != "lib/"
    }
