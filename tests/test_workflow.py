"""The command line and what runs again: as a user types it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, command

from lib.paper import chapters, cli, runner, settings


def flags(*more: str) -> list[str]:
    return [part for item in (*TINY, *more) for part in ("-p", item)]


def test_misspelt_and_malformed_parameters_are_one_line():
    for given, message in [
        (
            "num_experst=64",
            "run: -p num_experst: no chapter has this parameter (did you mean num_experts?)",
        ),
        ("num_experts", "run: -p 'num_experts': must be name=value"),
        ("run_dir=x", "run: -p run_dir: no chapter has this parameter"),
    ]:
        done = command("run", "--name", "refused", "-p", given)
        assert done.returncode == 2 and done.stderr.strip() == message
    assert command("run", "--only", "77").stderr.startswith(
        "run: --only '77': must be one of 00, 01"
    )
    assert command("run", "--only", "04", "--only", "77").stderr.startswith(
        "run: --only '77': must be one of 00, 01"
    )
    assert (
        cli.chosen(["05", "04_network", "book"]) == ["04_network", "05_validation"]
        and cli.chosen(["book"]) == []
    )
    assert command("run", "--name", "../x").returncode == 2
    assert not (ROOT / "_build/runs/refused").exists()


def test_values_are_read_as_their_parameter_is():
    given = settings.parse(
        ["num_experts=64", "imbalance_levels=[0.0, 0.3]", "model=64", "allow_partial=true"]
    )
    assert given == {
        "num_experts": 64,
        "imbalance_levels": [0.0, 0.3],
        "model": "64",
        "allow_partial": True,
    }
    assert json.loads(settings.of("04_network", given)) == {
        "imbalance_levels": [0.0, 0.3],
        "num_experts": 64,
    }


def test_fingerprint_follows_imports_and_data():
    files = {
        path.relative_to(ROOT).as_posix()
        for path in chapters.imported("from lib.balance import train", set())
    }
    assert {"lib/balance/train.py", "lib/stats.py", "lib/routing/adapter.py"} <= files
    assert not any(name.startswith("lib/network") for name in files)
    assert chapters.needs("04_network") == ["01_profile"]


@pytest.fixture(scope="module")
def wide(tiny_run):
    """A second run, like the first but for the number of experts of the network chapter."""
    folder = tiny_run.with_name("tests-wide")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_run, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_only_what_changed_runs_again_is_compared_and_is_what_papermill_gives(
    tiny_run, wide, tmp_path
):
    again = command("run", "--name", "tests-wide", *flags())
    assert again.returncode == 0 and "==" not in again.stderr and "Execut" not in again.stderr
    given = ("num_tokens=2048", "num_experts=64", "imbalance_levels=[0.0,0.3,0.6,0.9]")
    changed = command("run", "--name", "tests-wide", *flags(*given))
    ran = [line for line in changed.stderr.splitlines() if line.startswith("==")]
    assert changed.returncode == 0 and ran == ["== 04_network"]
    typed = settings.of("04_network", settings.parse([*TINY, *given]))  # JSON, and so YAML
    line = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "notebooks/04_network.ipynb"),
        "out.ipynb",
        "-k",
        "python3",
        "-y",
        typed,
    ]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    ours, theirs = (
        (folder / "04_network/simulation_results.json").read_text() for folder in (wide, tmp_path)
    )
    assert ours == theirs and len(json.loads(ours)["levels"]) == 8

    told = command("compare", "tests", "tests-wide")
    lines = told.stdout.splitlines()
    start, end = lines.index("parameters:"), lines.index("values:")
    assert told.returncode == 0 and sorted(line.split()[1] for line in lines[start + 2 : end]) == [
        "imbalance_levels",
        "num_experts",
        "num_tokens",
    ]
    assert ["04", "num_experts", "32", "64"] in [line.split() for line in lines[start + 2 : end]]
    shown = [line.split()[:2] for line in lines[end + 2 :] if not line.startswith("page: ")]
    assert ["04", "experts"] in shown and {chapter for chapter, _ in shown} == {"04"}
    page = (ROOT / "_build/compare/tests, tests-wide.html").read_text()
    differing = [
        "levels",
        "layers",
        "scale",
        "families",
    ]  # not the others, which do not depend on what was changed
    assert re.findall("<h3>04 (.*?)</h3>", page) == differing and page.count("<img") == 2 * len(
        differing
    )
    assert command("compare", "tests", "tests").stdout.splitlines()[:2] == [
        "parameters: no difference",
        "values: no difference",
    ]


def test_runs_are_listed_shown_and_removed(wide):
    assert "tests-wide: 00, 01, 02, 03, 04, 05" in command("list").stdout.replace(" (stale)", "")
    shown = command("show", "tests-wide").stdout
    assert "gini_without" in shown and "slowdown_trace" in shown
    missing = command("show", "tests-wid")
    assert missing.returncode == 2 and missing.stderr.startswith(
        "run 'tests-wid': there is none (did you mean tests-wide?)"
    )
    assert command("clean", "reference").returncode == 2
    done = command("clean", "tests-wide")
    assert done.returncode == 0 and not wide.exists()


def test_parameters_come_from_a_file_and_the_command_line_goes_before_it(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text("num_experts: 64\nimbalance_levels: [0.0, 0.3]\n")
    assert settings.load(str(file)) == {"num_experts": 64, "imbalance_levels": [0.0, 0.3]}
    assert "batches" in settings.load("paper") and settings.load("paper.yml") == settings.load(
        "paper"
    )
    file.write_text("num_experst: 64\n")
    done = command("run", "--params", str(file))
    message = f"run: --params {file}: num_experst: no chapter has this parameter (did you mean num_experts?)"
    assert done.returncode == 2 and done.stderr.strip() == message
    file.write_text("[1, 2")
    assert command("run", "--params", str(file)).stderr.startswith(
        f"run: --params {file}: must be YAML: "
    )
    file.write_text("- 1")
    assert "holds a list: must be names with values" in command("run", "--params", str(file)).stderr
    assert command("run", "--params", "papr").stderr.strip().endswith("(did you mean paper?)")


def test_a_run_is_computed_by_one_process_and_a_killed_one_leaves_no_lock(tmp_path):
    code = f"from lib.paper import chapters, runner, settings; from pathlib import Path; import time\nwith runner.sole(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    with (
        pytest.raises(RuntimeError, match="is being computed by another process"),
        runner.sole(tmp_path),
    ):
        pass
    other.kill()
    other.wait()
    with runner.sole(tmp_path):
        pass


def test_the_published_run_is_shown_not_computed():
    refused = command("run", "--name", "reference", "-p", "seeds=30")
    assert refused.returncode == 2 and "the published run is shown, not computed" in refused.stderr
    try:
        done = command("run", "--name", "reference")
        assert done.returncode == 0 and "==" not in done.stderr, done.stderr[-2000:]
        html = ROOT / "_build/runs/reference/book/_build/html"
        for chapter in chapters.names():
            text = (html / f"notebooks/{chapter}.html").read_text()
            assert "was not computed in this run" not in text and "peak memory" in text
            assert 'src="figures/' not in text and 'src="data:image/png' in text
        assert "not available in this run" not in (html / "book/intro.html").read_text()
    finally:
        shutil.rmtree(ROOT / "_build/runs/reference", ignore_errors=True)


def test_markup_in_the_name_of_a_run_or_model_is_text():
    name = "<script>alert(1)<!--"
    folder = ROOT / "_build/runs" / name
    try:
        done = command(
            "run", "--name", name, "--only", "01", *flags("model=<script>alert(2)</script>")
        )
        assert (
            done.returncode == 1
            and "01_profile failed" in done.stderr
            and "<script>alert(2)" in done.stderr
        )
        pages = list((folder / "book/_build/html").rglob("*.html"))
        assert len(pages) > 5
        for page in pages:
            assert "<script>alert(" not in page.read_text(), page
        assert (
            "&lt;script&gt;alert(2)"
            in (folder / "book/_build/html/notebooks/01_profile.html").read_text()
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("num_tokens=-3", "num_tokens = -3: must be a whole number from 1 to 1048576"),
        ("imbalance_levels=[0.0,1.5]", "imbalance_levels = [0.0, 1.5]: must be a list"),
        ("imbalance_levels=[0.0,0.95]", "level = 0.95: must be from 0 to below 0.9375"),
        ("trace=nowhere.npz", "nowhere.npz"),
    ],
)
def test_a_bad_value_is_one_line_and_writes_nothing(tmp_path, given, message):
    with pytest.raises(SystemExit) as end:
        shown(tmp_path, settings.parse([given]))
    assert end.value.code == 1
    (tmp_path / "logs").mkdir()
    (tmp_path / "04_network.ipynb").rename(tmp_path / "logs/04_network.ipynb")
    reason = runner.failure(tmp_path, "04_network")
    assert message in reason and "\n" not in reason
    assert not (tmp_path / "04_network").exists()


def shown(folder, given):
    """The network chapter alone, as the workflow executes it."""
    runner.papermill(
        str(chapters.source("04_network")),
        str(folder / "04_network.ipynb"),
        json.dumps(given | {"run_dir": str(folder)}),
    )


def test_a_bad_value_ends_the_command_with_one_line_and_a_page_that_says_it():
    folder = ROOT / "_build/runs/bad"
    try:
        done = command("run", "--name", "bad", "--only", "04", *flags("num_devices=3"))
        lines = [line for line in done.stderr.splitlines() if "failed" in line]
        assert (
            done.returncode == 1
            and len(lines) == 1
            and "04_network failed: " in lines[0]
            and "must" in lines[0]
        )
        assert not list((folder / "04_network").glob("*.*"))
        page = (folder / "book/_build/html/notebooks/04_network.html").read_text()
        assert "must" in page and "This chapter failed in this run" in page
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_notebook_runs_alone_from_any_folder(tmp_path):
    source = ROOT / "notebooks/04_network.ipynb"
    command_line = [
        sys.executable,
        "-m",
        "papermill",
        str(source),
        "out.ipynb",
        "-p",
        "num_tokens",
        "256",
        "-p",
        "num_experts",
        "32",
        "-p",
        "seeds",
        "20",
        "-k",
        "python3",
    ]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "04_network/simulation_results.json").read_text())
    assert found["parameters"]["num_tokens"] == 256 and len(found["levels"]) == 8
    assert (tmp_path / "04_network/communication_comparison.png").stat().st_size > 10_000


def test_another_model_is_profiled_and_its_routes_go_on(tiny_model, tmp_path):
    """A folder with a model of any size; what the book says of the embedded pair is then not
    available.
    """
    from lib.model import load

    resized = tiny_model.resize_token_embeddings(load.VOCABULARY) and tiny_model
    load.save(resized, tmp_path / "model")
    shutil.copy(load.HOME / "tokenizer.json", tmp_path / "model")
    folder = ROOT / "_build/runs/other"
    try:
        done = command(
            "run", "--name", "other", "--only", "04", *flags(f"model={tmp_path / 'model'}")
        )
        assert done.returncode == 0, done.stderr[-2000:]
        made = json.loads((folder / "01_profile/values.json").read_text())["values"]
        assert "gini_model" in made and "gini_without" not in made and made["experts"]["value"] == 8
        network = json.loads((folder / "04_network/values.json").read_text())
        assert network["values"]["slowdown_trace_model"]["value"] >= 1
        read = {name.split("/")[-1] for name in network["provenance"]["files"]}
        assert {name for name in read if name.startswith("trace")} == {"trace_model.npz"}
        assert (
            "not available in this run" in (folder / "book/_build/html/book/intro.html").read_text()
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
