"""The command line and what runs again: as a user types it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from bad_input import typed
from conftest import PAPERMILL, ROOT, TINY, command

from lib import provenance
from lib.paper import chapters, compare, rules, runner, runs, settings
from lib.paper import given as handed


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
        assert typed("run", "--name", "refused", "-p", given) == message
    for given in (["--only", "77"], ["--only", "04", "--only", "77"]):
        assert typed("run", *given).startswith("run: --only '77': must be one of 00, 01")
    assert (
        runs.chosen(["05", "04_network", "book"]) == ["04_network", "05_validation"]
        and runs.chosen(["book"]) == []
    )
    done = command("run", "--name", "../x")  # of a process of its own: one line and its exit code
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
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
        "model": "64",
        "num_experts": 64,
    }


def test_a_parameter_may_be_given_to_one_chapter_alone(tmp_path, monkeypatch):
    given = settings.parse(["documents_per_domain=9", "01.documents_per_domain=30", "02.seed=3"])
    assert settings.own("01_profile", given) == {"documents_per_domain": 30}
    assert settings.own("03_finetune", given) == {"documents_per_domain": 9}
    assert json.loads(settings.of("02_assignment", given)) == {"seed": 3}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("x")
    assert settings.parse(["02.text=own.txt"]) == {"02.text": str(tmp_path / "own.txt")}
    (tmp_path / "p.yml").write_text("01.seed: 4\n03.seed: 5\n")
    assert settings.asked("p.yml", ["01.seed=6"]) == {"03.seed": 5, "01.seed": 6}
    assert settings.asked("p.yml", ["seed=6"]) == {"seed": 6}  # the command line goes before it
    for name, words in {
        "01.documents_per_domian": "chapter 01 does not have this parameter (did you mean doc",
        "01.fabric": "chapter 01 does not have this parameter",
        "77.seed": "no chapter has this parameter",
        ".seed": "no chapter has this parameter",
        "01.run_dir": "chapter 01 does not have this parameter",
    }.items():
        with pytest.raises(ValueError, match=re.escape(f"run: -p {name}: {words}")):
            settings.parse([f"{name}=1"])
    with pytest.raises(ValueError, match="01_profile: batches = 1: must be a whole number from 20"):
        rules.check(["01_profile", "04_network"], {"01.batches": 1})


def test_a_folder_without_measured_tables_is_refused(tmp_path):
    rule = r"must be 'auto', a path that exists \(.*\) and holds MACHINE/EXPERIMENT.csv.xz"
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=f"measured = .*: {rule}$"):
            rules.check(["05_validation"], {"measured": str(folder)})


def test_fingerprint_follows_imports_and_data():
    files = {
        path.relative_to(ROOT).as_posix()
        for path in chapters.imported("from lib.balance import train", set())
    }
    assert {"lib/balance/train.py", "lib/stats.py", "lib/routing/adapter.py"} <= files
    assert not any(name.startswith("lib/network") for name in files)
    assert chapters.needs("04_network") == ["01_profile"]
    found = chapters.sources("06_synthesis")
    assert "lib/paper/values.py" in found and not any(map(chapters.looks, found))
    assert chapters.looks("lib/paper/plots_style.py") and not chapters.looks("lib/stats.py")


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
    assert runner._missing(wide, settings.parse(TINY), chapters.names()) == []
    given = ("num_tokens=512", "num_experts=64", "imbalance_levels=[0.0,0.6]")
    changed = command("run", "--name", "tests-wide", *flags(*given))
    ran = [line for line in changed.stderr.splitlines() if line.startswith("==")]
    assert changed.returncode == 0 and ran == [
        "== 04_network (1 of 2)",
        "== 06_synthesis (2 of 2)",  # which reads what 04 found
    ]
    typed = settings.of("04_network", settings.parse([*TINY, *given]))  # JSON, and so YAML
    line = [
        *PAPERMILL,
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
    assert ours == theirs and len(json.loads(ours)["levels"]) == 4
    assert (tmp_path / "04_network/communication_comparison.png").stat().st_size > 10_000

    told = command("compare", "tests", "tests-wide")
    lines = told.stdout.splitlines()
    start, end = lines.index("parameters:"), lines.index("values:")
    assert told.returncode == 0 and sorted(line.split()[1] for line in lines[start + 2 : end]) == [
        "imbalance_levels",
        "num_experts",
        "num_tokens",
    ]
    assert ["04", "num_experts", "32", "64"] in [line.split() for line in lines[start + 2 : end]]
    last = lines.index("tables:")
    shown = [line.split()[:2] for line in lines[end + 2 : last]]
    tables = [line.split()[:2] for line in lines[last + 2 :] if not line.startswith("page: ")]
    assert ["04", "figures/levels.csv"] in tables and {number for number, _ in tables} <= {
        "04",
        "06",
    }
    assert ["04", "experts"] in shown and {chapter for chapter, _ in shown} <= {"04", "06"}
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
    assert command("compare", "tests", "tests").stdout.splitlines()[:3] == [
        "parameters: no difference",
        "values: no difference",
        "tables: no difference",
    ]


def test_runs_are_listed_shown_and_removed(wide):
    assert "tests-wide: 00, 01, 02, 03, 04, 05" in command("list").stdout.replace(" (stale)", "")
    shown = command("show", "tests-wide").stdout
    assert "gini_without" in shown and "slowdown_trace" in shown
    missing = typed("show", "tests-wid")
    assert missing.startswith("run 'tests-wid': there is none (did you mean tests-wide?)")
    for given in (["reference"], [""], [], ["tests-wide", "--all"], ["."], ["../runs/tests-wide"]):
        refused = typed("clean", *given)
        assert not refused.startswith("exit code") and len(refused.splitlines()) == 1
        assert wide.exists()
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
    message = "num_experst: no chapter has this parameter (did you mean num_experts?)"
    assert typed("run", "--params", str(file)) == f"run: --params {file}: {message}"
    file.write_text("[1, 2")
    told = typed("run", "--params", str(file))
    assert told.startswith(f"run: --params {file}: must be plain YAML: line 1: ")
    file.write_text("- 1")
    told = typed("run", "--params", str(file))
    assert "holds a list: must be names with values" in told
    assert typed("run", "--params", "papr").endswith("(did you mean paper?)")
    assert typed("run", "--params", "").startswith("run: --params '': no such file")
    file.write_text("num_experts: 2026-01-01")
    told = typed("run", "--params", str(file))
    assert "num_experts = '2026-01-01': must be a whole number" in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "imbalance_levels=[0.1",
            "imbalance_levels=[0.1: must be a list, like [0.0, 0.2, 0.5, 0.8]",
        ),
        ("num_experts=many", "num_experts=many: must be a number, like 32"),
        ("overlap=perhaps", "overlap=perhaps: must be true or false, like False"),
        ("num_experts=", "num_experts='': must be a number, like 32"),
    ],
)
def test_what_cannot_be_read_is_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(f"run: -p {message}")):
        settings.parse([given])


def test_special_names_are_refused():
    for name in ("", ".", "..", "a/b", "$x", "x" * 101, "é" * 51):
        with pytest.raises(ValueError, match="^run: --name"):
            runs.place(name)
    assert runs.place("x" * 100).name == "x" * 100


@pytest.mark.parametrize("chapter", chapters.names())
def test_every_parameter_has_a_meaning_a_range_and_a_default_within_it(chapter):
    found = rules.of(chapter)
    assert found.keys() == chapters.defaults(chapter).keys()
    for name, default, meaning, span in rules.table(chapter):
        assert meaning and span and found[name][0](default), name


@pytest.mark.parametrize("chapter", chapters.names())
def test_every_number_has_an_upper_bound(chapter):
    found = rules.of(chapter)
    for name, default in chapters.defaults(chapter).items():
        holds, huge = found[name][0], 10**30
        if type(default) in (int, float):
            assert not holds(type(default)(huge)), name
        elif isinstance(default, list) and type(default[0]) in (int, float):
            assert not holds([type(default[0])(huge)]), name
        if isinstance(default, list):
            assert not holds(default * 1001), name


def test_all_that_chapters_would_refuse_is_refused_at_once():
    given = settings.parse(["num_devices=3", "training_seeds=1000000000", "batches=0"])
    with pytest.raises(ValueError, match="01_profile: batches = 0: must") as error:
        rules.check(chapters.names(), given)
    lines = str(error.value).splitlines()
    assert [line.split(":")[1] for line in lines] == [" 01_profile", " 03_finetune", " 04_network"]
    assert "experts must be a multiple of devices" in lines[2]
    rules.check(chapters.names(), {})


BLOCKED = """import sys
for name in ("typer", "pydantic", "papermill", "snakemake", "plotly", "IPython", "nbclient"):
    sys.modules[name] = None
