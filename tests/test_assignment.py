"""Another assignment: what it costs, in which groups, and what looks ahead."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lib.routing import adapter, assignment, bind


def documents(n, tokens):
    return [
        SimpleNamespace(
            name=f"n{i}", domain="d", cluster=f"c{i}", token_ids=tuple(range(i, i + tokens))
        )
        for i in range(n)
    ]


@pytest.fixture
def ids():
    return torch.randint(0, 97, (6, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fits(tiny_model, ids):
    return bind.fit(tiny_model, ids, batch_tokens=32, steps=50)


def run(model, ids, setting, fits=None, groups=None, **more):
    group = torch.from_numpy(assignment.prefix_groups(*ids.shape)) if groups is None else groups
    return assignment.run(
        model, ids, bind.bound(setting, group, fits), group, first=ids.shape[1] // 2, **more
    )


def test_groups_of_both_protocols_by_hand():
    assert assignment.prefix_groups(2, 4).tolist() == [0, 0, 2, 3, 1, 1, 2, 3]
    assert assignment.prefill_groups(2, 4, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_only_whole_documents_are_taken():
    kept, grid = assignment.grid(documents(3, 8) + documents(1, 5), 6)
    assert len(kept) == 3 and grid.shape == (3, 6)
    with pytest.raises(ValueError, match="0 documents of 9 tokens: must be at least 2"):
        assignment.grid(documents(3, 8), 9)


def test_the_native_choice_costs_nothing_and_is_scored_as_by_hand(tiny_model, ids):
    found = run(tiny_model, ids, dict(strategy="native"))
    with torch.no_grad():
        logp = tiny_model(input_ids=ids).logits.log_softmax(-1)
    expected = -logp[:, 7:-1].gather(2, ids[:, 8:, None]).squeeze(2).sum(1)
    np.testing.assert_allclose(found["nats"], expected, rtol=1e-5)
    assert (
        found["tokens"] == 8
        and found["churn"] == 0
        and found["kept"] == 1
        and found["dropped"] == 0
    )
    assert (
        found["load"].shape == (3, 8, 8) and (found["load"].sum(2) == 12).all()
    )  # 8 positions of 6 documents, top-2
    with adapter.record(tiny_model, indices=True) as rec, torch.no_grad():
        tiny_model(input_ids=ids)
    index = rec.index(0).view(6, 16, 2)[:, 8:]
    assert found["load"][0, 0].tolist() == np.bincount(index[:, 0].ravel(), minlength=8).tolist()
    np.testing.assert_allclose(found["max_over_nominal"], found["load"].max(2) / (6 * 2 / 8))


def test_a_capacity_is_kept_in_every_group_and_overflow_is_told(tiny_model, ids, fits):
    drop, reroute = (
        run(tiny_model, ids, dict(strategy=name, gamma=1)) for name in ("drop", "reroute")
    )
    assert drop["load"].max() <= 2 and reroute["load"].max() <= 2
    assert drop["dropped"] > 0 and 0 < reroute["churn"] < 1 and reroute["kept"] < 1
    assert run(tiny_model, ids, dict(strategy="biased"), fits)["dropped"] == 0


def test_one_layer_at_a_time_leaves_the_others(tiny_model, ids):
    native, one = (
        run(tiny_model, ids, dict(strategy="native")),
        run(tiny_model, ids, dict(strategy="reroute", gamma=1), layer=1),
    )
    np.testing.assert_array_equal(one["load"][0], native["load"][0])
    assert one["load"][1].max() <= 2 and one["load"][2].max() > 2


def test_causal_strategies_leak_exactly_nothing_and_others_do(tiny_model, ids, fits):
    names = [
        "native",
        "random",
        "round_robin",
        "hashed",
        "drop",
        "drop_position",
        "reroute",
        "biased",
        "least_loaded",
        "threshold",
        "expert_choice",
        "sinkhorn",
        "optimal",
        "expanded_drop",
    ]
    plan = bind.settings(names, [1.25], [1.0], [4])
    moved = bind.leak(
        tiny_model, torch.cat([ids[0], ids[1]]), torch.cat([ids[2], ids[3]]), plan, fits
    )
    for setting in plan:
        assert (moved[setting["name"]] == 0) == bind.causal(setting), setting
    assert tiny_model.config._experts_implementation != "batched_mm"


def test_settings_are_named_and_unknown_ones_refused():
    plan = bind.settings(["native", "reroute", "biased"], [1.0, 1.25], [0.5], [4])
    assert [s["name"] for s in plan] == ["native", "reroute 1", "reroute 1.25", "biased 0.5"]
    with pytest.raises(ValueError, match=r"'reroot' is unknown: did you mean reroute\?"):
        bind.settings(["reroot"], [1.0], [1.0], [4])


def test_differences_are_paired_and_tested_by_cluster():
    base = pd.DataFrame(dict(name=list("abcdefghij"), nats=np.arange(10.0), tokens=10))
    more = base.assign(nats=base.nats + 5)
    pairs = assignment.difference(more, base)
    assert assignment.per_token(pairs) == pytest.approx(0.5)
    assert (
        assignment.p_value(pairs, np.arange(10)) == 1.0
        or assignment.p_value(pairs, np.arange(10)) < 1e-9
    )  # no spread at all
    rng = np.random.default_rng(0)
    noise = np.stack([rng.normal(0, 1, 10), np.full(10, 10.0)], 1)
    assert 0.001 < assignment.p_value(noise, np.arange(10)) <= 1
    assert np.isnan(assignment.p_value(noise, np.arange(10) // 2))  # five clusters
    with pytest.raises(ValueError, match="must be the same, in the same order"):
        assignment.difference(more[::-1], base)


def test_strategies_are_compared_at_one_balance():
    curve = pd.DataFrame(dict(setting=["a", "b", "c"], p95=[1.0, 2.0, 4.0], delta=[0.4, 0.2, 0.0]))
    assert assignment.at_balance(curve, 1.5) == ("a", "b", 0.5)
    assert assignment.at_balance(curve, 3.0) == ("b", "c", 0.5)
    assert assignment.at_balance(curve, 0.5) is None


def test_prices_and_biases_are_held_together_per_layer(fits):
    found = bind.price_correlation(fits, 2)
    assert found.shape == (3,) and (np.abs(found) <= 1).all()
