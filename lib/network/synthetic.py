"""Synthetic routes of a given imbalance, or of the imbalance of a recorded load.

A *level* is the Gini coefficient of the experts' inclusion probabilities π, Σ π = k: what share of
the tokens each expert is to get.  It ranges from 0 up to, not including, 1 − k/E, the most that k
distinct experts a token allow.
"""

from __future__ import annotations

import numba
import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

UNIT = 1 << 32  # inclusion probabilities are whole multiples of 1/UNIT, so that sampling is exact


def _gini(weights: np.ndarray) -> float:
    ordered, n = np.sort(weights), len(weights)
    return float(((2 * np.arange(1, n + 1) - n - 1) * ordered).sum() / (n * ordered.sum()))


def _capped(weights: np.ndarray, k: int) -> np.ndarray:
    """min(1, a w) with the one a that makes the sum k, w sorted downwards: the first j are 1, the
    rest scaled.
    """
    rest = np.cumsum(weights[::-1])[::-1]
    for full in range(k):
        a = (k - full) / rest[full]
        if a * weights[full] <= 1:
            return np.concatenate([np.ones(full), a * weights[full:]])
    return np.concatenate([np.ones(k), np.zeros(len(weights) - k)])


def capped(weights: np.ndarray, k: int) -> np.ndarray:
    """Inclusion probabilities [experts] that are as these weights [experts], ≥ 0, falling, with sum
    k and none above 1.
    """
    return _capped(np.sort(weights)[::-1], k)


def _steep(log_weights: np.ndarray, steepness: float, k: int) -> np.ndarray:
    """Weights exp(s · log weight) [experts] for _capped, anchored at the k-th expert.

    All above e^40 times the k-th weight are cut to that: their share is full long before, and none
    overflows.
    """
    return np.exp(np.minimum(steepness * (log_weights - log_weights[k - 1]), 40.0))


def _power(experts: int) -> np.ndarray:
    return -np.log(np.arange(1, experts + 1.0))


def _lognormal(experts: int) -> np.ndarray:
    return ndtri((np.arange(experts, 0, -1) - 0.5) / experts)


# the logarithm of each family's weights at steepness 1; at steepness s it is s times that
SHAPES = {"power": _power, "lognormal": _lognormal}
FAMILIES = (*SHAPES, "one_hot")


def highest_level(experts: int, k: int, family: str = "power") -> float:
    """The level that a family approaches but does not reach: 1 − k/E; for one hot expert it reaches
    1/k − 1/E.
    """
    return 1 / k - 1 / experts if family == "one_hot" else 1 - k / experts


