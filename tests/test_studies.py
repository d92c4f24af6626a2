"""Studies of layers, ways of sending, tails and sizes: by hand, and by what must hold."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lib.network import (
    cost,
    fabric,
    layers,
    placement,
    scaling,
    sending,
    step,
    synthetic,
    tails,
    traffic,
)

RNG = np.random.default_rng(0)
OLMOE, DEEPSEEK = (step.models()[name] for name in ("OLMoE-1B-7B", "DeepSeek-V3"))
IDEAL = step.published()
CLUSTERS = {
    "star": lambda n: fabric.star(n),
    "tree": lambda n: fabric.nodes(n, 8, oversubscription=3),
}
LEVELS = layers.Study([OLMOE], [8, 32], [256], [0.0, 0.2, 0.4, 0.6, 0.8], seeds=30)


# ---- layers


@pytest.fixture(scope="module")
def draws():
    return layers.draws(LEVELS, CLUSTERS, IDEAL)


def test_time_rises_with_the_level(draws):
    """Mean over paired seeds, 8 devices and more, wire and layer."""
    for _, own in draws.groupby(["fabric", "devices"]):
        for column in ("s", "wire", "rho"):
            assert (np.diff(own.groupby("level")[column].mean()) > 0).all(), column


def test_a_summary_adds_up(draws):
    table = layers.summary(draws, LEVELS, IDEAL)
    np.testing.assert_allclose(table[list(step.PARTS)].sum(axis=1), table.slowdown, atol=1e-12)
    assert (table.slowdown_low <= table.slowdown).all()
    row = table.iloc[-1]
    rest = step.step_s(np.zeros(16), 256, OLMOE, IDEAL)
    even = 16 * 1e-6 * row.even_us
    assert row.whole_step == pytest.approx(even * row.slowdown / (even + rest))
    assert (table.whole_step.abs() < table.slowdown.abs()).all()
    own = draws[(draws.level == 0.4) & (draws.fabric == "star") & (draws.devices == 8)]
    parts = layers.parts_us(draws).set_index(layers.CASE).loc[(OLMOE.name, 8, 256, "star", 0.4)]
    assert parts.wire == pytest.approx(1e6 * own.wire.mean()) and parts.rho == own.rho.mean()


def test_what_the_busiest_device_receives(draws):
    sent = np.array([[5.0, 1, 0], [2, 5, 9], [3, 1, 2]])
    assert traffic.received(sent) == 11 and traffic.received(np.stack([sent, 2 * sent]))[1] == 22
    table = layers.summary(draws, LEVELS, IDEAL)
    even = 256 * 8 * 2 * 2048 / 1e6  # every device gets as many rows as it sends
    np.testing.assert_allclose(table.even_received_mb, even)
    # on a device that receives rho times the mean
    np.testing.assert_allclose(table.received_mb, table.rho * even)
    assert (table.received_p99_mb >= table.received_mb).all()


def test_sizes_of_the_busiest_device():
    rows = pd.DataFrame(dict(shape=[OLMOE.name], devices=[8], tokens=[256], rho=[1.5]))
    assert layers.sizes(rows, LEVELS).iloc[0].to_dict() == dict(
        devices=8, own_bytes=1.5 * 256 * 8 * 4096, rows=1.5 * 256 * 8, weight_bytes=2
    )


def test_drawn_layers_are_their_routes():
    """One seed, by listing the routes that are only counted."""
    chances, shape = synthetic.inclusion(64, 8, 0.5), OLMOE.shape
    sent, rows = layers.drawn(shape, 8, 16, chances, seeds=2, seed=5)
    rng = np.random.default_rng([5, 1])
    labels, home = rng.permutation(64), placement.contiguous(64, 8)
    index = labels[synthetic.sample(chances, 8, 8 * 16, rng, share=16)]
    np.testing.assert_array_equal(sent[1], traffic.matrix(index, home, 8, 4096))
    np.testing.assert_array_equal(rows[1], traffic.slots(index, home, 8, 64))
    assert layers.rho(np.array([[[3, 1], [0, 0]], [[1, 1], [1, 1]]])).tolist() == [2, 1]


def test_devices_that_divide_no_experts_are_told():
    study = dataclasses.replace(LEVELS, devices=[8, 48], tokens=[4, 64], levels=[0.0, 0.6, 0.9])
    assert layers.settings(study).to_dict() == dict(
        left_out="48",
        step_shape="OLMoE-1B-7B",
        step_devices=8,
        step_level=0.6,
        step_tokens_least=4,
        step_tokens_most=64,
    )
    layers.check(study)
    with pytest.raises(
        ValueError, match=r"devices = \[48\]: one must divide the experts of one of"
    ):
        layers.check(dataclasses.replace(study, devices=[48]))
    with pytest.raises(
        ValueError,
        match=r"levels = \[0.9\]: one must be below the highest level of OLMoE-1B-7B, 0.875",
    ):
        layers.check(dataclasses.replace(study, levels=[0.9]))
    assert layers.settings(LEVELS).left_out is None


def hand_made() -> pd.DataFrame:
    """Two shapes, two fabrics, devices 8 and 16, tokens 4 and 64, levels 0 and 0.5; slowdown counts
    the rows.
    """
    keys = [["a", "b"], [8, 16], [4, 64], ["star", "tree"], [0.0, 0.5]]
    table = pd.MultiIndex.from_product(keys, names=layers.CASE).to_frame(index=False)
    size = np.arange(len(table)) - 1.0
    return table.assign(
        slowdown=size, slowdown_low=size - 0.5, slowdown_high=size + 0.5, wire=size / 2
    )


def test_rows_are_chosen_by_what_they_are():
    table = hand_made()
    first = layers.ends(table).set_index("end")
    of = table[(table["shape"] == "a") & (table.devices == 8) & (table.fabric == "star")]
    wanted = of[of.level == 0.5].sort_values("tokens")
    assert first.step_slow.tolist() == wanted.slowdown.tolist()
    assert (first.step_slow_high - first.step_slow_low == 1).all()
    slower = layers.fastest(table.assign(slowdown=table.slowdown.abs()))
    assert np.isnan(slower.even_loses) and np.isnan(slower.even_loses_high)
    best = layers.fastest(table)
    assert (best.even_loses, best.even_loses_low, best.even_loses_high) == (1, 0.5, 1.5)
    assert best.even_loses_where == "a on 8 devices with 4 tokens each, level 0"
    top = layers.highest(table, "tree")
    assert len(top) == 4 and (top.level == 0.5).all() and (top.devices == 16).all()
    assert (top.wire_share == 0.5).all()
    assert layers.highest(table, "tree", tokens=[64]).tokens.tolist() == [64, 64]
    more = pd.concat([table, table.assign(devices=12)])
    assert set(layers.outer(more, "tree").devices) == {8, 16}
    spans = layers.span(table, "slowdown", by="shape").set_index(["shape", "end"]).slowdown
    assert spans.to_dict() == {
        ("a", "low"): -1,
        ("b", "low"): 15,
        ("a", "high"): 14,
        ("b", "high"): 30,
    }


def test_recorded_imbalance_is_carried():
    loads = np.stack([np.full(16, 100.0), 100 * synthetic.inclusion(16, 2, 0.6)])
    study = layers.Study([OLMOE, DEEPSEEK], [32, 8], [256], [], seeds=10)
    even, skewed = (layers.carried(study, load[None], 2, CLUSTERS, IDEAL) for load in loads)
    assert even["shape"].tolist() == [OLMOE.name, DEEPSEEK.name] and (even.devices == 8).all()
    assert (even.slowdown < 0.1).all() and (skewed.slowdown > 2 * even.slowdown).all()
    assert (skewed.slowdown_low < skewed.slowdown).all()
    both = layers.carried(study, loads, 2, CLUSTERS, IDEAL)  # the mean over layers
    np.testing.assert_allclose(both.slowdown, (even.slowdown + skewed.slowdown) / 2)


# ---- sending


def test_what_is_saved_is_paired_by_seed():
    rows = pd.DataFrame(
        dict(
            variant=[sending.PLAIN, "forwarded"] * 2,
            seed=[0, 0, 1, 1],
            leaving=[10.0, 4, 12, 4],
            us=[10.0, 5, 40, 10],
        )
    )
    table = sending.saved(rows).set_index("variant")
    assert table.saved.tolist() == [0, (0.5 + 0.75) / 2]
    assert table.bytes_leaving.tolist() == [11, 4] and table.us.tolist() == [25, 7.5]
    assert table.saved_low["forwarded"] < 0.625 < table.saved_high["forwarded"]


def test_a_copy_less_is_a_byte_less():
    study = sending.Study(DEEPSEEK, 32, 8, 16, 0.3, seeds=4)
    assert (study.nodes, study.kept) == (4, 2)
    rows = sending.variants(study, fabric.nodes(32, 8))
    leaving = rows.pivot(index="seed", columns="variant", values="leaving")
    order = [
        sending.PLAIN,
        "a copy per device",
        "a copy per node, forwarded",
        "at most 2 nodes, forwarded",
    ]
    assert (np.diff(leaving[order], axis=1) < 0).all()
    row = 2 * DEEPSEEK.shape.hidden * DEEPSEEK.out_share
    assert (leaving[order[-1]] <= 2 * row).all()
    assert sending.largest([OLMOE, DEEPSEEK]) is DEEPSEEK
    assert sending.most_devices(step.models()["Mixtral-8x7B"]) == 8
    assert sending.most_devices(OLMOE, (64, 6, 2), per_node=2) == 64
    with pytest.raises(ValueError, match=r"devices = \[3, 6\]: one must divide the 64 experts"):
        sending.most_devices(OLMOE, (3, 6))
    wide = dataclasses.replace(OLMOE, shape=dataclasses.replace(OLMOE.shape, k=40))
    assert dataclasses.replace(study, model=wide).kept == 3  # of four nodes, for 40 of 64 experts
    assert sending.settings(study).to_dict() == dict(
        sent_shape="DeepSeek-V3", sent_devices=32, sent_tokens=16
    )


# ---- tails


def test_only_what_varies_has_a_tail():
    """One batch over and over, one expert on each device: neither batch nor placement matters."""
    index = RNG.integers(0, 4, (2, 100, 1))
    batches = np.tile(np.arange(40), (30, 1))
    shape = cost.Shape(64, 32, 4, 1)
    found = tails.simulated(index, shape, fabric.star(4), IDEAL, batches)
    own = found[found.source == "batch"]
    np.testing.assert_allclose(own[tails.OVER_MEAN], 1)
    varied = RNG.integers(0, 100, (30, 40))
    found = tails.simulated(index, shape, fabric.star(4), IDEAL, varied)
    assert (found[found.source == "batch"].p99_over_mean > 1.01).all()
    assert set(found.source) == {"batch", "placement", "both"} and set(found.layer) == {1, 2}


def test_sources_of_a_tail_by_hand():
    over = dict(zip(tails.OVER_MEAN, (1.0, 1.1, 1.2), strict=True))
    rows = pd.DataFrame(
        [
            dict(arm="with", layer=i, source="batch", **over | {"p99_over_mean": 1.2 + i})
            for i in (0, 1)
        ]
    )
    times = pd.DataFrame(
        dict(tokens=[4, 4, 64], mean_us=10.0, p50_us=10.0, p95_us=12.0, p99_us=[20.0, 40, 15])
    )
    table = tails.table(
        tails.sources(rows), tails.repetitions(times), tails.starts(pd.Series([1.0, 3.0]))
    )
    assert table.source.tolist() == ["batch", "repetition", "start, slower rank over faster"]
    assert table.kind.tolist() == ["simulated", "measured", "measured"]
    assert table.p99_over_mean.tolist() == pytest.approx([1.7, 3, 2.98])
    assert table.p50_over_mean.tolist() == [1, 1, 2]
    assert tails.longest(table)["tail_repetition"] == 3


# ---- sizes


def test_scaling_computes_what_it_should():
    nets = {
        "star": lambda n: fabric.star(n),
        "shared": lambda n: fabric.nodes(n, 4, oversubscription=4),
    }
    study = scaling.Study([8, 16], 0.4, hidden=64, exact_up_to=8, k=4, tokens=32, seeds=3)
    found = scaling.table(study, nets)
    assert (found.fair.dropna() >= 1 - 1e-9).all() and found.fair.isna().sum() == 2
    assert (found.bound_s > 0).all() and (found.slowdown_low <= found.slowdown).all()
    assert scaling.settings(study).to_dict() == dict(
        scale_level=0.4, scale_most=16, exact_devices=8
    )
    none = dataclasses.replace(study, exact_up_to=4)
    assert scaling.settings(none).exact_devices == 0
    assert all(len(sent) == 16 for sent in scaling.drawn(study, 16))


def test_ends_of_scaling_by_hand():
    rows = pd.DataFrame(
        dict(
            devices=[8, 8, 64, 64],
            fabric=["free", "shared"] * 2,
            slowdown=[0.5, 0.6, 3.0, 4.0],
            fair=[1.0, 1.2, np.nan, np.nan],
            bound_s=[0.001, 0.002, 0.03, 0.02],
            exact_s=[0.1, 0.4, np.nan, np.nan],
        )
    )
    found = scaling.ends(rows, fabric="free", shared="shared")
    assert found.to_dict() == dict(
        scale_few=1.5,
        scale_many=4.0,
        fair_free=1.0,
        fair_most=1.2,
        fair_where="shared",
        bound_ms=30.0,
        exact_ms=400.0,
    )
    assert scaling.largest(rows).slowdown.to_dict() == dict(free=3.0, shared=4.0)
    none = scaling.ends(rows.assign(fair=np.nan), fabric="free", shared="shared")
    assert none.fair_where == "none" and np.isnan(none.fair_most)
