"""What a checkout holds: the same bytes everywhere, and nothing that running a notebook leaves."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*arguments: str) -> str:
    line = ["git", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout


def test_a_checkout_has_the_same_bytes_where_line_ends_are_converted(tmp_path):
    names = ["data/manifest.csv", "data/model/training_with.csv", "data/published/step.csv"]
    wished = git("-c", "core.autocrlf=true", "check-attr", "text", "--", *names).splitlines()
    assert wished == [f"{name}: text: unset" for name in names]


def test_what_a_notebook_leaves_beside_itself_is_ignored():
    left = ["notebooks/04_network/values.json", "04_network/figures/levels.png"]
    assert git("check-ignore", "--no-index", *left).splitlines() == left
    tracked = [name for name in git("ls-files").splitlines() if name]
    assert git("check-ignore", "--no-index", *tracked) == ""
