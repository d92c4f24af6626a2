"""Metrics against hand-worked values and independent computations; nulls against their claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from lib import stats
from lib.routing import profile

loads = arrays(float, (3, 8), elements=st.floats(0.5, 1e6))


def test_the_metrics_of_the_profile_are_all_there():
    """The predecessor's five (Gini, variance, CV, entropy, MaxVio) and what tells a dead expert."""
    row = profile.metrics(np.array([[0, 0, 0, 8.0]])).iloc[0]
    predecessor = dict(gini=3 / 4, variance=12, cv=np.sqrt(3), entropy=0, max_violation=3)
    more = dict(effective=1, min_over_mean=0, dead=3)
    assert row.to_dict() == pytest.approx(predecessor | more)


def test_hand_worked():
    load = np.array([0, 0, 0, 8.0])
    assert stats.gini(load) == pytest.approx(3 / 4)
    assert stats.cv(load) == pytest.approx(np.sqrt(3))
    assert stats.variance(load) == pytest.approx(12)
    assert stats.entropy(load) == 0 and stats.effective_experts(load) == 1
    assert (
        stats.max_violation(load) == 3
        and stats.min_over_mean(load) == 0
        and stats.dead_experts(load) == 3
    )
    assert stats.gini([1, 3]) == pytest.approx(1 / 4)


def test_even_load_is_the_zero_of_every_metric():
    load = np.full((2, 5), 7)
    for metric in (stats.gini, stats.cv, stats.variance, stats.max_violation):
        np.testing.assert_allclose(metric(load), 0, atol=1e-12)
    np.testing.assert_allclose(stats.entropy(load), 1)


@given(loads)
def test_against_definitions(load):
    pairs = np.abs(load[:, :, None] - load[:, None, :]).mean((1, 2)) / (2 * load.mean(1))
    np.testing.assert_allclose(stats.gini(load), pairs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        stats.cv(load), scipy_stats.variation(load, axis=1), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        stats.effective_experts(load), np.exp(scipy_stats.entropy(load, axis=1)), rtol=1e-9
    )


