"""An exchange's times and the predecessor's table: by hand, and against their definitions."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.network import exchange, fabric, fluid, placement, predecessor, synthetic, traffic

STUDY = exchange.Study(experts=32, k=2, tokens=1024, devices=8, bytes_per_token=4096, seeds=40)
SMALL = exchange.Study(experts=32, k=2, tokens=256, devices=8, bytes_per_token=2, seeds=20)
STAR = fabric.star(8)


def test_time_rises_with_the_level():
    levels = (0, 0.2, 0.5, 0.8)
    means = [fluid.exchange_s(exchange.matrices(STUDY, x), STAR).mean() for x in levels]
    assert (np.diff(means) > 0).all()
    even = fluid.exchange_s(traffic.even(1024, 2, 8, 4096), STAR)
    assert even < means[0] < 1.2 * even
    side = exchange.matrices(STUDY, 0.5, permute=False)
    assert fluid.exchange_s(side, STAR).mean() > means[2]


def test_matrices_are_drawn_once_and_not_written_to():
    first = exchange.matrices(SMALL, 0.3)
    assert first.shape == (20, 8, 8) and (first.sum((1, 2)) == SMALL.bytes_sent).all()
    assert exchange.matrices(SMALL, 0.3) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1
    one_hot = exchange.Study(32, 2, 256, 8, 2, seeds=20, family="one_hot")
    assert exchange.matrices(one_hot, 0.0) is exchange.matrices(SMALL, 0.0)
    sided = exchange.matrices(SMALL, 0.7, permute=False).sum((0, 1))
    assert sided.argmax() == 0 and (np.diff(sided[:4]) < 0).all()


def test_a_study_that_cannot_be_is_refused():
    exchange.check(SMALL, [0.0, 0.9])
    with pytest.raises(ValueError, match="level = 0.95: must be from 0 to below 0.9375"):
        exchange.check(SMALL, [0.0, 0.95])
    with pytest.raises(ValueError, match="experts = 30, devices = 8"):
        exchange.check(exchange.Study(30, 2, 256, 8, 2, seeds=20), [0.0])
    known = exchange.settings(SMALL)
    assert known.to_dict() == dict(experts=32, k=2, devices=8, highest_level=0.9375)


def test_levels_are_compared_seed_by_seed():
    """Two seeds, 1 and 3 µs at level 0, each twice that at level 0.5; even routes take 1 µs."""
    rows = pd.DataFrame(
        dict(
            fabric="one",
            level=[0.0, 0.0, 0.5, 0.5],
            seed=[0, 1, 0, 1],
            us=[1.0, 3, 2, 6],
            even_us=1.0,
            received_mb=[1.0, 2, 3, 4],
        )
    )
    table = exchange.summary(rows).set_index("level")
    assert table.received_mb.tolist() == [1.5, 3.5]
    assert table.mean_us.tolist() == [2, 4] and table.p50_us.tolist() == [2, 4]
    assert table.over_even.tolist() == [2, 4]
    assert table.slowdown.tolist() == [0, 1]
    assert table.loc[0.5, ["slowdown_low", "slowdown_high"]].tolist() == [1, 1]
    # Student's t of two samples: 12.706 · 2 / √2 · … around 4 and 2
    assert table.loc[0.0, "mean_us_high"] == pytest.approx(2 + 12.7062 * np.sqrt(2) / np.sqrt(2))
    assert table.p99_over_mean.tolist() == pytest.approx([2.98 / 2, 5.96 / 4])
    said = exchange.told(exchange.summary(rows), "one")
    assert said.base_over_even == 1 and said.slowdown_top == said.slowdown_top_low == 1
    assert said.p99_over_mean_top == pytest.approx(5.96 / 4)
    again = exchange.summary(rows[::-1]).set_index("level")  # whatever the order of the levels
    pd.testing.assert_frame_equal(again, table)


def test_times_at_levels_are_those_of_the_matrices():
    nets = {"star": STAR, "nodes": fabric.nodes(8, 4)}
    rows = exchange.at_levels(SMALL, [0.0, 0.4], nets)
    assert exchange.all_sent(rows, SMALL)
    assert not exchange.all_sent(rows.assign(bytes_sent=rows.bytes_sent - 2), SMALL)
    for (name, level), own in rows.groupby(["fabric", "level"]):
        sent = exchange.matrices(SMALL, level)
        np.testing.assert_allclose(own.us, 1e6 * fluid.exchange_s(sent, nets[name]))
        even = fluid.exchange_s(traffic.even(256, 2, 8, 2), nets[name])
        assert own.even_us.unique() == pytest.approx(1e6 * even)


def test_batches_are_counted_as_each_alone():
    rng = np.random.default_rng(0)
    index = rng.random((500, 8)).argsort(1)[:, :2]
    homes = np.stack([placement.random(8, 4, rng) for _ in range(3)])
    for tokens in (40, 200_000):  # few are counted together, many in stretches
        batches = rng.integers(0, 500, (3, tokens))
        found = exchange.batch_matrices(index, batches, homes, 4, 2.0)
        for batch, home, sent in zip(batches, homes, found, strict=True):
            np.testing.assert_array_equal(sent, traffic.matrix(index[batch], home, 4, 2.0))


def test_recorded_routes_by_hand():
    """Layer 1: all tokens choose expert 0, so that one of two devices sends all that it has, twice
    what even routes send; layer 2: each device's two tokens choose both experts.
    """
    index = np.array([[[0], [0], [0], [0]], [[0], [1], [0], [1]]])
    nets = {"star": fabric.star(2), "half": fabric.star(2, 225e9)}
    rows = exchange.recorded(index, np.array([[0, 1, 2, 3]] * 5), 2, 2, nets)
    assert rows.groupby("layer").over_even.unique().map(list).to_dict() == {1: [2.0], 2: [1.0]}
    assert len(rows) == 2 * 2 * 5


def test_recorded_times_are_summed_up_by_layer_and_arm():
    rows = pd.DataFrame(
        dict(
            arm=["without"] * 4 + ["with"] * 4,
            fabric="star",
            layer=[1, 1, 2, 2] * 2,
            over_even=[2.0, 4, 3, 5, 1, 2, 3, 3],
        )
    )
    table = exchange.by_layer(rows)
    assert table.over_even.tolist() == [3, 4, 1.5, 3]
    assert table.over_even_low.iloc[0] == pytest.approx(2.1)
    assert table.over_even_high.iloc[0] == pytest.approx(3.9)
    spread = exchange.spread(rows, "star", ["mean", "p50"])
    assert spread.values.tolist() == [
        ["without", "mean", 3.5],
        ["without", "p50", 3.5],
        ["with", "mean", 2.25],
        ["with", "p50", 2.5],
    ]
    assert exchange.largest_ratio(table, "star", "with", "without") == 0.75
    assert np.isnan(exchange.largest_ratio(table, "star", "with", "model"))


# ---- the predecessor


KNOWN = predecessor.table()


def test_its_table_as_it_was_published():
    assert KNOWN.level.tolist() == [0, 0.2, 0.5, 0.8]
    assert KNOWN.slowdown.round(3).tolist() == [0, 0.208, 0.172, 0.588]


def test_families_are_tried_at_the_levels_they_reach():
    rows = predecessor.families(SMALL, STAR, KNOWN)
    assert rows.groupby("family").size().to_dict() == dict(
        power=4, lognormal=4, sorted=4, one_hot=2
    )
    even = rows[rows.level == 0]
    assert even.inside.all() and (even.slowdown.abs() < 0.1).all()
    assert (rows.slowdown_low < rows.slowdown).all() and (rows.slowdown < rows.slowdown_high).all()
    means = rows[rows.level == 0.5].set_index("family").slowdown
    assert means["sorted"] > means["power"] > 0.5
    # a table that single runs of one family made is one that it can show
    own = fluid.exchange_s(np.stack([exchange.matrices(SMALL, x)[7] for x in KNOWN.level]), STAR)
    made = KNOWN.assign(slowdown=own / own[0] - 1)
    fitting = predecessor.fits(predecessor.families(SMALL, STAR, made), made)
    assert fitting.set_index("family").able["power"]
    assert "power" in predecessor.able(fitting)


def test_a_family_is_able_that_shows_every_level():
    rows = pd.DataFrame(
        dict(
            family=["a"] * 4 + ["b"] * 4 + ["c"] * 2,
            level=[0.0, 0.2, 0.5, 0.8, 0.0, 0.2, 0.5, 0.8, 0.0, 0.2],
            slowdown=0.1,
            slowdown_low=0.0,
            slowdown_high=0.2,
            predecessor=0.15,
            inside=[True] * 4 + [True, True, False, True] + [True, True],
        )
    )
    fitting = predecessor.fits(rows, KNOWN).set_index("family")
    assert fitting.inside.to_dict() == dict(a=3, b=2, c=1)
    assert fitting.able.to_dict() == dict(a=True, b=False, c=False)
    assert fitting.level.tolist() == [0.8, 0.8, 0.2]
    assert predecessor.able(fitting.reset_index()) == "a"
    assert predecessor.able(fitting.reset_index().iloc[1:]) == "none of those tried"


def test_readings_that_are_no_gini_are_tried_by_single_runs():
    rows = predecessor.readings(SMALL, STAR, KNOWN)
    assert rows.groupby("family").size().eq(4).all() and set(rows.family) == set(
        predecessor.READINGS
    )
    means = rows[rows.level == 0.8].set_index("family").slowdown
    assert means["all that the level is on one expert"] > means["even within 1 ± the level"]
    assert rows.reversal.between(0, 1).all()
    # a table that single runs of a reading made is one that it can show
    zipf = rows[rows.family == "Zipf with exponent = level"]
    made = KNOWN.assign(slowdown=zipf.slowdown.to_numpy())
    fitting = predecessor.fits(predecessor.readings(SMALL, STAR, made), made).set_index("family")
    assert fitting.able["Zipf with exponent = level"]
    assert not fitting.able["all that the level is on one expert"]


def test_weights_of_readings_worked_by_hand():
    rng, read = np.random.default_rng(0), predecessor.READINGS
    fifth = read["the level's share on a fifth"](0.5, 10, rng)
    assert fifth.tolist() == pytest.approx([0.3] * 2 + [0.05] * 8)
    assert read["Zipf with exponent = level"](1.0, 4, rng).tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert np.ptp(read["mixed with an uneven draw"](0.0, 10, rng)) == 0
    capped = synthetic.capped(np.array([1.0, 8, 1]), 2)
    assert capped.tolist() == [1, 0.5, 0.5]


def test_claims_are_judged_by_power_law_routes():
    found = predecessor.claims(SMALL, STAR, KNOWN)
    runs = [fluid.exchange_s(exchange.matrices(SMALL, x), STAR) for x in KNOWN.level]
    assert found.slowdown_claimed == pytest.approx((runs[3] / runs[0] - 1).mean())
    assert found.gain_balanced == pytest.approx((1 - runs[0] / runs[3]).mean())
    means = np.mean(runs, axis=1)
    assert found.mean_growth_least == pytest.approx((means[1:] / means[:-1]).min() - 1)
    slower = [(a > b) for a in runs[1] for b in runs[2]]
    assert found.reversal == pytest.approx(np.mean(slower))
    for name in ("slowdown_claimed", "gain_balanced", "mean_growth_least"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    few = exchange.Study(8, 2, 64, 8, 2, seeds=20)  # reaches levels below 0.75
    assert predecessor.claims(few, STAR, KNOWN).isna().all()


def test_its_result_file_names_what_the_times_depend_on():
    rows = exchange.summary(exchange.at_levels(SMALL, [0.0], {"star": STAR}))
    given = dict(num_tokens=256, run_dir="here", device="auto", trace="auto")
    found = json.loads(predecessor.results(rows, given))
    assert found["parameters"] == {"num_tokens": 256}
    assert found["levels"][0]["mean_us"] == pytest.approx(rows.mean_us.item())


def test_kinds_of_traffic_by_hand():
    rows = pd.DataFrame(
        dict(arm=["a"] * 4, fabric=["f", "f", "f", "g"], over_even=[1.0, 2.0, 3.0, 9.0])
    )
    table = exchange.traffics({"ordinary": rows, "one prompt": rows.assign(over_even=4.0)}, "f")
    assert table.traffic.tolist() == ["even", "ordinary", "one prompt"]
    assert table.over_even.tolist() == [1, 2, 4] and table.over_even_low[1] == 1.1
    assert exchange.prompts(table, "one prompt").values.tolist() == [["a", 4, 4]]
