"""Traffic: from routes and a placement to bytes between devices; and synthetic routes of a given
imbalance.

A *level* is the Gini coefficient of the experts' inclusion probabilities π, Σ π = k: what share of
the tokens each expert is to get.  It ranges from 0 up to, not including, 1 − k/E, the most that k
distinct experts a token allow.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from lib.network import placement

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
            f"traffic.inclusion: family = {family!r}: must be one of {', '.join(FAMILIES)}"
        )
    if not 1 <= k < experts:
        raise ValueError(
            f"traffic.inclusion: top_k = {k}: must be from 1 to num_experts − 1 = {experts - 1}"
        )
    most = highest_level(experts, k, family)
    if not 0 <= level < most:
        raise ValueError(
            f"traffic.inclusion: level = {level}: must be from 0 to below {most:.4g} "
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
    excess = lambda s: _gini(_capped(_steep(log_weights, s, k), k)) - level
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
    parts = _exact(probability, k)
    if parts.sum() != k * UNIT:
        raise ValueError(
            f"traffic.sample: probabilities sum to {probability.sum()}: must sum to k = {k}"
        )
    if share > 1:
        return np.concatenate(
            [
                _shared(parts, k, min(share, tokens - first), rng)
                for first in range(0, tokens, share)
            ]
        )
    order = rng.random((tokens, len(parts)), dtype=np.float32).argsort(axis=1)
    ends = np.cumsum(parts[order], axis=1) + rng.integers(0, UNIT, (tokens, 1))
    picked = np.diff(ends // UNIT, axis=1, prepend=0) > 0
    return order[picked].reshape(tokens, k)


def _shared(parts: np.ndarray, k: int, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Routes [tokens, k] in one order of the experts."""
    order = rng.permutation(len(parts))
    points = UNIT * np.arange(1, k + 1) - rng.integers(0, UNIT, (tokens, 1))
    return order[np.searchsorted(np.cumsum(parts[order]), points)]


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
            f"traffic.fitted: load of shape {load.shape}: must be [experts], finite, ≥ 0 and not all 0"
        )
    if not (1 <= k < experts and 1 <= recorded_k < len(load)):
        raise ValueError(
            f"traffic.fitted: top_k = {k} of {experts}, recorded {recorded_k} of {len(load)}: must be from 1 to below the experts"
        )
    share = _gini(load) / highest_level(len(load), recorded_k)
    if share >= 1:
        raise ValueError(
            f"traffic.fitted: load of Gini {_gini(load):.4g}: must be below {highest_level(len(load), recorded_k):.4g}, top-{recorded_k}'s most"
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
            f"traffic.group_limited: experts = {experts}, groups = {groups}, kept = {kept}, k = {k}: groups must divide "
            "experts, hold at least 2, and those kept at least k"
        )
    score = np.log(probability) + rng.gumbel(size=(tokens, experts))
    grouped = score.reshape(tokens, groups, -1)
    best = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
    out = np.argsort(-best, axis=1, kind="stable")[:, kept:]
    np.put_along_axis(grouped, out[..., None], -np.inf, axis=1)
    return np.argsort(-grouped.reshape(tokens, experts), axis=1, kind="stable")[:, :k]


def matrix(
    expert_index: np.ndarray,
    home: np.ndarray,
    devices: int,
    bytes_per_token: float,
    *,
    deduplicate: bool = False,
) -> np.ndarray:
    """Bytes sent in the dispatch, [devices, devices] source × destination; the combine is its
    transpose.

    expert_index [tokens, k]; home: a placement, [experts] or with copies [devices, slots].  Tokens
    lie on the devices in equal consecutive stretches. One copy of `bytes_per_token` per selection,
    or with `deduplicate` per device that holds any of its experts.  What lies on the diagonal stays
    home.
    """
    if expert_index.ndim != 2 or bytes_per_token <= 0:
        raise ValueError(
            f"traffic.matrix: expert_index {expert_index.shape}, bytes_per_token = {bytes_per_token}: "
            "must be [tokens, k] and > 0"
        )
    tokens = len(expert_index)
    source = np.arange(tokens) * devices // tokens
    target = placement.targets(expert_index, home)
    if deduplicate:
        ordered = np.sort(target, axis=1)
        keep = np.diff(ordered, axis=1, prepend=-1) != 0
        key = (source[:, None] * devices + ordered)[keep]
    else:
        key = (source[:, None] * devices + target).reshape(-1)
    return np.bincount(key, minlength=devices**2).reshape(devices, devices) * float(bytes_per_token)


