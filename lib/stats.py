"""Imbalance metrics over the expert axis, their null baselines, and intervals.

A load is an array [..., experts] of counts: every leading axis (layer, batch, seed) keeps its own value.  Counts of
different layers are never added up; the metrics take one axis, so that it cannot happen by accident.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats


def _load(load: ArrayLike, axis: int) -> np.ndarray:
    """The load as floats with experts last; refuses negative or missing counts and a row without any."""
    load = np.moveaxis(np.asarray(load, dtype=float), axis, -1)
    if load.shape[-1] < 2:
        raise ValueError(f"stats: load of shape {load.shape}: must have at least 2 experts along its axis")
    if not np.isfinite(load).all() or (load < 0).any():
        raise ValueError("stats: load: must hold finite numbers ≥ 0")
    if (load.sum(-1) == 0).any():
        raise ValueError("stats: load: every row must have at least one assignment")
    return load


def gini(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Gini coefficient Σ (2i − E − 1) x_(i) / (E Σ x), x_(i) sorted upwards: 0 is even, 1 − 1/E one expert only.

    With k distinct experts a token the most is 1 − k/E; divide by that to compare models.
    """
    load = np.sort(_load(load, axis), axis=-1)
    experts = load.shape[-1]
    weights = 2 * np.arange(1, experts + 1) - experts - 1
    return (weights * load).sum(-1) / (experts * load.sum(-1))


def variance(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Population variance (ddof 0) of the load, in counts²."""
    return _load(load, axis).var(-1)


def cv(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Coefficient of variation, standard deviation (ddof 0) over mean: 0 is even, √(E − 1) one expert only."""
    load = _load(load, axis)
    return load.std(-1) / load.mean(-1)


def entropy(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Entropy of the load over ln E: 1 is even, 0 one expert only."""
    share = _load(load, axis)
    share = share / share.sum(-1, keepdims=True)
    terms = np.where(share > 0, share * np.log(np.where(share > 0, share, 1.0)), 0.0)
    return -terms.sum(-1) / np.log(share.shape[-1])


def effective_experts(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """exp(entropy in nats): how many evenly loaded experts are as uncertain, from 1 to E."""
    return np.exp(entropy(load, axis) * np.log(np.asarray(load).shape[axis]))


def max_violation(load: ArrayLike, axis: int = -1, nominal: float | None = None) -> np.ndarray:
    """MaxVio = max/nominal − 1 (arXiv 2408.15664, eq. 4); nominal is N k / E, by default the mean of the load."""
    load = _load(load, axis)
    return load.max(-1) / (load.mean(-1) if nominal is None else nominal) - 1


def min_over_mean(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Least load over mean load: 1 is even, 0 a dead expert."""
    load = _load(load, axis)
    return load.min(-1) / load.mean(-1)


def dead_experts(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """How many experts got nothing."""
    return (_load(load, axis) == 0).sum(-1)


def cv_null(tokens: int, experts: int, k: int) -> float:
    """CV of the load of a perfect router whose tokens choose independently: √((1 − k/E) E / (N k))."""
    return float(np.sqrt((1 - k / experts) * experts / (tokens * k)))


def gini_null(tokens: int, experts: int, k: int) -> float:
    """Mean Gini of such a router: CV₀ √((E − 1)/E) / √π, for loads close to normal."""
    return cv_null(tokens, experts, k) * float(np.sqrt((experts - 1) / experts / np.pi))


def permutation_null(counts: ArrayLike, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Loads [draws, experts] under the document-permutation null: expert labels permuted per document.

    counts: [documents, experts].  Keeps how bursty each document is, and removes what documents agree on; tokens of one
    document are not independent, so this, not independent tokens, is what "balanced" looks like for real text.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2:
        raise ValueError(f"stats.permutation_null: counts of shape {counts.shape}: must be [documents, experts]")
    return np.stack([rng.permuted(counts, axis=1).sum(0) for _ in range(draws)])


def cv2_unbiased(counts: ArrayLike) -> float:
    """CV²_U = E (Σ_e C_e² − Σ_{d,e} c_de²) / ((Σ n_d)² − Σ n_d²) − 1, from counts [documents, experts].

    Unbiased for the squared CV of the expected load when documents are independent: only pairs of different documents
    enter, so a document's own burstiness does not.  0 for a balanced router, may be negative.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or len(counts) < 2:
        raise ValueError(f"stats.cv2_unbiased: counts of shape {counts.shape}: must be [≥ 2 documents, experts]")
    n = counts.sum(1)
    pairs = (counts.sum(0) ** 2).sum() - (counts**2).sum()
    return float(counts.shape[1] * pairs / (n.sum() ** 2 - (n**2).sum()) - 1)


def jackknife_interval(
    counts: np.ndarray, clusters: np.ndarray, statistic: Callable, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval of statistic(counts [documents, …]) by leaving out one cluster of documents at a time.

    Student's t with clusters − 1 degrees of freedom; None below 8 clusters, where no interval is given.
    """
    names = np.unique(clusters)
    if len(names) < 8:
        return None
    whole = statistic(counts)
    left = np.array([statistic(counts[clusters != name]) for name in names])
    m = len(names)
    error = np.sqrt((m - 1) / m * ((left - left.mean()) ** 2).sum())
    half = scipy_stats.t.ppf(0.5 + level / 2, m - 1) * error
    return whole - half, whole + half


def mean_interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student-t interval of the mean of independent samples [n]; refuses fewer than two."""
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or len(samples) < 2:
        raise ValueError(f"stats.mean_interval: samples of shape {samples.shape}: must be [n ≥ 2]")
    half = scipy_stats.t.ppf(0.5 + level / 2, len(samples) - 1) * samples.std(ddof=1) / np.sqrt(len(samples))
    return float(samples.mean() - half), float(samples.mean() + half)


def quantile_interval(samples: ArrayLike, q: float, level: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the q-quantile of independent samples [n], from binomial order statistics.

    Where the sample is too small for the level, the end is the sample's own extreme.
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    if ordered.ndim != 1 or len(ordered) < 2 or not 0 < q < 1:
        raise ValueError(f"stats.quantile_interval: n = {ordered.size}, q = {q}: must be n ≥ 2 and 0 < q < 1")
    tail = (1 - level) / 2
    low = int(scipy_stats.binom.ppf(tail, len(ordered), q)) - 1
    high = int(scipy_stats.binom.ppf(1 - tail, len(ordered), q))
    return float(ordered[max(low, 0)]), float(ordered[min(high, len(ordered) - 1)])
