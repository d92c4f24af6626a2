"""Studies of layers, ways of sending, tails, placements and sizes: by hand, by what must hold."""

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
    transfer,
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
    table = layers.summary(draws, IDEAL)
    np.testing.assert_allclose(table[list(step.PARTS)].sum(axis=1), table.slowdown, atol=1e-12)
    assert (table.slowdown_low <= table.slowdown).all()
    row = table.iloc[-1]
    rest = step.step_s(np.zeros(16), 256, OLMOE, IDEAL)
    even = 16 * 1e-6 * row.even_us
    assert row.whole_step == pytest.approx(even * row.slowdown / (even + rest))
    assert (table.whole_step.abs() < table.slowdown.abs()).all()
    own = draws[(draws.level == 0.4) & (draws.fabric == "star") & (draws.devices == 8)]
    parts = layers.parts_us(draws).set_index(layers.CASE).loc[(OLMOE.name, 8, 256, "star", 0.4)]
    assert parts.wire == pytest.approx(1e6 * own.wire.mean())


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
    assert layers.settings(LEVELS).left_out == "none"


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
    assert first.tokens.to_dict() == dict(least=4, most=64)
    assert first.step_slow.tolist() == wanted.slowdown.tolist()
    assert (first.step_slow_high - first.step_slow_low == 1).all()
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


# ---- placements


def judged_twice() -> pd.DataFrame:
    """Two domains with busy experts of their own: packing takes them apart at home and not
    elsewhere.
    """
    load = np.array([8.0, 8, 8, 8, 1, 1, 1, 1])
    rng = np.random.default_rng(1)
    tokens = [rng.choice(8, (4000, 1), p=part / part.sum()) for part in (load, load[::-1])]
    study = transfer.Study(
        cost.Shape(256, 128, 8, 1), fabric.star(4), IDEAL, tokens=500, batches=5, redundant=4
    )
    domain = np.repeat([0, 1], 4000)
    return transfer.domains(study, np.concatenate(tokens)[None], np.arange(8000) // 10, domain)


def test_packing_helps_where_it_was_packed():
    rho = judged_twice().groupby(["placement", "where"]).rho.mean()
    assert rho["packed", "same domain"] < 1.3 < rho["in order", "same domain"]
    assert rho["replicated", "same domain"] < 1.3


def test_halves_too_short_for_a_batch_are_left_out():
    study = transfer.Study(
        cost.Shape(256, 128, 8, 1), fabric.star(4), IDEAL, tokens=9, batches=5, redundant=4
    )
    index = RNG.integers(0, 8, (1, 16, 1))
    found = transfer.domains(study, index, np.arange(16), np.repeat([0, 1], 8))
    assert found.empty and {"placement", "where", "rho"} <= set(found)
    with pytest.raises(ValueError, match="tokens = 9: must be from 1 to 8"):
        transfer.windows(np.arange(8), 9, 1, RNG)


def test_a_table_of_placements_has_both_domains_side_by_side():
    rows = pd.DataFrame(
        [
            dict(arm="without", placement=name, where=where, rho=rho + gain, slowdown=rho - 1)
            for name, rho in (("in order", 3.0), ("packed", 1.5))
            for where in (transfer.SAME, transfer.OTHER)
            for gain in (-0.25, 0.25)
        ]
    )
    placed = transfer.means(rows)
    assert placed.rho.tolist() == [3, 3, 1.5, 1.5]
    table = transfer.table(placed, "without").set_index("placement")
    assert table.loc["packed"].to_dict() == dict(
        rho_same=1.5, rho_other=1.5, slowdown_same=0.5, slowdown_other=0.5
    )
    told = transfer.told(placed, "without")
    assert told[["placement", "where"]].values.tolist() == [
        ["order", "same"],
        ["packed", "same"],
        ["packed", "other"],
    ]
    assert transfer.told(placed, "with").empty


def counts_of(loads: dict[str, list[int]]) -> pd.DataFrame:
    """Published counts of one layer of a model "m", by domain."""
    rows = [(d, e, count) for d, load in loads.items() for e, count in enumerate(load)]
    table = pd.DataFrame(rows, columns=["domain", "expert", "count"])
    return table.assign(model="m", layer=0)


def test_counts_by_hand():
    """Two devices, four experts: "x" is busy on 0 and 1, "y" on 0 and 2."""
    counts = counts_of({"x": [9, 9, 1, 1], "y": [9, 1, 9, 1]})
    found = transfer.of_counts(counts, {"g": ("m", 2)})
    rho = found.set_index(["domain", "placement", "where"]).rho
    assert rho["x", "in order", "packed for"] == 1.8 and rho["y", "in order", "packed for"] == 1
    assert rho["x", "packed", "packed for"] == 1  # 0 with one idle expert, 1 with the other
    averages = transfer.averages(found).set_index(["placement", "where"]).rho
    assert averages["packed", "packed for"] == 1 and averages["in order", "packed for"] == 1.4
    counted = transfer.counted(found, "g")
    assert counted.counts_packed == 1 and counted.counts_order == 1.4
    assert counted.counts_moved == averages["packed", "another domain"]


def test_what_is_kept_of_a_placement():
    """In order 3; placed 1 at home and 2 elsewhere: half of what it takes off remains."""
    rows = pd.DataFrame(
        [
            dict(group="g", layer=layer, domain=d, placement=name, where=where, rho=rho)
            for layer in range(4)
            for d in ("x", "y")
            for name, where, rho in (
                ("in order", "packed for", 3.0),
                ("in order", "another domain", 3.0),
                ("packed", "packed for", 1.0),
                ("packed", "another domain", 2.0),
            )
        ]
    )
    found = transfer.kept(rows, {"packing_kept": ("g", "packed")})
    assert found.values.tolist() == [["packing_kept", 0.5, 0.5, 0.5]]


def test_published_counts_hold_what_the_chapter_says():
    counts = pd.read_csv(transfer.COUNTS)
    sums = counts.groupby(["model", "layer", "domain"])["count"].sum()
    tokens = counts.groupby(["model", "layer", "domain"]).tokens.first()
    assert (sums / tokens).isin([2, 8]).all()
    found = transfer.of_counts(counts, {"o": ("OLMoE-1B-7B", 8), "m": ("Mixtral-8x7B", 4)})
    rho = found.groupby(["placement", "where"]).rho.mean()
    assert rho["packed", "packed for"] < rho["packed", "another domain"]


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
