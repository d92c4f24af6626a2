"""What the synthesis tells of cheaper repairs and of sizes."""

import numpy as np
import pandas as pd
import pytest

from lib.commands import declared, repairing


def test_the_repair_of_like_balance_is_the_nearest():
    rows = [
        ("all", 0.1, 2.0),
        ("routers", 0.1, 3.5),
        ("routers", 1.0, 1.8),
        ("routers", 10.0, 1.2),
        ("bias", 0.5, 2.4),
        ("bias", 1.0, 1.1),
    ]
    table = pd.DataFrame(rows, columns=["trained", "coefficient", "max_violation"])
    found = repairing.matched(table)
    assert found.trained.tolist() == ["all", "routers", "bias"]
    assert found.max_violation.tolist() == [2.0, 1.8, 2.4]


def pair(name, seed, nats, counts, parameters):
    own = {"nats": nats, "tokens": [10, 10], "cluster": [0, 1], "counts": counts}
    return {"job": {"name": name, "seed": seed}, "profile": own, "parameters": parameters}


def brief(name, seed, nats, load, parameters):
    """Of a pair that is only compared."""
    own = {"nats": nats, "tokens": [10, 10], "cluster": [0, 1], "load": load}
    return {"job": {"name": name, "seed": seed}, "gain": own, "parameters": parameters}


def test_gains_by_size_by_hand():
    even, uneven = [[[5, 5]], [[5, 5]]], [[[10, 0]], [[10, 0]]]
    results = {
        "none_1": pair("none", 1, [20, 30], uneven, 8e6),
        "switch_1": pair("switch", 1, [19, 29], even, 8e6),
        "size-113m-none_1": pair("size-113m-none", 1, [10, 10], uneven, 113e6),
        "size-113m-switch_1": pair("size-113m-switch", 1, [10, 10], even, 113e6),
        "size-113m-none_2": brief("size-113m-none", 2, [12, 12], [[20, 0]], 113e6),
        "size-113m-switch_2": brief("size-113m-switch", 2, [10, 10], [[10, 10]], 113e6),
    }
    table = repairing.sizes(results)
    assert table.parameters_m.tolist() == [8, 113]
    assert table.gain.tolist() == pytest.approx([0.1, 0.1])
    assert table.checkpoints.tolist() == [1, 2]
    assert table.gini_before.tolist() == [0.5] * 2 and table.gini_after.tolist() == [0] * 2
    assert repairing.ends(table).gain.tolist() == pytest.approx([0.1, 0.1])
    assert repairing.sizes({}).empty and repairing.cheaper({}).empty


def test_what_smaller_models_gain_more_by_hand():
    """Gains of .2 and .4 beside .1 and .1: Welch's t has one degree of freedom, nearly."""
    even, results = [[[5, 5]], [[5, 5]]], {}
    for size, gains in {"size-4m-": (0.2, 0.4), "": (0.1, 0.1001), "size-113m-": (0.0,)}.items():
        for seed, gain in enumerate(gains):
            for loss, nats in (("none", 20 + 10 * gain), ("switch", 20)):
                name = f"{size}{loss}"
                results[f"{name}_{seed}"] = pair(name, seed, [nats, nats], even, 1e6)
    (row,) = repairing.between(results).to_dict("records")
    assert row["part"] == "8m" and row["more"] == pytest.approx(0.2, abs=1e-4)
    assert row["more_high"] == pytest.approx(0.2 + 12.7062 * 0.1, abs=1e-3)
    assert row["p"] == pytest.approx(np.arctan(0.5) / np.pi, abs=1e-3)
    assert repairing.between({}).empty and repairing.readable(repairing.between({})).empty


def test_fresh_pairs_are_compared_alone():
    even, results = [[[5, 5]], [[5, 5]]], {}
    old, fresh = declared.SEEDS[0], declared.SEEDS[declared.SIZE_SEEDS :]
    for size, step in {"size-4m-": 0.1, "size-113m-": 0.01}.items():
        for seed in (old, *fresh):
            gain = 9.0 if seed == old else step * (1 + 0.01 * seed)
            for loss, nats in (("none", 20 + 10 * gain), ("switch", 20)):
                name = f"{size}{loss}"
                results[f"{name}_{seed}"] = pair(name, seed, [nats, nats], even, 1e6)
    (row,) = repairing.between(results).to_dict("records")
    mean = 1 + 0.01 * np.mean(fresh)
    assert row["part"] == "fresh" and row["more"] == pytest.approx(0.09 * mean)
    assert row["smaller_pairs"] == row["larger_pairs"] == len(fresh) and row["more_low"] > 0
    assert repairing.readable(repairing.between(results)).pairs.tolist() == ["fresh alone"]


def test_the_price_of_models_without_a_loss_varies_with_models_and_clusters(monkeypatch):
    models, clusters = np.linspace(0.1, 0.3, 8), np.linspace(-0.02, 0.02, 9)
    monkeypatch.setattr(repairing.ladder_results, "of", lambda *_: models)
    monkeypatch.setattr(repairing.ladder_results, "price", lambda one: np.full(10, one))
    row = repairing.price_without({}).iloc[0]
    half = 2.364624 * np.std(models, ddof=1) / np.sqrt(8)
    assert row.price == pytest.approx(0.2) and row.price_high == pytest.approx(0.2 + half)
    monkeypatch.setattr(
        repairing.ladder_results, "price", lambda one: one + np.append(0.0, clusters)
    )
    wider = 2.364624 * np.sqrt(np.var(models, ddof=1) / 8 + 8 / 9 * (clusters**2).sum())
    assert repairing.price_without({}).iloc[0].price_high == pytest.approx(0.2 + wider)
    monkeypatch.setattr(repairing.ladder_results, "of", lambda *_: [])
    assert repairing.price_without({}).isna().all(axis=None)
