"""Costs by how they are asked for: what the published runs say is held against a script that knows
nothing of this library, the rest is worked by hand.
"""

from dataclasses import replace
from functools import cache

import independent_training
import numpy as np
import pandas as pd
import pytest
from results import STUDY, queue, result
from scipy.interpolate import CubicHermiteSpline
from scipy.stats import t

from lib import stats
from lib.balance import crossed, documents, finetune, matched, quality, reading, surface
from lib.balance.study import Job


@cache
def published(stride: int) -> dict:
    rows = finetune.unpack(independent_training.RUNS)
    own = [row for row in rows if row["settings"]["training_stride"] == stride]
    return {Job(**row["job"]): row for row in own}


@pytest.mark.parametrize("stride", [4, 25])
@pytest.mark.parametrize("metric", ["max_violation", "gini"])
def test_costs_of_the_published_runs_are_those_of_an_independent_script(stride, metric):
    """Straight lines, at the lowest balance: cost of Switch, and differences, with intervals."""
    own = matched.curves(published(stride), range(8), metric)
    table = matched.compared(own, 0.005).set_index("loss")
    other = independent_training.costs(stride, metric)
    assert own.lowest() == pytest.approx(other["target"])
    for loss, (cost, difference) in other["losses"].items():
        row = table.loc[loss]
        found = (row.cost, row.cost_low, row.cost_high)
        assert found == pytest.approx(cost, abs=2e-6, nan_ok=True)
        if loss != "switch":
            found = (row.difference, row.difference_low, row.difference_high)
            assert found == pytest.approx(difference, abs=2e-6, nan_ok=True)


def test_perplexity_of_the_published_runs_is_that_of_an_independent_script():
    coefficients = {"none": [0.0], "switch": [0.03, 0.1, 0.17, 0.3], "gini": [0.1, 0.3, 0.55, 1.0]}
    study = replace(STUDY, coefficients=coefficients)
    known = {job: one for job, one in published(4).items() if job.loss in ("start", *coefficients)}
    table = quality.by_loss(study, known).set_index("loss")
    for loss, (before, after, low, high) in independent_training.perplexities(4).items():
        row = table.loc[loss]
        assert row.perplexity_before == pytest.approx(before)
        assert row.perplexity == pytest.approx(after)
        found = (row.perplexity_ratio_low, row.perplexity_ratio_high)
        assert found == pytest.approx((low, high), abs=2e-6)
        assert np.isnan(row.accuracy_points)  # the published records hold no hits


def test_the_withdrawn_ranking_changes_with_what_is_asked():
    own = {
        words: matched.curves(published(4), range(8), name)
        for name, words in surface.METRICS.items()
    }
    asked = surface.over(own, 0.005, levels=surface.SHARES, ways=reading.WAYS)
    first = asked[(asked.level == "lowest") & (asked.way == "straight lines")]
    most = first[first.loss == "max"].set_index("metric").difference
    assert most["MaxVio, P95"] < 0 < most["Gini"]
    gini = asked[(asked.loss == "gini") & (asked.level == "lowest")]
    gini = gini[gini.metric == "MaxVio, P95"].set_index("way").difference
    assert gini["straight lines"] > 1.3 * gini["monotone cubic"] > 0
    cheapest = surface.cheapest(asked).groupby("metric").loss.agg(set)
    assert "max" in cheapest["MaxVio, P95"] and "max" not in cheapest["Gini"]
    assert surface.told(surface.cheapest(asked)).cheapest > 1
    told = surface.furthest(asked)
    assert told.gap_most_entropy_high < 0.005 < told.gap_most_gini_high


def test_errors_of_seeds_and_clusters_are_added():
    values = np.random.default_rng(0).normal(size=(3, 1 + stats.CLUSTERS))
    left, m = values[:, 1:].mean(0), stats.CLUSTERS
    seeds = values[:, 0].std(ddof=1) / np.sqrt(3)
    clusters = np.sqrt((m - 1) / m * ((left - left.mean()) ** 2).sum())
    error, freedom = crossed.error(values)
    assert error == pytest.approx(np.hypot(seeds, clusters))
    assert freedom == pytest.approx(error**4 / (seeds**4 / 2 + clusters**4 / (m - 1)))
    found = crossed.mean(values, "x")
    assert found["x_high"] - found["x"] == pytest.approx(t.ppf(0.975, freedom) * error)
    for part in (values[:1], values[:, :-1]):
        assert np.isnan(crossed.mean(part, "x")["x_low"])
        assert np.isnan(crossed.equivalence_p(part, 1.0))
    assert np.isnan(crossed.mean(values[:0], "x")["x"])


