"""Parameters: every bad one named in one line, before anything runs."""

import math

import pytest

from lib import provenance
from lib.paper import params


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (params.whole(1), [1, 5], [0, -3, 1.0, True, "2", None]),
        (params.whole(0, 4), [0, 4], [5]),
        (params.whole(), [-7, 2**20], [2**20 + 1]),
        (params.real(0), [1e15], [1.1e15]),
        (params.positive(8), [1e-9, 8], [0, 8.1, math.inf, math.nan, True]),
        (params.real(0, 1), [0, 0.5, 1], [-0.1, 1.5, math.nan, math.inf, "x", False]),
        (params.choice("a", "b"), ["a"], ["c", 1]),
        (params.text(), ["x"], ["", "  ", 3]),
        (params.flag(), [True, False], [0, "true"]),
        (params.each(params.real(0)), [[0, 2.5], [1] * 1000], [[], [1, -1], 3, [1] * 1001]),
    ],
)
def test_rules(rule, good, bad):
    for value in good:
        assert params.check("nb", {"x": value}, x=rule).x == value
    for value in bad:
        with pytest.raises(params.ParameterError, match="^nb: x = .*: must be"):
            params.check("nb", {"x": value}, x=rule)


def test_all_bad_values_are_named_at_once_without_a_traceback():
    with pytest.raises(params.ParameterError) as caught:
        params.check(
            "nb", {"a": -1, "b": "", "c": 2}, a=params.whole(0), b=params.text(), c=params.whole(0)
        )
    assert caught.value._render_traceback_() == [
        "ParameterError: nb: a = -1: must be a whole number from 0 to 1048576",
        "ParameterError: nb: b = '': must be a text that is not empty",
    ]


def test_nearest():
    assert (
        provenance.nearest("num_experst", ["num_tokens", "num_experts"])
        == " (did you mean num_experts?)"
    )
    assert provenance.nearest("zzz", ["num_tokens"]) == ""
