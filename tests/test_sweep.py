"""A grid of runs: which runs it is, and the table over them."""

import json

import pandas as pd
import pytest
from bad_input import typed

from lib.commands import sweep


def test_the_grid_is_every_combination():
    along = sweep.axes({"num_experts": [16, 32], "imbalance_levels": [[0.0], [0.5]]})
    assert sweep.grid(along) == [
        {"num_experts": 16, "imbalance_levels": [0.0]},
        {"num_experts": 16, "imbalance_levels": [0.5]},
        {"num_experts": 32, "imbalance_levels": [0.0]},
        {"num_experts": 32, "imbalance_levels": [0.5]},
    ]


@pytest.mark.parametrize(
    "content, line",
    [
        ({"num_experts": 16}, "num_experts: 16: must be a list of values"),
        ({"num_experts": []}, r"num_experts: \[\]: must be a list of values"),
        ({"imbalance_levels": [0.0, 0.5]}, "imbalance_levels: .*: must be a list of lists"),
        ({"num_experts": [16, 16]}, "num_experts: .*: no value may stand there twice"),
    ],
)
def test_what_is_no_list_of_values_is_refused(content, line):
    with pytest.raises(ValueError, match=line):
        sweep.axes(content)


def test_a_grid_has_its_limit():
    with pytest.raises(ValueError, match="1002 runs: must be at most 1000"):
        sweep.grid({"a": list(range(334)), "b": [0, 1, 2]})


def run_of(folder, **numbers):
    (folder / "04_network").mkdir(parents=True)
    values = {name: {"value": value, "unit": ""} for name, value in numbers.items()}
    (folder / "04_network" / "values.json").write_text(json.dumps({"values": values}))
    return folder


def test_the_table_over_seeds_by_hand(tmp_path):
    given = [{"num_experts": e, "seed": s} for e in (16, 32) for s in (0, 1)]
    slow = [1.0, 3.0, 5.0, 5.0]
    places = [
        run_of(tmp_path / f"r-{i}", slow=value, same=7, name="x") for i, value in enumerate(slow)
    ]
    table = sweep.told(places, given, [])
    assert table.name.tolist() == ["04.slow"] * 4  # what is the same, or no number, is not told
    found = sweep.summary(table, ["num_experts", "seed"])
    assert found.value.tolist() == [2, 5] and found[sweep.OVER].tolist() == [2, 2]
    # Student's t at one degree of freedom: 12.706 · 1, as the standard error of 1 and 3 is 1
    assert found.value_high[0] == pytest.approx(2 + 12.7062, abs=1e-3)
    assert found[["value_low", "value_high"]].isna().all(axis=1).tolist() == [False, True]
    nearly = table.assign(value=[1, 1 + 1e-15, 5, 5])  # rounding is no difference over seeds
    assert sweep.summary(nearly, ["num_experts", "seed"]).value_low.isna().all()
    assert sweep.told(places, given, ["04.same"]).value.tolist() == [7] * 4
    table["seeds"] = "20"  # a parameter of chapter 04
    both = sweep.summary(table, ["num_experts", "seeds", "seed"])
    assert both.seeds.tolist() == ["20", "20"] and both[sweep.OVER].tolist() == [2, 2]
    plain = sweep.summary(table, ["num_experts"])
    assert plain.columns.tolist() == ["name", "num_experts", "value"] and len(plain) == 4
    with pytest.raises(ValueError, match=r"--value 04.slower: no run has this value"):
        sweep.told(places, given, ["04.slower"])


def test_values_may_be_named_together_or_one_by_one():
    both = ["--params", "p", "--value", "04.a", "04.b", "--value", "04.c"]
    assert sweep.parsed(both).value == ["04.a", "04.b", "04.c"]


def test_a_value_is_read_with_its_interval_and_a_path_by_its_name():
    rows = [("04.x", "/a/b", 2.0, 1.0, 3.0, 3), ("04.y", "/a/b", 7.0, 7.0, 7.0, 3)]
    columns = ["name", "model", "value", "value_low", "value_high", sweep.OVER]
    shown = sweep.readable(pd.DataFrame(rows, columns=columns))
    assert shown.value.tolist() == ["2 [1, 3]", "7"] and shown.model.tolist() == ["b", "b"]
    assert "value_low" not in shown
    plain = pd.DataFrame({"name": ["04.z"], "value": [0.123456]})
    assert sweep.readable(plain).value.tolist() == ["0.1235"]


def test_the_page_stands_alone_and_escapes():
    text = sweep.page(pd.DataFrame({"name": ["<b>"], "value": [1]}), "a<b")
    assert "a&lt;b" in text and "&lt;b&gt;" in text and "<script" not in text


def test_bad_values_are_refused_before_anything_runs(tmp_path):
    (tmp_path / "grid.yml").write_text("num_experts: [16, -1]\n")
    told = typed("sweep", "--params", str(tmp_path / "grid.yml"), "--name", "refused-sweep")
    assert "num_experts = -1" in told and not told.startswith("exit code")
