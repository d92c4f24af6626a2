"""Whatever a user gives: one line that says where, what and the rule, before any work."""

import runpy
from collections import Counter

import bad_input
import pytest
from conftest import ROOT

from lib.paper import runs

CASES = bad_input.cases()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.given!a}")
def test_is_refused_in_one_line(case, tmp_path):
    told = bad_input.said(case, tmp_path)
    lines = told.splitlines()
    assert case.words in told, told
    assert "Traceback" not in told and (len(lines) == 1 or all(": must " in one for one in lines))
    assert not (runs.RUNS / "bad-input").exists() and not (ROOT / "tests/called").exists()


def test_of_each_kind_there_are_eight():
    assert min(Counter(case.kind for case in CASES).values()) >= 8


COMMANDS = ("lib.model.corpus", "lib.commands.random_model", "lib.commands.bars")
ODD = [
    ("lib.model.corpus", ["c.xz", "0"], "'0': must be a whole number, at least 1"),
    ("lib.model.corpus", [], "required: file"),
    ("lib.commands.random_model", ["m", "OLMo"], "invalid choice: 'OLMo'"),
    *((module, ["x", "--helf"], "unrecognized arguments: --helf") for module in COMMANDS),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("module", COMMANDS)
def test_what_makes_a_file_tells_how_and_makes_none(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [module, "--help"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} [-h]")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("module", "given", "words"), ODD)
def test_what_makes_a_file_refuses_what_is_odd(module, given, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [module, *given])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module(module, run_name="__main__")
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
