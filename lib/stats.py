"""Imbalance metrics over the expert axis, their null baselines, and intervals.

A load is an array [..., experts] of counts: every leading axis (layer, batch, seed) keeps its own
value.  Counts of different layers are never added up; the metrics take one axis, so that it cannot
happen by accident.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike

CLUSTERS = 8  # with fewer, no interval is given


def _load(load: ArrayLike, axis: int) -> np.ndarray:
    """The load as floats with experts last; refuses negative or missing counts and a row without
    any.
    """
    load = np.moveaxis(np.asarray(load, dtype=float), axis, -1)
    if load.shape[-1] < 2:
        raise ValueError(
            f"stats: load of shape {load.shape}: must have at least 2 experts along its axis"
        )
    if not np.isfinite(load).all() or (load < 0).any():
        raise ValueError("stats: load: must hold finite numbers ≥ 0")
    if (load.sum(-1) == 0).any():
        raise ValueError("stats: load: every row must have at least one assignment")
    return load


def gini(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Gini coefficient Σ (2i − E − 1) x_(i) / (E Σ x), x_(i) sorted upwards: 0 is even, 1 − 1/E one
    expert only.

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
    """Coefficient of variation, standard deviation (ddof 0) over mean: 0 is even, √(E − 1) one
    expert only.
    """
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
    """MaxVio = max/nominal − 1 (arXiv 2408.15664, eq. 4); nominal is N k / E, by default the mean
    of the load.
    """
    load = _load(load, axis)
    if nominal is not None and not (np.isfinite(nominal) and nominal > 0):
        raise ValueError(f"stats.max_violation: nominal = {nominal}: must be a finite number > 0")
    return load.max(-1) / (load.mean(-1) if nominal is None else nominal) - 1


def min_over_mean(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """Least load over mean load: 1 is even, 0 a dead expert."""
    load = _load(load, axis)
    return load.min(-1) / load.mean(-1)


def dead_experts(load: ArrayLike, axis: int = -1) -> np.ndarray:
    """How many experts got nothing."""
    return (_load(load, axis) == 0).sum(-1)


def cv_null(tokens: int, experts: int, k: int) -> float:
    """CV of the load of a perfect router whose tokens choose independently: √((1 − k/E) E / (N k)).

    0 at k = E, where every token loads all experts.  Refused: no token, or k beyond the experts.
    """
    if tokens < 1 or not 1 <= k <= experts:
        given = f"tokens = {tokens}, k = {k}"
        raise ValueError(f"stats.cv_null: {given}: must be tokens ≥ 1 and k from 1 to {experts}")
    return float(np.sqrt((1 - k / experts) * experts / (tokens * k)))


def gini_null(tokens: int, experts: int, k: int) -> float:
    """Mean Gini of such a router: CV₀ √((E − 1)/E) / √π, for loads close to normal."""
    return cv_null(tokens, experts, k) * float(np.sqrt((experts - 1) / experts / np.pi))


def _counts(counts: ArrayLike, where: str, documents: int = 1) -> np.ndarray:
    """Counts [documents, experts] as floats; refused: another shape, negative or missing ones."""
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or len(counts) < documents or counts.shape[1] < 2:
        rule = f"must be [documents ≥ {documents}, experts ≥ 2]"
        raise ValueError(f"stats.{where}: counts of shape {counts.shape}: {rule}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"stats.{where}: counts: must hold finite numbers ≥ 0")
    return counts


def permutation_null(counts: ArrayLike, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Loads [draws, experts] under the document-permutation null: expert labels permuted per
    document.

    counts: [documents, experts].  Keeps how bursty each document is, and removes what documents
    agree on; tokens of one document are not independent, so this, not independent tokens, is what
    "balanced" looks like for real text.
    """
    counts = _counts(counts, "permutation_null")
    return np.stack([rng.permuted(counts, axis=1).sum(0) for _ in range(draws)])


def cv2_unbiased(counts: ArrayLike) -> float:
    """CV²_U = E (Σ_e C_e² − Σ_{d,e} c_de²) / ((Σ n_d)² − Σ n_d²) − 1, from counts [documents,
    experts].

    Unbiased for the squared CV of the expected load when documents are independent: only pairs of
    different documents enter, so a document's own burstiness does not.  0 for a balanced router,
    may be negative.  Refused: fewer than two documents with assignments, as there is no pair.
    """
    counts = _counts(counts, "cv2_unbiased", documents=2)
    n = counts.sum(1)
    if (n > 0).sum() < 2:
        raise ValueError(
            f"stats.cv2_unbiased: {(n > 0).sum()} documents with assignments: must be at least 2"
        )
    pairs = (counts.sum(0) ** 2).sum() - (counts**2).sum()
    return float(counts.shape[1] * pairs / (n.sum() ** 2 - (n**2).sum()) - 1)