@given(loads, st.floats(0.1, 100))
def test_scale_and_order_do_not_matter(load, scale):
    for metric in (stats.gini, stats.cv, stats.entropy, stats.max_violation):
        np.testing.assert_allclose(metric(load * scale), metric(load), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(metric(load[:, ::-1]), metric(load), rtol=1e-8, atol=1e-10)


def test_layers_are_never_added_up():
    """Two layers that overload different experts look even when added up (an error of a serving
    engine).
    """
    load = np.array([[10.0, 0.0], [0.0, 10.0]])
    assert stats.gini(load.sum(0)) == 0
    np.testing.assert_allclose(stats.gini(load), [0.5, 0.5])


@pytest.mark.parametrize("bad", [[1, -1], [1, np.nan], [0, 0]])
def test_bad_loads_are_refused(bad):
    with pytest.raises(ValueError, match="stats: load"):
        stats.gini(bad)
    with pytest.raises(ValueError, match="at least 2 experts"):
        stats.gini([3.0])


@pytest.mark.parametrize(("tokens", "expected"), [(128, 0.128), (8192, 0.016)])
def test_null_of_gini(tokens, expected):
    assert stats.gini_null(tokens, 16, 2) == pytest.approx(expected, abs=5e-4)
    rng = np.random.default_rng(0)
    chosen = rng.random((60, tokens, 16)).argpartition(2, axis=-1)[..., :2].reshape(60, -1)
    drawn = np.mean([stats.gini(np.bincount(row, minlength=16)) for row in chosen])
    assert drawn == pytest.approx(stats.gini_null(tokens, 16, 2), rel=0.05)


def bursty(rng, documents=60, experts=8, tokens=50):
    """Balanced over documents, lopsided within each: every document prefers experts of its own."""
    return np.stack(
        [rng.multinomial(tokens, rng.dirichlet(np.full(experts, 0.3))) for _ in range(documents)]
    )


def test_document_null_holds_its_rate_where_the_independent_null_fails():
    rng = np.random.default_rng(1)
    document, independent, trials = 0, 0, 200
    for _ in range(trials):
        counts = bursty(rng)
        observed = stats.gini(counts.sum(0))
        document += observed > np.quantile(
            stats.gini(stats.permutation_null(counts, 99, rng)), 0.95
        )
        even = rng.multinomial(counts.sum(), np.full(8, 1 / 8), size=99)
        independent += observed > np.quantile(stats.gini(even), 0.95)
    assert scipy_stats.binomtest(int(document), trials, 0.05).pvalue > 0.001
    assert independent > 0.95 * trials


def test_cv2_is_unbiased_and_small_case_worked_by_hand():
    counts = np.array([[2, 0], [1, 1]])
    assert stats.cv2_unbiased(counts) == pytest.approx(2 * ((9 + 1) - (4 + 1 + 1)) / (16 - 8) - 1)
    rng = np.random.default_rng(2)
    balanced = [stats.cv2_unbiased(bursty(rng)) for _ in range(400)]
    assert abs(np.mean(balanced)) < 4 * np.std(balanced) / np.sqrt(400)
    share = np.array([4, 2, 1, 1]) / 8
    drawn = [stats.cv2_unbiased(rng.multinomial(40, share, size=30)) for _ in range(400)]
    truth = 4 * (share**2).sum() - 1
    assert abs(np.mean(drawn) - truth) < 4 * np.std(drawn) / np.sqrt(400)


def test_intervals_cover():
    rng = np.random.default_rng(3)
    hits = [
        low <= 0 <= high
        for low, high in (stats.mean_interval(rng.normal(size=12)) for _ in range(400))
    ]
    assert 0.92 < np.mean(hits) < 0.98
    hits = [
        low <= 0.9 <= high
        for low, high in (stats.quantile_interval(rng.random(200), 0.9) for _ in range(400))
    ]
    assert np.mean(hits) > 0.92


def test_jackknife_covers_and_needs_eight_clusters():
    rng = np.random.default_rng(4)
    share = np.array([4, 2, 1, 1]) / 8
    truth, hits = 4 * (share**2).sum() - 1, 0
    for _ in range(200):
        counts, clusters = rng.multinomial(60, share, size=40), np.repeat(np.arange(20), 2)
        low, high = stats.jackknife_interval(counts, clusters, stats.cv2_unbiased)
        hits += low <= truth <= high
    assert hits > 180
    assert stats.jackknife_interval(counts, np.arange(40) % 7, stats.cv2_unbiased) is None


def test_holm_by_hand_and_by_its_step_down_definition():
    np.testing.assert_allclose(stats.holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    assert stats.holm([0.9, 0.8]).max() == 1
    rng = np.random.default_rng(5)
    for _ in range(50):
        p = rng.random(7) ** 3
        rejected = np.zeros(7, dtype=bool)
        for step, i in enumerate(np.argsort(p)):  # goes on until the first that is not rejected
            if p[i] > 0.05 / (7 - step):
                break
            rejected[i] = True
        np.testing.assert_array_equal(stats.holm(p) <= 0.05, rejected)


def test_holm_keeps_the_error_rate_of_the_family():
    rng = np.random.default_rng(6)
    errors = [(stats.holm(rng.random(8)) <= 0.05).any() for _ in range(2000)]
    assert scipy_stats.binomtest(int(np.sum(errors)), 2000, 0.05).pvalue > 0.001


def test_bootstrap_agrees_with_scipy_and_respects_clusters():
    rng = np.random.default_rng(7)
    samples = rng.gamma(2.0, size=60)
    mine = stats.bootstrap_interval(samples, np.mean, draws=4000)
    ready = scipy_stats.bootstrap((samples,), np.mean, n_resamples=4000, method="percentile", rng=0)
    np.testing.assert_allclose(mine, ready.confidence_interval, rtol=0.02)
    clusters = np.repeat(np.arange(20), 10)
    correlated = rng.normal(size=20)[clusters] + 0.1 * rng.normal(size=200)
    free, bound = (
        np.diff(stats.bootstrap_interval(correlated, np.mean, given)) for given in (None, clusters)
    )
    assert bound > 2 * free
    assert stats.bootstrap_interval(samples, np.mean, np.arange(60) % 7) is None


def test_cluster_bootstrap_covers():
    rng, clusters = np.random.default_rng(8), np.repeat(np.arange(30), 4)
    hits = 0
    for seed in range(200):
        low, high = stats.bootstrap_interval(
            rng.normal(size=30)[clusters], np.mean, clusters, draws=300, seed=seed
        )
        hits += low <= 0 <= high
    assert 0.87 < hits / 200 < 0.99


@pytest.mark.parametrize("counts", [[[1, 2], [-1, 2]], [[1, 2], [np.nan, 2]], [[1, 2]], [1, 2]])
def test_bad_counts_are_refused(counts):
    with pytest.raises(ValueError, match="stats.cv2_unbiased: counts"):
        stats.cv2_unbiased(counts)


def test_other_refusals():
    for call, message in [
        (lambda: stats.cv2_unbiased([[1, 2], [0, 0]]), "1 documents with assignments"),
        (lambda: stats.permutation_null([1, 2], 3, np.random.default_rng()), "counts of shape"),
        (lambda: stats.max_violation([1, 2], nominal=0), "nominal = 0"),
        (lambda: stats.cv_null(0, 8, 2), "tokens = 0"),
        (lambda: stats.gini_null(10, 8, 9), "k = 9"),
        (lambda: stats.mean_interval([1, np.nan]), "finite numbers"),
        (lambda: stats.quantile_interval([1, np.nan, 3], 0.5), "finite numbers"),
        (lambda: stats.quantile_interval([1, 2, 3], 1.0), "q = 1.0"),
        (
            lambda: stats.jackknife_interval(np.ones((9, 2)), np.arange(8), stats.cv2_unbiased),
            "one per document",
        ),
        (lambda: stats.bootstrap_interval([1, 2, 3], np.mean, [0, 1]), "one per sample"),
        (lambda: stats.holm([0.1, 1.2]), "from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_equivalence_is_two_one_sided_tests_and_the_interval_inside_the_margin():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.004, -0.02):
        d = rng.normal(shift, 0.004, 8)
        upper = scipy_stats.ttest_1samp(d, 0.005, alternative="less").pvalue
        lower = scipy_stats.ttest_1samp(d, -0.005, alternative="greater").pvalue
        p = stats.equivalence_p(d, 0.005)
        assert p == pytest.approx(max(upper, lower), rel=1e-9)
        low, high = stats.mean_interval(d, level=0.9)
        assert (p <= 0.05) == (low > -0.005 and high < 0.005)
    for bad, message in ((([0.1], 1), "must be"), (([0.1, 0.2], 0), "margin = 0: must be > 0")):
        with pytest.raises(ValueError, match=message):
            stats.equivalence_p(*bad)


def test_size_interval_and_crossing():
    assert stats.size_interval((-0.3, 0.1)) == (0.0, 0.3)
    assert stats.size_interval((-0.3, -0.1)) == (0.1, 0.3) and stats.size_interval((0.1, 0.3)) == (
        0.1,
        0.3,
    )
    assert (
        stats.crossing([3, 1, 2], [30, 10, 40], 1.5) == 25
        and stats.crossing([3, 1], [30, 10], 3) == 30
    )
    assert np.isnan(stats.crossing([3, 1], [30, 10], 3.1)) and np.isnan(stats.crossing([2], [5], 1))
    with pytest.raises(ValueError, match="must be two equal rows"):
        stats.crossing([1, 2], [1], 1)
