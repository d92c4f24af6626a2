"""The decision table and the picture of the synthesis: by hand, and where something is missing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.commands import advice, decision, earlier, level, pareto, synthesis
from lib.commands.deciding import Rules
from lib.commands.subject import IN_SAMPLE, Subject
from lib.network import cost, fabric, step, synthetic
from lib.paper import plots_synthesis, ranges

COST = pd.DataFrame(
    [["reroute 1.25", 0.2, 0.1, 0.3], ["biased 1", 0.3, 0.2, 0.4]],
    columns=["setting", "delta", "delta_low", "delta_high"],
)
BALANCE = pd.DataFrame([["reroute 1.25", 1.25], ["biased 1", 2.0]], columns=["setting", "p95"])
TOLD = pd.DataFrame([["without", "native", 3.0]], columns=["arm", "setting", "p95"])
TABLES = {
    "cost_group": COST[:1],
    "cost_stream": COST[1:],
    "balance_group": BALANCE[:1],
    "balance_stream": BALANCE[1:],
    "told": TOLD,
    "trained": pd.DataFrame(
        [["start", 0, 2.0, 4.0], ["none", 0, 2.03, 4.0], ["switch", 1, 2.1, 1.0]],
        columns=["loss", "coefficient", "nats", "max_violation"],
    ).assign(nats_low=2.0, nats_high=2.2),
    "placed": pd.DataFrame(
        [
            ["without", "in order", "same domain", 2.0, 0.1],
            ["without", "packed", "another domain", 1.5, 0.05],
        ],
        columns=["arm", "placement", "where", "rho", "slowdown"],
    ),
}
START = pd.DataFrame(columns=pareto.COLUMNS)
CAUSAL = {"biased": True}
NONE = advice.of_values({})  # no prices


def test_shares_of_the_excess_by_hand():
    found = pareto.points(TABLES, CAUSAL, START).set_index("way")
    assert found.left["reroute 1.25"] == pytest.approx(0.25 / 2)
    assert found.left["switch"] == pytest.approx(1 / 4)
    assert found.nats["switch"] == pytest.approx(0.07)  # above training on without a loss
    assert found.left["packed, other text"] == pytest.approx(0.5)
    # on devices: the excess of experts in order is 1, and the line through both placements .1
    assert found.rho["switch"] == pytest.approx(1.25)
    assert found.slowdown["switch"] == pytest.approx(0.025)
    assert found.causal.to_dict()["biased 1"] and not found.causal["reroute 1.25"]
    front = set(found.index[found.frontier])
    assert front == {"packed, other text", "switch", "reroute 1.25"}


def test_a_picture_without_what_was_not_run():
    few = {"placed": TABLES["placed"]}
    found = pareto.points(few, CAUSAL, START)
    assert found.way.tolist() == ["in order", "packed, other text"]
    assert np.isnan(pareto.told(found).set_index("name").lost["reroute"])
    empty = pareto.points({}, CAUSAL, START)
    assert empty.empty
    for table in (found, pareto.points(TABLES, CAUSAL, START)):
        assert plots_synthesis.pareto(table).axes


def test_a_table_of_an_unknown_run_is_published_or_absent(tmp_path):
    ours, files = earlier.tables(str(tmp_path), ["with", "without"])
    assert {"told", "placed", "trained"} <= set(ours) == set(files)
    assert earlier.tables(str(tmp_path), ["model"]) == ({}, {})


def asked(**more):
    own = decision.own_prices(None)
    known = dict(devices=[2, 3, 8], tokens=[64], rules=Rules(), prices=NONE, own=own)
    return decision.Asked(**known | dict(machine=step.published(), draws=2) | more)


def router(name="x", kind="measured"):
    load = np.array([[5.0, 4, 3, 2, 1, 1, 1, 1]])
    return Subject(name, load, load, IN_SAMPLE, 900, 2, {"a": load}, kind)


def test_a_row_for_each_number_of_devices_that_divides():
    table = decision.table([router()], asked())
    assert table.devices.tolist() == [2, 8]
    assert table.kind_memory.tolist() == ["extrapolated"] * 2
    shown = decision.readable(table)
    assert (shown.price == decision.NOT_YET).all()
    assert (shown.stale_over_fresh == decision.NOT_YET).all()
    assert shown.rho_both.str.endswith(" (s)").all() and shown.beta.str.endswith(" (x)").all()
    edges = decision.ends(table).set_index("end")
    assert edges.ceiling["most"] == table.ceiling.max()
    assert decision.readable(decision.table([], asked())).empty
    assert decision.ends(decision.table([], asked())).ceiling.isna().all()


def test_own_prices_go_before_those_of_small_models():
    told = pd.DataFrame(
        [["x", "native", 0, 0, 0], ["x", "reroute 1.25", 0.1, 0.0, 0.2]],
        columns=["arm", "setting", "delta", "delta_low", "delta_high"],
    )
    own = decision.own_prices(told)
    row = decision.table([router()], asked(own=own)).iloc[0]
    assert (row.way, row.nats, row.kind_price, row.causal) == (
        "re-route at γ 1.25",
        0.1,
        "measured",
        False,
    )


def test_every_cell_says_what_it_is_in_words_for_readers():
    told = pd.DataFrame(
        [["without", "expanded_drop 1.25", 0.1, 0.0, 0.2]],
        columns=["arm", "setting", "delta", "delta_low", "delta_high"],
    )
    rows = decision.table([router("without")], asked(own=decision.own_prices(told)))
    shown = decision.readable(rows)
    assert set(shown.router) == {"without balance loss"} == set(decision.sentences(rows).router)
    assert shown.price[0] == "0.100 [0.000, 0.200] (m), expanded drop at γ 1.25, not causal"
    assert decision.ends(rows)["where"].str.startswith("without balance loss, ").all()
    cells = shown.drop(columns=[*decision.KEYS, "price"]).to_numpy().ravel()
    ends = (*(f" ({letter})" for letter in decision.LETTERS.values()), decision.NOT_YET)
    assert all(cell.endswith(ends) for cell in cells), cells


def test_a_layer_is_as_large_as_that_of_the_run_s_own_model():
    own = step.Model("mine", cost.Shape(64, 32, 16, 4, 4.0), 7, 1e6)
    layer, kind = decision.layer_of(router(), own)
    assert (layer.shape, layer.layers, kind) == (cost.Shape(64, 32, 8, 2, 4.0), 1, "measured")
    for model in (own, None):
        named, kind = decision.layer_of(router("Mixtral-8x7B", "published"), model)
        assert (named.shape.hidden, kind) == (4096, "published")
    unknown, kind = decision.layer_of(router(), None)
    assert (unknown.shape.hidden, unknown.shape.experts, kind) == (2048, 8, "extrapolated")


@pytest.mark.parametrize("bad", [[], [1], [12], ["8"], [True], 8])
def test_devices_fill_nodes(bad):
    fits = ranges.RANGES["decision_devices"][0]
    assert not fits(bad) and fits([2, 3, 8, 16, 32])


def known(experts=16, k=2, devices=4, tokens=4096, gini=0.4):
    model = step.models()["OLMoE-1B-7B"]
    shape = model.shape.__class__(2048, 1024, experts, k)
    model = model.__class__("", shape, 1, 0.0)
    return level.known(model, fabric.star(devices, 450e9), step.published(), tokens, gini)


def test_expected_routes_give_what_drawn_ones_give():
    """Experts in a random order: band against layers drawn from the same probabilities."""
    own = known()
    found = level.answer(own, Rules(), NONE)
    chances = synthetic.inclusion(16, 2, 0.4)
    loads = np.stack([chances[order] for order in level.orders(16, 8)])
    drawn = advice.Case(loads, 10**6, own.model, own.fabric, own.machine, own.tokens, 1, 3)
    rows = advice.timed(drawn).query("placement == 'in order'")
    first = [level.layer_s(own, load, advice.placements(load, 4, 0)["in order"]) for load in loads]
    assert rows.rho.mean() == pytest.approx(np.mean([rho for rho, _ in first]), rel=0.03)
    assert found["rho_low"] <= found["rho"] <= found["rho_high"]
    assert found["slowdown_copied"] < found["slowdown"]
    even = level.answer(known(gini=0.0), Rules(), NONE)
    assert even["action"] == "nothing" and even["rho"] == pytest.approx(1)


def test_orders_are_permutations_and_a_family_that_falls_short_is_left_out():
    drawn = level.orders(8)
    assert (np.sort(drawn, 1) == np.arange(8)).all() and len({tuple(o) for o in drawn}) > 30
    names = level.families(known(), Rules(), NONE).family.tolist()
    assert names == ["power", "lognormal", "one_hot"]
    assert "one_hot" not in level.families(known(gini=0.5), Rules(), NONE).family.tolist()


def test_gains_and_repairs_are_told():
    quality = pd.DataFrame({"loss": ["switch", "max"], "gain": [0.1, 0.2]})
    quality = quality.assign(gain_low=0.0, gain_high=0.3)
    found = synthesis.gains(quality).set_index(["name", "loss"]).value
    assert found["gain", "max"] == 0.2
    assert found["perplexity_by", "switch"] == pytest.approx(np.exp(-0.1) - 1)
    again = pd.DataFrame({"found_again": [True, False]})
    assert synthesis.found_again(again).iloc[0].to_dict() == {"found_again": 1, "shapes": 2}


@pytest.mark.parametrize(
    ("experts", "devices"), [(16, [8]), (12, [6]), (60, [6]), (22, [2]), (7, [7]), (11, [])]
)
def test_experts_that_no_number_of_devices_divides_are_shared_by_fewer(experts, devices):
    """Of 8 and 64 asked for; eleven experts no node can share, and no whole nodes."""
    load = np.ones((1, experts))
    own = Subject("mine", load, load, IN_SAMPLE, 100, 2, {})
    asked = SimpleNamespace(devices=[8, 64], tokens=[64])
    assert [number for _, number, _ in decision.cases([own], asked)] == devices
