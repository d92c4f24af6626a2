"""The exchange alone, from the command line."""

import json
import re
import subprocess
import sys

import pytest
from bad_input import typed

LEVELS = ["0.0", "0.3", "0.6", "0.9"]
FLAGS = ["--num_tokens", "2048", "--num_experts", "32", "--imbalance_levels", *LEVELS]


def called(folder, *flags):
    return subprocess.run(
        [sys.executable, "-m", "lib", "simulate", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_flags_of_the_readme(tmp_path):
    done = called(tmp_path, *FLAGS)
    assert done.returncode == 0, done.stderr
    *table, first, second = done.stdout.splitlines()
    assert first == "results/simulation/simulation_results.json"
    assert (tmp_path / second).read_bytes().startswith(b"\x89PNG")
    known = json.loads((tmp_path / first).read_text())
    assert known["parameters"]["imbalance_levels"] == [0.0, 0.3, 0.6, 0.9]
    slowdown = [row["slowdown"] for row in known["levels"] if row["fabric"] == "one NVLink node"]
    assert slowdown == sorted(slowdown) and slowdown[0] == 0
    assert len(table) == 1 + len(known["levels"])


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--imbalance_levels", "0.99"], "simulate: .*level.*0.99"),
        (["--seeds", "1"], r"simulate: 04_network: seeds = 1"),
        (["--num_token", "5"], "unrecognized arguments: --num_token"),
        (["--num_tokens", "many"], "argument --num_tokens: invalid int value"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    told = typed("simulate", *flags)
    assert re.search(line, told) and not told.startswith("exit code")
    assert not list(tmp_path.iterdir())
