"""Losses compared at matched balance: by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lib.balance import matched
from lib.balance.finetune import Job


def result(nats, violation):
    per_layer = {"max_violation_p95": [violation - 0.1, violation + 0.1], "gini": [0.1, 0.3]}
    return {
        "held_out": {"nats_per_token": nats, "layers": per_layer},
        "curve": [{"tokens_per_s": speed} for speed in (1.0, 5.0, 2.0)],
    }


def queue(gaps):
    """Switch from (4, 2.0) through (2, 2.1) to (1, 2.3); entropy reaches 1.5 and costs `gaps` more
    there.
    """
    found = {Job("start", 0.0, 0): result(1.9, 4) | {"curve": []}}
    for seed, gap in enumerate(gaps):
        found[Job("none", 0.0, seed)] = result(2.0 + seed, 4)
        found[Job("switch", 0.1, seed)] = result(2.1 + seed, 2)
        found[Job("switch", 0.3, seed)] = result(2.3 + seed, 1)
        found[Job("entropy", 0.1, seed)] = result(2.2 + seed + gap, 1.5)
        found[Job("max", 0.1, seed)] = result(2.0 + seed, 3)
    return found


def test_runs_are_means_over_layers():
    row = matched.runs(queue([0.0])).iloc[1]
    assert (row.loss, row.nats, row.max_violation_p95, row.gini, row.tokens_per_s) == (
        "none",
        2.0,
        4.0,
        0.2,
        2.0,
    )
    assert np.isnan(matched.runs(queue([0.0])).tokens_per_s[0])


def test_a_loss_is_read_off_its_curve_at_the_balance_that_all_reach():
    """At 1.5, half way between Switch's 2 and 1, Switch costs 2.2."""
    gaps = [0.01, 0.02, 0.03]
    target, table = matched.compared(matched.runs(queue(gaps)), [0, 1, 2], 0.05, ["entropy"])
    entropy, most = table.itertuples()
    assert (
        target == 1.5
        and (entropy.loss, entropy.seeds) == ("entropy", 3)
        and entropy.difference == pytest.approx(0.02)
    )
    half = scipy_stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert (entropy.low, entropy.high) == pytest.approx((0.02 - half, 0.02 + half))
    assert entropy.p_equivalent == pytest.approx(
        scipy_stats.ttest_1samp(gaps, 0.05, alternative="less").pvalue
    )
    assert (most.loss, most.seeds) == ("max", 0) and np.isnan(
        [most.difference, most.low, most.p_equivalent]
    ).all()


def test_one_seed_has_no_interval():
    _, table = matched.compared(matched.runs(queue([0.01])), [0], 0.05, ["entropy"])
    assert (
        table.difference[0] == pytest.approx(0.01)
        and np.isnan(table.loc[0, ["low", "high", "p_equivalent"]].astype(float)).all()
    )


def test_only_whole_seeds_are_compared():
    found = queue([0.0, 0.0, 0.0])
    jobs = [job for job in found if job.loss != "start"]
    del found[Job("max", 0.1, 1)]
    assert matched.complete(matched.runs(found), jobs) == [0, 2]


def test_averages_have_intervals_where_there_are_seeds():
    table = matched.averaged(
        matched.runs(queue([0.0, 0.1])), ["loss", "coefficient"], ["nats"]
    ).set_index("loss")
    start, entropy = table.loc["start"], table.loc["entropy"]
    assert start.seeds == 1 and start.nats == start.nats_low == start.nats_high == 1.9
    half = scipy_stats.t.ppf(0.975, 1) * np.std([2.2, 3.3], ddof=1) / np.sqrt(2)
    assert (entropy.nats_low, entropy.nats, entropy.nats_high) == pytest.approx(
        (2.75 - half, 2.75, 2.75 + half)
    )
