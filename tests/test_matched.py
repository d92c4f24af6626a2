"""Losses compared at matched balance: by hand."""

import numpy as np
import pytest
from results import STUDY, queue, result
from scipy import stats as scipy_stats

from lib import stats
from lib.balance import matched, reading, surface
from lib.balance.study import Job


def compared(gaps, margin=0.05, **how):
    known = queue(gaps)
    own = matched.curves(known, range(len(gaps)), "max_violation")
    return matched.compared(own, margin, **how)


def test_a_loss_is_read_off_its_curve_at_the_balance_that_all_reach():
    """At 1.5, half way between Switch's 2 and 1, Switch costs 0.2 above no loss.  Documents differ
    alike in all runs, so that clusters add nothing to what seeds differ by.
    """
    gaps = [0.01, 0.02, 0.03]
    switch, entropy, most = compared(gaps).itertuples()
    assert (switch.loss, switch.target, switch.seeds) == ("switch", 1.5, 3)
    assert switch.cost == pytest.approx(0.2) and np.isnan(switch.difference)
    assert (entropy.loss, entropy.seeds) == ("entropy", 3)
    assert entropy.difference == pytest.approx(0.02) and entropy.cost == pytest.approx(0.22)
    half = scipy_stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    low, high = entropy.difference_low, entropy.difference_high
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half))
    assert (entropy.cost_low, entropy.cost_high) == pytest.approx((0.22 - half, 0.22 + half))
    assert entropy.p_equivalent == pytest.approx(
        scipy_stats.ttest_1samp(gaps, 0.05, alternative="less").pvalue
    )
    assert (most.loss, most.seeds) == ("max", 0)
    assert np.isnan([most.cost, most.difference, most.difference_low, most.p_equivalent]).all()


def test_a_target_lies_on_the_way_to_no_loss():
    """The lowest that both reach is 1.5, without a loss it is 4."""
    assert compared([0.0] * 2, share=0.5).target.tolist() == [2.75] * 3
    most = compared([0.0] * 2, share=0.8).iloc[2]
    assert (most.loss, most.seeds) == ("max", 2) and most.cost == pytest.approx(0)


def test_two_seeds_that_miss_the_target_end_in_rows_of_nan():
    """The maximum reaches 3 alone; with a single other seed there is a mean without an interval."""
    known = queue([0.0] * 3)
    for seed in (0, 1):
        known[Job("max", 0.1, seed)]["held_out"]["layers"]["max_violation_p95"] = [3, 3]
    known[Job("max", 0.1, 2)]["held_out"]["layers"]["max_violation_p95"] = [1, 1]
    table = matched.compared(matched.curves(known, range(3), "max_violation"), 0.05)
    most = table[table.loss == "max"].iloc[0]
    assert most.seeds == 1 and np.isfinite(most.cost)
    assert np.isnan([most.cost_low, most.difference_low, most.p_equivalent]).all()
    own = {name: matched.curves(known, range(3), name) for name in surface.METRICS}
    asked = surface.over(own, 0.05, levels=surface.SHARES, ways=reading.WAYS)
    assert len(asked) == 18 * 3 and set(surface.by_loss(asked).loss) <= {"entropy", "max"}


def test_one_seed_has_no_interval():
    _, entropy, _ = compared([0.01]).itertuples()
    assert entropy.difference == pytest.approx(0.01)
    told = [entropy.difference_low, entropy.cost_high, entropy.p_equivalent]
    assert np.isnan(told).all()


def test_without_a_whole_seed_every_loss_is_a_row_of_nan():
    own = matched.curves(queue([0.0]), [], "max_violation")
    table = matched.compared(own, 0.05)
    assert table.loss.tolist() == ["switch", "entropy", "max"] and table.seeds.tolist() == [0] * 3
    assert table[["target", "cost", "difference"]].isna().all(axis=None)


def on_two_texts(gaps):
    """The queue on a text of 1,000 tokens, and on another of 2,000 where all but the start costs
    0.1 more.
    """
    found = queue(gaps)
    dearer = {
        job: result(one["held_out"]["nats_per_token"] + 0.1 * (job.loss != "start"), 4)
        for job, one in found.items()
    }
    for job, one in dearer.items():
        one["held_out"]["layers"] = found[job]["held_out"]["layers"]
        one["held_out"]["training_tokens"] = 2000
    return {3: found, 5: dearer}


def test_texts_stand_beside_each_other_and_one_that_is_not_there_is_nan():
    """A run sees 4 × 2 × 100 tokens."""
    results = on_two_texts([0.0] * 2)
    jobs = list(results[3])
    table = matched.by_text(STUDY, results, jobs, 0.05)
    about = matched.texts(table)
    assert about.stride.tolist() == [3, 5] and about.text_tokens_m.tolist() == [1e-3, 2e-3]
    assert about.passes.tolist() == [0.8, 0.4] and about.target.tolist() == [1.5, 1.5]
    assert about.drift.tolist() == pytest.approx([2.5 - 1.9, 2.6 - 1.9])
    assert matched.on_text(table, 1).loss.tolist() == ["switch", "entropy", "max"]
    alone = matched.by_text(STUDY, {3: results[3], 5: {}}, jobs, 0.05)
    assert np.isnan(matched.texts(alone).passes[1]) and matched.on_text(alone, 1).empty
    lacking = matched.equality(matched.on_text(alone, 1))
    assert lacking.loss.tolist() == ["entropy", "gini"]
    assert lacking.drop(columns="loss").isna().all(axis=None)
    told = matched.equal(table, "difference", "gap")
    assert told.tag.tolist() == [""] * 4 + ["elsewhere"] * 4
    assert told.thing.tolist() == ["difference", "difference", "gap", "gap"] * 2
    assert told.loss.tolist() == [*matched.EQUAL] * 4
    assert told.value[[0, 4]].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert matched.equal(alone, "difference").value.isna().tolist() == [False, True, True, True]


def test_equality_is_told_with_enough_seeds_only():
    """Gaps around −0.02: their size has the interval mirrored; with seven seeds only the mean."""
    gaps = np.linspace(-0.03, -0.01, stats.CLUSTERS)
    own = matched.equality(compared(list(gaps))).iloc[0]
    low, high = stats.mean_interval(gaps)
    assert own.gap == pytest.approx(0.02) and own.difference == pytest.approx(-0.02)
    assert (own.gap_low, own.gap_high) == pytest.approx((-high, -low))
    few = matched.equality(compared(list(gaps[1:]))).iloc[0]
    assert few.difference < 0
    assert np.isnan([few.difference_low, few.gap, few.gap_low, few.p_equivalent]).all()