def jackknife_interval(
    counts: np.ndarray,
    clusters: np.ndarray,
    statistic: Callable,
    level: float = 0.95,
    least: int = CLUSTERS,
) -> tuple[float, float] | None:
    """Interval of statistic(counts [documents, …]) by leaving out one cluster of documents at a
    time.

    Student's t with clusters − 1 degrees of freedom; None below `least` clusters, where no interval
    is given. The delete-one-cluster jackknife: Efron and Tibshirani, An Introduction to the
    Bootstrap (1993), chapter 11.
    """
    names = np.unique(clusters)
    if len(clusters) != len(counts):
        rule = f"must be one per document, {len(counts)}"
        raise ValueError(f"stats.jackknife_interval: {len(clusters)} clusters: {rule}")
    if len(names) < least:
        return None
    whole = statistic(counts)
    left = np.array([statistic(counts[clusters != name]) for name in names])
    m = len(names)
    error = np.sqrt((m - 1) / m * ((left - left.mean()) ** 2).sum())
    half = scipy.stats.t.ppf(0.5 + level / 2, m - 1) * error
    return whole - half, whole + half


def _samples(samples: ArrayLike, where: str) -> np.ndarray:
    """Samples [n ≥ 2] as floats; a missing one would pass unseen through a sort."""
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 1 or len(samples) < 2 or not np.isfinite(samples).all():
        raise ValueError(
            f"stats.{where}: samples of shape {samples.shape}: must be [n ≥ 2] finite numbers"
        )
    return samples


def mean_interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student-t interval of the mean of independent samples [n]; refuses fewer than two, and
    missing ones.
    """
    samples = _samples(samples, "mean_interval")
    half = (
        scipy.stats.t.ppf(0.5 + level / 2, len(samples) - 1)
        * samples.std(ddof=1)
        / np.sqrt(len(samples))
    )
    return float(samples.mean() - half), float(samples.mean() + half)


def quantile_interval(samples: ArrayLike, q: float, level: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the q-quantile of independent samples [n], from binomial order
    statistics.

    Where the sample is too small for the level, the end is the sample's own extreme.
    """
    ordered = np.sort(_samples(samples, "quantile_interval"))
    if not 0 < q < 1:
        raise ValueError(f"stats.quantile_interval: q = {q}: must lie between 0 and 1")
    tail = (1 - level) / 2
    low = int(scipy.stats.binom.ppf(tail, len(ordered), q)) - 1
    high = int(scipy.stats.binom.ppf(1 - tail, len(ordered), q))
    return float(ordered[max(low, 0)]), float(ordered[min(high, len(ordered) - 1)])


def bootstrap_interval(
    samples: ArrayLike,
    statistic: Callable[[np.ndarray], float],
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of statistic(samples [n, …]); whole clusters are drawn with replacement
    (None: samples).

    None below 8 clusters, where no interval is given.  Not for a Gini near balance, whose bootstrap
    interval may miss always: print it beside its null.  Efron and Tibshirani, An Introduction to
    the Bootstrap (1993), chapter 13.
    """
    samples = np.asarray(samples)
    clusters = np.arange(len(samples)) if clusters is None else np.asarray(clusters)
    if len(clusters) != len(samples):
        rule = f"must be one per sample, {len(samples)}"
        raise ValueError(f"stats.bootstrap_interval: {len(clusters)} clusters: {rule}")
    members = [np.flatnonzero(clusters == name) for name in np.unique(clusters)]
    if len(members) < CLUSTERS:
        return None
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(members), size=(draws, len(members)))
    found = [statistic(samples[np.concatenate([members[i] for i in row])]) for row in chosen]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's adjusted p-values [n]: reject where they are ≤ α, and the family errs at all with
    probability ≤ α.

    The i-th smallest of n becomes max over j ≤ i of min(1, (n − j + 1) p_(j)).  Holm 1979, Scand.
    J. Statist. 6, 65.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"stats.holm: p_values of shape {p.shape}: must be [n ≥ 1] numbers from 0 to 1"
        )
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p-value of the two one-sided t-tests (TOST) that the mean of paired differences [n] lies
    within ± margin.

    The larger of the two one-sided p-values; ≤ α means equivalent, as does a 1 − 2α interval inside
    the margin. Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657.  Refused: fewer than two
    differences, a margin not above 0.
    """
    d = _samples(differences, "equivalence_p")
    if not margin > 0:
        raise ValueError(f"stats.equivalence_p: margin = {margin}: must be > 0")
    error = max(d.std(ddof=1) / np.sqrt(len(d)), np.finfo(float).tiny)
    return float(scipy.stats.t.sf((margin - abs(d.mean())) / error, len(d) - 1))


def size_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval of |x| for x in `interval`: from 0 where it holds 0."""
    low, high = interval
    inside = low <= 0 <= high
    return (0.0 if inside else min(abs(low), abs(high))), max(abs(low), abs(high))


def crossing(x: ArrayLike, y: ArrayLike, at: float) -> float:
    """y at `at` on the straight lines between points (x, y) in order of x; NaN outside of them,
    never extrapolated.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        given = f"x {x.shape}, y {y.shape}"
        raise ValueError(f"stats.crossing: {given}: must be two equal rows of at least one number")
    order = np.argsort(x)
    return float(np.interp(at, x[order], y[order], left=np.nan, right=np.nan))