def forwarded(
    expert_index: np.ndarray, home: np.ndarray, devices: int, per_node: int, bytes_per_token: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes [devices, devices] of a dispatch in two hops: between nodes, then inside them.

    A token crosses the network once for every other node that holds any of its experts, to the
    device at its own position there, which forwards it over NVLink to each device that needs it; at
    home its own device does (DeepSeek-V3, arXiv 2412.19437, section 3.2.2).  Arguments as for
    `matrix`; devices in nodes of `per_node`.
    """
    tokens = len(expert_index)
    source = np.arange(tokens) * devices // tokens
    target = placement.targets(expert_index, home)
    landing = (
        target // per_node * per_node + (source % per_node)[:, None]
    )  # the source itself in its own node
    hops = []
    for key in (source[:, None] * devices + landing, landing * devices + target):
        pairs = np.unique(np.arange(tokens)[:, None] * devices**2 + key)  # once per token
        hops.append(
            np.bincount(pairs % devices**2, minlength=devices**2).reshape(devices, devices)
            * float(bytes_per_token)
        )
    return hops[0], hops[1]


def slots(expert_index: np.ndarray, home: np.ndarray, devices: int, experts: int) -> np.ndarray:
    """Rows [devices, experts] that each device computes for each expert, of routes [tokens, k] and
    a placement.
    """
    target = placement.targets(expert_index, home)
    return np.bincount(
        (target * experts + expert_index).reshape(-1), minlength=devices * experts
    ).reshape(devices, experts)


def even(tokens: int, k: int, devices: int, bytes_per_token: float) -> np.ndarray:
    """The same bytes spread perfectly evenly, [devices, devices]: what no imbalance would cost."""
    return np.full((devices, devices), tokens * k * bytes_per_token / devices**2)


def level_matrices(
    level: float,
    *,
    experts: int,
    k: int,
    tokens: int,
    devices: int,
    bytes_per_token: float,
    seeds: int,
    seed: int = 0,
    family: str = "power",
    permute: bool = True,
) -> np.ndarray:
    """Dispatch matrices [seeds, devices, devices] of synthetic routes at a level, experts placed
    contiguously.

    permute: expert labels are drawn anew per seed, as they would be per layer; without it the hot
    experts lie side by side on the first devices, the worst case.  Seed i is the same for every
    level, so levels can be compared in pairs.
    """
    probability = inclusion(experts, k, level, family)
    home = placement.contiguous(experts, devices)
    found = []
    for i in range(seeds):
        rng = np.random.default_rng([seed, i])
        labels = rng.permutation(experts) if permute else np.arange(experts)
        index = labels[sample(probability, k, tokens, rng)]
        found.append(matrix(index, home, devices, bytes_per_token))
    return np.stack(found)


def batch_matrices(
    expert_index: np.ndarray,
    batches: np.ndarray,
    *,
    experts: int,
    devices: int,
    bytes_per_token: float,
    seed: int = 0,
) -> np.ndarray:
    """Dispatch matrices [batches, devices, devices] of recorded routes [all tokens, k] for batches
    [batches, tokens] of token numbers; each batch meets its own random balanced placement.
    """
    found = []
    for i, batch in enumerate(batches):
        home = placement.random(experts, devices, np.random.default_rng([seed, i]))
        found.append(matrix(expert_index[batch], home, devices, bytes_per_token))
    return np.stack(found)
