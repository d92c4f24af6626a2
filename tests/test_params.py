"""Parameters: every bad one named in one line, before anything runs; one rule for each name."""

import ast
import inspect
import io
import math
import tokenize

import pytest

from lib import provenance
from lib.commands import looked
from lib.model import load
from lib.network import synthetic
from lib.paper import chapters, params, ranges, rules, settings
from lib.routing import weighing

LAST = "05_validation"


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (ranges.whole(1), [1, 5], [0, -3, 1.0, True, "2", None]),
        (ranges.whole(0, 4), [0, 4], [5]),
        (ranges.whole(), [-7, 2**20], [2**20 + 1]),
        (ranges.real(0), [1e15], [1.1e15]),
        (ranges.positive(8), [1e-9, 8], [0, 8.1, math.inf, math.nan, True]),
        (ranges.real(0, 1), [0, 0.5, 1], [-0.1, 1.5, math.nan, math.inf, "x", False]),
        (ranges.choice("a", "b"), ["a"], ["c", 1]),
        (ranges.text(), ["x"], ["", "  ", 3]),
        (ranges.anything(), ["x", ""], [3, None]),
        (ranges.flag(), [True, False], [0, "true"]),
        (ranges.each(ranges.real(0)), [[0, 2.5], [*range(1000)]], [[], [1, -1], [1, 1], 3]),
    ],
)
def test_rules(rule, good, bad):
    holds, words = rule
    assert all(map(holds, good)) and not any(map(holds, bad)) and words.startswith("must be")


def test_all_bad_values_are_named_at_once_without_a_traceback():
    given = chapters.defaults(LAST) | {"seed": -1, "run_dir": "", "other": "of no chapter"}
    with pytest.raises(params.ParameterError) as caught:
        params.check(LAST, given)
    assert caught.value._render_traceback_() == [
        "ParameterError: 05_validation: seed = -1: must be a whole number from 0 to 1048576",
        "ParameterError: 05_validation: run_dir = '': must be a text that is not empty",
    ]
    found = params.check(LAST, given | {"seed": 3, "run_dir": "x"})
    assert found.seed == 3 and vars(found).keys() == chapters.defaults(LAST).keys()


def test_every_parameter_has_one_rule(monkeypatch):
    with pytest.raises(ValueError, match=r"seed has its rule in lib/paper/ranges\.py"):
        params.check(LAST, chapters.defaults(LAST), seed=ranges.whole(0))
    with pytest.raises(ValueError, match="a rule of levl: levl is no parameter"):
        params.check(LAST, chapters.defaults(LAST), levl=ranges.whole(0))
    monkeypatch.delitem(ranges.RANGES, "seed")
    with pytest.raises(ValueError, match=r"05_validation: seed: must have a rule in .*ranges\.py"):
        params.check(LAST, chapters.defaults(LAST))


def test_every_rule_is_of_a_parameter():
    assert ranges.RANGES.keys() <= {*settings.known(), "run_dir"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arms", load.ARMS),
        ("cost_shape", ["model", *load.SHAPES]),
        ("family", synthetic.FAMILIES),
        ("policies", weighing.POLICIES),
    ],
)
def test_the_words_of_a_rule_are_those_of_the_study(name, options):
    assert ranges.RANGES[name][1].endswith(f"must be one of {', '.join(options)}")


@pytest.mark.parametrize("chapter", chapters.names())
def test_the_papers_own_parameters_are_within_the_rules(chapter):
    assert rules.refused(chapter, settings.load("paper")) == []


@pytest.mark.parametrize("chapter", chapters.names())
def test_a_parameter_stands_on_one_line_with_its_meaning(chapter):
    """A comment that is too long makes ruff break the line before it, `seed = (`; a dictionary and
    a long list may take a line for each item.
    """
    source = chapters.parameters_cell(chapter)
    for part in ast.parse(source).body:
        lines = (part.end_lineno or part.lineno) - part.lineno + 1
        whole = len(ast.unparse(part)) + len("  # what it means")
        fits = whole <= 100 and not isinstance(part.value, ast.Dict)
        assert lines == 1 or not fits, ast.unparse(part)
    comments = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    assert len(comments) == len(ast.parse(source).body)


def test_nearest():
    assert (
        provenance.nearest("num_experst", ["num_tokens", "num_experts"])
        == " (did you mean num_experts?)"
    )
    assert provenance.nearest("zzz", ["num_tokens"]) == ""


@pytest.mark.parametrize("name, look", looked.LOOKS.items())
def test_what_is_looked_at_first_is_told_all_it_asks_for(name, look):
    having = [own for own in map(chapters.defaults, chapters.names()) if name in own]
    assert having and all(inspect.signature(look).parameters.keys() <= own.keys() for own in having)