def test_the_interval_of_a_mean_over_clusters_covers():
    """Document effects that all seeds share: seeds alone cover next to never, both about always."""
    rng, hits, alone, trials, m = np.random.default_rng(1), 0, 0, 300, 20
    for _ in range(trials):
        documents_ = rng.normal(size=m) + rng.normal(scale=0.05, size=(4, m))
        sums = documents_.sum(1, keepdims=True)
        values = np.hstack([sums / m, (sums - documents_) / (m - 1)])
        found = crossed.mean(values, "x")
        hits += found["x_low"] <= 0 <= found["x_high"]
        low, high = stats.mean_interval(values[:, 0])
        alone += low <= 0 <= high
    assert 0.9 < hits / trials < 0.99 and alone / trials < 0.5


def test_curves_are_read_in_three_ways():
    """Of y = x² at 0, 1, 2, 4: the parabola is exact, lines lie above, the cubic between points."""
    x = np.array([4.0, 0.0, 2.0, 1.0])
    y = np.stack([x**2, 2 * x], axis=1)
    assert reading.straight(x, y, 3.0).tolist() == [10, 6]
    assert reading.quadratic(x, y, 3.0) == pytest.approx([9, 6])
    assert reading.quadratic(x, y, 1.5) == pytest.approx([2.25, 3])
    slopes = 2 / (1 / 1 + 1 / 3)  # harmonic mean at 1, of equal steps
    at_two = 9 / (5 / 3 + 4 / 6)  # weights 2·2 + 1 and 2 + 2·1 of the steps 1 and 2
    spline = CubicHermiteSpline([1, 2], [1, 4], [slopes, at_two])
    assert reading.cubic(x, y, 1.5)[0] == pytest.approx(float(spline(1.5)))
    for way in reading.WAYS.values():
        assert np.isnan(way(x, y, 4.1)).all() and np.isnan(way(x, y, -0.1)).all()
        assert way(x[:1], y[:1], 4.0).tolist() == [16, 8]
        assert way(np.array([1.0, 1.0, 2.0]), y[:3], 1.0).tolist() == [8, 4]


def test_a_parabola_that_overshoots_is_no_reading():
    x, y = np.array([0.0, 1.0, 10.0]), np.array([[0.0], [1.0], [1.0]])
    assert np.isnan(reading.quadratic(x, y, 5.0)).all()


def test_the_cheapest_and_the_spans_by_hand():
    """A loss that is .01 below Switch in one cell and .02 above it in another."""
    rows = [
        dict(metric="m", level=level, way="w", loss=loss, seeds=8, difference=value)
        for level, gap in (("a", -0.01), ("b", 0.02))
        for loss, value in (("switch", np.nan), ("gini", gap), ("max", np.nan))
    ]
    table = pd.DataFrame(rows)
    table["difference_low"], table["difference_high"] = table.difference - 1e-3, table.difference
    assert surface.cheapest(table).loss.tolist() == ["gini", "switch"]
    (row,) = surface.by_loss(table).itertuples()
    assert (row.loss, row.least, row.most, row.cells) == ("gini", -0.01, 0.02, 2)
    assert (row.least_at, row.most_at) == ("m, a, w", "m, b, w")
    assert (row.cheaper, row.dearer) == (1, 1)
    told = surface.told(surface.cheapest(table))
    assert (told.cells, told.cheapest) == (2, 2)
    assert np.isnan(surface.told(surface.cheapest(table[:0])).cheapest)
    told = surface.furthest(table)
    assert told.gap_most_gini == 0.02 and np.isnan(told.gap_most_entropy)


def test_documents_of_runs_are_found_by_their_digest():
    """The record of the base model names the documents of the published runs."""
    one = published(4)[Job("none", 0.0, 0)]
    known = documents.of(one)
    assert known is not None and known.tokens.sum() == one["held_out"]["documents"]["tokens"]
    assert known.cluster.nunique() == one["held_out"]["documents"]["clusters"]
    unknown = result(2.0, 1)
    del unknown["held_out"]["documents"]["cluster"]
    assert documents.of(unknown) is None and len(documents.per_token(unknown)) == 1


def test_per_token_without_a_cluster_by_hand():
    """Nine documents of 10 tokens, the first of 16 nats, the last of 24."""
    values = documents.per_token(result(2.0, 1))
    assert values[[0, 1, -1]] == pytest.approx([2.0, (180 - 16) / 80, (180 - 24) / 80])
    assert documents.per_token(result(2.0, 1), "correct")[0] == pytest.approx(0.4)
    assert len(queue([0.0])) == 6