from lib.paper import given
print(given.main(sys.argv[1:]))"""


def test_the_settings_of_a_chapter_need_nothing_that_the_gpu_machine_lacks():
    options = ("--params", "paper", "--json", '{"seeds": 33, "steps": 2}', "-p", "seed=4")
    line = [sys.executable, "-c", BLOCKED, "04_network", *options]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    own = json.loads(done.stdout)
    assert own["seeds"] == 33 and own["seed"] == 4 and own["exact_up_to"] == 32
    assert "steps" not in own and "num_tokens" not in own
    whole = handed.main(["04_network", "--whole", "--params", "paper"])
    paper = settings.own("04_network", settings.load("paper"))
    assert json.loads(whole) == chapters.defaults("04_network") | paper
    with pytest.raises(ValueError, match="^run: --json {: must be JSON"):
        handed.main(["04_network", "--json", "{"])
    with pytest.raises(ValueError, match="num_devices = 1: must be"):
        handed.main(["04_network", "-p", "num_devices=1"])
    assert "<<" not in (ROOT / "notebooks/gpu.sh").read_text()


@pytest.mark.parametrize("chapter", chapters.names())
@pytest.mark.parametrize("file", ["values.json", compare.QUICK])
def test_what_a_chapter_read_lies_within_what_it_declares(chapter, file):
    made = json.loads(provenance.text(chapters.PUBLISHED / chapter[:2] / file))
    read = [name for name in made["provenance"]["files"] if name.startswith("data/")]
    assert [name for name in read if not chapters.declares(chapter, name)] == []


def test_a_run_is_computed_by_one_process_and_a_killed_one_leaves_no_lock(tmp_path):
    code = "from lib.paper import runner; from pathlib import Path; import time\n"
    code += f"with runner.sole(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
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
    refused = typed("run", "--name", "reference", "-p", "seeds=30")
    assert "the published run is shown, not computed" in refused
    try:
        done = command("run", "--name", "reference")
        assert done.returncode == 0 and "==" not in done.stderr, done.stderr[-2000:]
        html = ROOT / "_build/runs/reference/book/_build/html"
        for chapter in chapters.names():
            text = (html / f"notebooks/{chapter}.html").read_text()
            assert "was not computed in this run" not in text and "peak memory" in text
            assert '<svg data-figure="' not in text and 'role="img" aria-label=' in text
        assert "not available in this run" not in (html / "book/intro.html").read_text()
    finally:
        shutil.rmtree(ROOT / "_build/runs/reference", ignore_errors=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("num_tokens=-3", "num_tokens = -3: must be a whole number from 16 to 1048576"),
        ("trace=nowhere.npz", "nowhere.npz"),
    ],
)
def test_a_bad_value_is_one_line_and_writes_nothing(tmp_path, given, message):
    with pytest.raises(SystemExit) as end:
        shown(tmp_path, settings.parse([given]))
    assert end.value.code.startswith("04_network failed: ") and message in end.value.code
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
