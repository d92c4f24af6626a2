"""The command line and what runs again: as a user types it."""

import json
import shutil

import pytest
from conftest import ROOT, TINY, command

from lib.paper import workflow


def flags(*more: str) -> list[str]:
    return [part for item in (*TINY, *more) for part in ("-p", item)]


def test_misspelt_and_malformed_parameters_are_one_line():
    for given, message in [
        ("num_experst=64", "run: -p num_experst: no chapter has this parameter (did you mean num_experts?)"),
        ("num_experts", "run: -p 'num_experts': must be name=value"),
        ("run_dir=x", "run: -p run_dir: no chapter has this parameter"),
    ]:
        done = command("run", "--name", "refused", "-p", given)
        assert done.returncode == 2 and done.stderr.strip() == message
    assert command("run", "--only", "77").stderr.startswith("run: --only '77': must be one of 00, 01")
    assert command("run", "--name", "../x").returncode == 2
    assert not (ROOT / "_build/runs/refused").exists()


def test_values_are_read_as_their_parameter_is():
    given = workflow.parse(["num_experts=64", "imbalance_levels=[0.0, 0.3]", "model=64", "allow_partial=true"])
    assert given == {"num_experts": 64, "imbalance_levels": [0.0, 0.3], "model": "64", "allow_partial": True}
    assert json.loads(workflow.settings("04_network", given)) == {"imbalance_levels": [0.0, 0.3], "num_experts": 64}


def test_fingerprint_follows_imports_and_data():
    files = {path.relative_to(ROOT).as_posix() for path in workflow.imported("from lib.balance import train", set())}
    assert {"lib/balance/train.py", "lib/stats.py", "lib/routing/adapter.py"} <= files
    assert not any(name.startswith("lib/network") for name in files)
    assert workflow.needs("04_network") == ["01_profile"]


def test_only_what_changed_runs_again(tiny_run):
    again = command("run", "--name", "tests", *flags())
    assert again.returncode == 0 and "==" not in again.stderr and "Execut" not in again.stderr
    changed = command("run", "--name", "tests", *flags("num_experts=64"))
    ran = [line for line in changed.stderr.splitlines() if line.startswith("==")]
    assert changed.returncode == 0 and ran == ["== 04_network"]
    result = json.loads((tiny_run / "04_network/simulation_results.json").read_text())
    assert result["parameters"]["num_experts"] == 64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("num_tokens=-3", "num_tokens = -3: must be a whole number ≥ 1"),
        ("imbalance_levels=[0.0,1.5]", "imbalance_levels = [0.0, 1.5]: must be a list"),
        ("imbalance_levels=[0.0,0.95]", "level = 0.95: must be from 0 to below 0.9375"),
        ("trace=nowhere.npz", "nowhere.npz"),
    ],
)
def test_a_bad_value_is_one_line_and_writes_nothing(tmp_path, given, message):
    done = command("run", "--name", "bad", "--only", "04", "-p", given)
    folder = ROOT / "_build/runs/bad"
    try:
        lines = [line for line in done.stderr.splitlines() if "failed" in line]
        assert done.returncode == 1 and len(lines) == 1 and message in lines[0]
        assert not (folder / "04_network").exists() or not list((folder / "04_network").glob("*.*"))
        page = (folder / "book/_build/html/notebooks/04_network.html").read_text()
        assert "must be" in page or "not a trace" in page or "No such file" in page
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_notebook_runs_alone_from_any_folder(tmp_path):
    import subprocess
    import sys

    source = ROOT / "notebooks/04_network.ipynb"
    command_line = [sys.executable, "-m", "papermill", str(source), "out.ipynb", "-p", "num_tokens", "256", "-p",
                    "num_experts", "32", "-p", "seeds", "20", "-k", "python3"]  # fmt: skip
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "04_network/simulation_results.json").read_text())
    assert found["parameters"]["num_tokens"] == 256 and len(found["levels"]) == 8
    assert (tmp_path / "04_network/communication_comparison.png").stat().st_size > 10_000


def test_another_model_is_profiled_and_its_routes_go_on(tiny_model, tmp_path):
    """A folder with a model of any size; what the book says of the embedded pair is then not available."""
    from lib.model import load

    resized = tiny_model.resize_token_embeddings(load.VOCABULARY) and tiny_model
    load.save(resized, tmp_path / "model")
    shutil.copy(load.HOME / "tokenizer.json", tmp_path / "model")
    folder = ROOT / "_build/runs/other"
    try:
        for number in ("01", "04"):
            done = command("run", "--name", "other", "--only", number, *flags(f"model={tmp_path / 'model'}"))
            assert done.returncode == 0, done.stderr[-2000:]
        made = json.loads((folder / "01_profile/values.json").read_text())["values"]
        assert "gini_model" in made and "gini_without" not in made and made["experts"]["value"] == 8
        network = json.loads((folder / "04_network/values.json").read_text())
        assert network["values"]["slowdown_trace_model"]["value"] >= 1
        assert [name.split("/")[-1] for name in network["provenance"]["files"]][-1] == "trace_model.npz"
        assert "not available in this run" in (folder / "book/_build/html/book/intro.html").read_text()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