def inclusion(experts: int, k: int, level: float, family: str = "power") -> np.ndarray:
    """Inclusion probabilities [experts], falling, with sum k, none above 1, and Gini = level.

    power: min(1, a i^−s); lognormal: min(1, a exp(s z_i)) at normal quantiles z; one_hot: one
    expert above the rest. s is found on a log scale, whatever its size; a level below 1e-12 counts
    as even. Refused: an unknown family, k not below E, a level outside the family's range.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"synthetic.inclusion: family = {family!r}: must be one of {', '.join(FAMILIES)}"
        )
    if not 1 <= k < experts:
        raise ValueError(
            f"synthetic.inclusion: top_k = {k}: must be from 1 to num_experts − 1 = {experts - 1}"
        )
    most = highest_level(experts, k, family)
    if not 0 <= level < most:
        raise ValueError(
            f"synthetic.inclusion: level = {level}: must be from 0 to below {most:.4g} "
            f"({family}, {experts} experts, top-{k})"
        )
    if level < 1e-12:
        return np.full(experts, k / experts)
    if family == "one_hot":
        hot = k * (level + 1 / experts)
        return np.array([hot, *np.full(experts - 1, (k - hot) / (experts - 1))])
    return _levelled(SHAPES[family](experts), k, level)


def _levelled(log_weights: np.ndarray, k: int, level: float) -> np.ndarray:
    """Inclusion probabilities [experts] from falling log weights, as steep as their Gini needs to
    be the level.
    """

    def excess(steepness: float) -> float:
        return _gini(_capped(_steep(log_weights, steepness, k), k)) - level

    high = 1.0
    while excess(high) < 0 and high < 1e12:
        high *= 2
    steepness = brentq(excess, 0, high, xtol=1e-12) if excess(high) > 0 else high
    return _capped(_steep(log_weights, steepness, k), k)


def _exact(probability: np.ndarray, k: int) -> np.ndarray:
    """Whole multiples of 1/UNIT that sum to k and stay at most 1, nearest to `probability`."""
    parts = np.floor(probability * UNIT).astype(np.int64)
    room = np.argsort(parts - probability * UNIT)
    room = room[parts[room] < UNIT]
    parts[room[: k * UNIT - int(parts.sum())]] += 1
    return parts


def _parts(probability: np.ndarray, k: int) -> np.ndarray:
    """_exact, refusing probabilities that do not sum to k."""
    parts = _exact(probability, k)
    if parts.sum() != k * UNIT:
        raise ValueError(
            f"synthetic: probabilities sum to {probability.sum()}: must sum to k = {k}"
        )
    return parts


def sample(
    probability: np.ndarray, k: int, tokens: int, rng: np.random.Generator, share: int = 1
) -> np.ndarray:
    """Routes [tokens, k]: k distinct experts a token, expert e with probability π_e exactly.

    Systematic sampling in a random order (Madow 1949): the experts' probabilities are laid end to
    end in an order drawn anew for each token, and every whole number after a random start picks the
    expert it falls on.  share: this many tokens share an order, which is far faster; every expert's
    count keeps its distribution, as the starts stay independent, and only which experts meet in a
    token is less mixed.
    """
    parts = _parts(probability, k)
    if share == 1:
        order = rng.random((tokens, len(parts)), dtype=np.float32).argsort(axis=1)
        return _picked(order, parts, rng.integers(0, UNIT, (tokens, 1)), k)
    found = []
    for count in _stretches(tokens, share):
        order = rng.permutation(len(parts))
        points = UNIT * np.arange(1, k + 1) - rng.integers(0, UNIT, (count, 1))
        found.append(order[np.searchsorted(np.cumsum(parts[order]), points)])
    return np.concatenate(found)


def counts(
    probability: np.ndarray, k: int, tokens: int, rng: np.random.Generator, share: int
) -> np.ndarray:
    """[stretches, experts] how often each stretch of `share` tokens chooses each expert: those of
    `sample` with the same arguments, which draws the same numbers, counted without listing them.

    Up to point x of the line on which the probabilities lie end to end, the token that starts at s
    picks ⌊x + s⌋ experts; of all tokens that is tokens · ⌊x⌋ + #(s ≥ 1 − (x − ⌊x⌋)).
    """
    parts = _parts(probability, k)
    found = np.zeros((-(-tokens // share), len(parts)), dtype=np.int64)
    for row, count in zip(found, _stretches(tokens, share), strict=True):
        order, starts = rng.permutation(len(parts)), rng.integers(0, UNIT, (count, 1))
        _tally(order, parts, np.sort(starts[:, 0]), row)
    return found


def _stretches(tokens: int, share: int) -> list[int]:
    """Numbers of tokens that share an order."""
    return [min(share, tokens - first) for first in range(0, tokens, share)]


@numba.njit(cache=True, nogil=True)
def _tally(order, parts, starts, row):
    """Write to `row` [experts] how many of the sorted `starts` pass a whole number at each expert,
    whose `parts` lie end to end in `order`.
    """
    at, passed = 0, 0
    for expert in order:
        at += parts[expert]
        beyond = len(starts) - np.searchsorted(starts, (1 << 32) - (at & ((1 << 32) - 1)))
        until = (at >> 32) * len(starts) + beyond
        row[expert] = until - passed
        passed = until


@numba.njit(cache=True, nogil=True)
def _picked(order, parts, starts, k):
    """Routes [tokens, k]: the experts in `order` [tokens, experts] at which the sum of `parts`
    [experts] after `starts` [tokens, 1] passes a whole number.
    """
    found = np.empty((len(order), k), np.int64)
    for token in range(len(order)):
        at, passed = starts[token, 0], 0
        for expert in order[token]:
            at += parts[expert]
            if at >> 32 > passed:
                found[token, passed] = expert
                passed += 1
    return found


def fitted(load: np.ndarray, experts: int, k: int, recorded_k: int) -> np.ndarray:
    """Inclusion probabilities [experts], falling, that carry the imbalance of a recorded load to
    another layer.

    The logarithm of the load [experts recorded, top-recorded_k], sorted, is read off at the new
    experts' ranks, and made so steep that Gini / (1 − k/E), the share of the largest possible, is
    the recorded one.  What is drawn from it is synthetic. Refused: loads that are negative or all
    0, a k not below its experts, a load more uneven than its k allows.
    """
    load = np.sort(np.asarray(load, dtype=float))[::-1]
    if load.ndim != 1 or not np.isfinite(load).all() or load[-1] < 0 or load[0] <= 0:
        raise ValueError(
            f"synthetic.fitted: load of shape {load.shape}: "
            "must be [experts], finite, ≥ 0 and not all 0"
        )
    if not (1 <= k < experts and 1 <= recorded_k < len(load)):
        raise ValueError(
            f"synthetic.fitted: top_k = {k} of {experts}, recorded {recorded_k} of {len(load)}: "
            "must be from 1 to below the experts"
        )
    most = highest_level(len(load), recorded_k)
    share = _gini(load) / most
    if share >= 1:
        raise ValueError(
            f"synthetic.fitted: load of Gini {_gini(load):.4g}: must be below {most:.4g}, "
            f"top-{recorded_k}'s most"
        )
    if share < 1e-12:
        return np.full(experts, k / experts)
    ranks = [(np.arange(n) + 0.5) / n for n in (experts, len(load))]
    logs = np.interp(ranks[0], ranks[1], np.log(np.maximum(load, load[0] * 1e-9)))
    return _levelled(logs, k, share * highest_level(experts, k))


def group_limited(
    probability: np.ndarray,
    k: int,
    tokens: int,
    rng: np.random.Generator,
    *,
    groups: int,
    kept: int,
) -> np.ndarray:
    """Routes [tokens, k] that touch at most `kept` of `groups` consecutive groups of experts.

    Scores are log π plus Gumbel noise; groups are ranked by the sum of their two best, and the best
    k experts of the kept groups are taken (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).  Refused:
    numbers that do not divide or leave fewer than k.
    """
    experts = len(probability)
    if (
        experts % groups
        or not 1 <= kept <= groups
        or kept * (experts // groups) < k
        or experts // groups < 2
    ):
        raise ValueError(
            f"synthetic.group_limited: experts = {experts}, groups = {groups}, kept = {kept}, "
            f"k = {k}: groups must divide experts, hold at least 2, and those kept at least k"
        )
    score = np.log(probability) + rng.gumbel(size=(tokens, experts))
    grouped = score.reshape(tokens, groups, -1)
    best = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
    out = np.argsort(-best, axis=1, kind="stable")[:, kept:]
    np.put_along_axis(grouped, out[..., None], -np.inf, axis=1)
    return np.argsort(-grouped.reshape(tokens, experts), axis=1, kind="stable")[:, :k]
