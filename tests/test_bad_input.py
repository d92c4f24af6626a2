"""Whatever a user gives: one line that says where, what and the rule, before any work."""

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
