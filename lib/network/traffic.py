"""Traffic: from routes and a placement to bytes between devices; and synthetic routes of a given imbalance.

A *level* is the Gini coefficient of the experts' inclusion probabilities π, Σ π = k: what share of the tokens each
expert is to get.  It ranges from 0 up to, not including, 1 − k/E, the most that k distinct experts a token allow.
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
    """min(1, a w) with the one a that makes the sum k, w sorted downwards: the first j are 1, the rest scaled."""
    rest = np.cumsum(weights[::-1])[::-1]
    for full in range(k):
        a = (k - full) / rest[full]
        if a * weights[full] <= 1:
            return np.concatenate([np.ones(full), a * weights[full:]])
    return np.concatenate([np.ones(k), np.zeros(len(weights) - k)])


def _steep(log_weights: np.ndarray, steepness: float, k: int) -> np.ndarray:
    """Weights exp(s · log weight) [experts] for _capped, anchored at the k-th expert.

    All above e^40 times the k-th weight are cut to that: their share is full long before, and none overflows.
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
    """The level that a family approaches but does not reach: 1 − k/E; for one hot expert it reaches 1/k − 1/E."""
    return 1 / k - 1 / experts if family == "one_hot" else 1 - k / experts


def inclusion(experts: int, k: int, level: float, family: str = "power") -> np.ndarray:
    """Inclusion probabilities [experts], falling, with sum k, none above 1, and Gini = level.

    power: min(1, a i^−s); lognormal: min(1, a exp(s z_i)) at normal quantiles z; one_hot: one expert above the rest.
    s is found on a log scale, whatever its size; a level below 1e-12 counts as even.
    Refused: an unknown family, k not below E, a level outside the family's range.
    """
    if family not in FAMILIES:
        raise ValueError(f"traffic.inclusion: family = {family!r}: must be one of {', '.join(FAMILIES)}")
    if not 1 <= k < experts:
        raise ValueError(f"traffic.inclusion: top_k = {k}: must be from 1 to num_experts − 1 = {experts - 1}")
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
    """Inclusion probabilities [experts] from falling log weights, at the steepness whose Gini is the level."""
    excess = lambda s: _gini(_capped(_steep(log_weights, s, k), k)) - level  # noqa: E731
    high = 1.0
    while excess(high) < 0 and high < 1e12:
        high *= 2
    steepness = brentq(excess, 0, high, xtol=1e-12) if excess(high) > 0 else high
    return _capped(_steep(log_weights, steepness, k), k)


def recorded(expert_index: np.ndarray, experts: int) -> np.ndarray:
    """Inclusion probabilities [layers, experts] of recorded routes [layers, tokens, k]: each expert's share of the tokens."""
    tokens = expert_index.shape[1]
    return np.stack([np.bincount(index.reshape(-1), minlength=experts) for index in expert_index]) / tokens


def carried(probability: np.ndarray, experts: int, k: int) -> np.ndarray:
    """A measured popularity [experts of its model] carried to another number of experts and top-k, [experts], falling.

    Its quantile curve, the logarithm of the falling probabilities against (rank − ½)/experts, is read at the new ranks and
    made so steep that Gini / (1 − k/E), the share of the largest possible, stays what it was.  The same E and k give the
    same probabilities back.  What is drawn from it is *synthetic*.  An expert that nobody chose counts as the least
    chosen one's thousandth.  Refused: probabilities that are negative, above 1, or do not sum to a whole k below E.
    """
    probability = np.sort(np.asarray(probability, dtype=float))[::-1]
    n, own_k = len(probability), round(float(probability.sum()))
    if probability[-1] < 0 or probability[0] > 1 + 1e-9 or abs(probability.sum() - own_k) > 1e-6 or not 1 <= own_k < n:
        raise ValueError(f"traffic.carried: probabilities of sum {probability.sum():.6g}: must be from 0 to 1 and sum to a whole k < {n}")
    if not 1 <= k < experts:
        raise ValueError(f"traffic.carried: top_k = {k}: must be from 1 to num_experts − 1 = {experts - 1}")
    if (experts, k) == (n, own_k):
        return probability
    level = _gini(probability) / (1 - own_k / n) * (1 - k / experts)
    if level < 1e-12:
        return np.full(experts, k / experts)
    known = np.log(np.maximum(probability, 1e-3 * probability[probability > 0].min()))
    places = (np.arange(experts) + 0.5) / experts
    return _levelled(np.interp(places, (np.arange(n) + 0.5) / n, known), k, level)


def _exact(probability: np.ndarray, k: int) -> np.ndarray:
    """Whole multiples of 1/UNIT that sum to k and stay at most 1, nearest to `probability`."""
    parts = np.floor(probability * UNIT).astype(np.int64)
    room = np.argsort(parts - probability * UNIT)
    room = room[parts[room] < UNIT]
    parts[room[: k * UNIT - int(parts.sum())]] += 1
    return parts


def sample(probability: np.ndarray, k: int, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Routes [tokens, k]: k distinct experts a token, expert e with probability π_e exactly.

    Systematic sampling in a random order (Madow 1949): the experts' probabilities are laid end to end in an order drawn
    anew for each token, and every whole number after a random start picks the expert it falls on.
    """
    parts = _exact(probability, k)
    if parts.sum() != k * UNIT:
        raise ValueError(f"traffic.sample: probabilities sum to {probability.sum()}: must sum to k = {k}")
    order = rng.random((tokens, len(parts)), dtype=np.float32).argsort(axis=1)
    ends = np.cumsum(parts[order], axis=1) + rng.integers(0, UNIT, (tokens, 1))
    picked = np.diff(ends // UNIT, axis=1, prepend=0) > 0
    return order[picked].reshape(tokens, k)


def counts(probability: np.ndarray, k: int, tokens: int, sources: int, rng: np.random.Generator) -> np.ndarray:
    """Selections [sources, experts] of `tokens` tokens on each source device, in the sum of each row tokens · k.

    As `sample` draws them, but that the tokens of one device share one random order; mean and covariance of the counts are
    the same, as the mean does not depend on the order.  Takes time in experts, not in tokens: what counts of the random
    starts is how many fall between the ends of experts, which is multinomial.
    """
    experts = len(probability)
    order = rng.random((sources, experts), dtype=np.float32).argsort(axis=1)
    ends = np.cumsum(_exact(probability, k)[order], axis=1)
    short = (-ends) % UNIT  # a token whose start is not below it has passed one whole number more
    by = short.argsort(axis=1)
    gaps = np.diff(np.take_along_axis(short, by, axis=1), axis=1, prepend=0, append=UNIT) / UNIT
    passed = tokens * (-(-ends // UNIT))
    below = np.cumsum(rng.multinomial(tokens, gaps)[:, :-1], axis=1)
    np.put_along_axis(passed, by, np.take_along_axis(passed, by, axis=1) - below, axis=1)
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.diff(passed, axis=1, prepend=0), axis=1)
    return found


def node_limited(score: np.ndarray, node: np.ndarray, k: int, most: int) -> np.ndarray:
    """Routes [tokens, k] by scores [tokens, experts], on at most `most` nodes a token; node [experts]: where each lies.

    DeepSeek-V3 (arXiv 2412.19437, section 2.1.2): the `most` nodes whose k/most best scores have the highest sum, then
    the k best experts of those.  Refused: k not a multiple of `most`, nodes of different size, fewer experts than k.
    """
    nodes, each = int(node.max()) + 1, np.bincount(node)
    if most < 1 or k % most or len(set(each.tolist())) > 1 or min(most, nodes) * each[0] < k:
        raise ValueError(
            f"traffic.node_limited: k = {k}, most = {most}, experts per node = {each.tolist()}: "
            "must be k a multiple of most, and nodes of one size that hold k experts"
        )
    if most >= nodes:
        return np.argpartition(-score, k - 1, axis=1)[:, :k]
    per_node = np.stack([score[:, node == n] for n in range(nodes)], 1)  # [tokens, nodes, experts of one]
    best = np.partition(per_node, -(k // most), axis=2)[:, :, -(k // most) :].sum(2)
    chosen = np.argpartition(-best, most - 1, axis=1)[:, :most]
    open_ = np.zeros((len(score), nodes), dtype=bool)
    np.put_along_axis(open_, chosen, True, axis=1)
    return np.argpartition(np.where(open_[:, node], -score, np.inf), k - 1, axis=1)[:, :k]


def scores(probability: np.ndarray, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Scores [tokens, experts] whose best k, taken freely, favour experts by `probability`: its logarithm and Gumbel noise.

    Their load's Gini is near the level, not at it: k without replacement flatten it, and so does a limit on nodes.
    """
    return np.log(np.maximum(probability, 1e-300)) + rng.gumbel(size=(tokens, len(probability)))


def forwarded(expert_index: np.ndarray, home: np.ndarray, devices: int, per_node: int, bytes_per_token: float) -> np.ndarray:
    """Bytes [devices, devices] of a dispatch that crosses the network once per node and is forwarded inside it.

    A token of device i for another node goes to the device of i's position there, and from it over NVLink to every device
    that holds one of its experts, once per device; in its own node it goes straight (DeepSeek-V3, section 3.2.2).  Both legs
    are in the matrix: they run at the same time, as in a pipeline.  The combine, summed up on the way back, is the transpose.
    """
    if devices % per_node:
        raise ValueError(f"traffic.forwarded: devices = {devices}: must be a multiple of per_node = {per_node}")
    tokens = len(expert_index)
    source = (np.arange(tokens) * devices // tokens)[:, None]
    ordered = np.sort(placement.targets(expert_index, home), axis=1)
    new = np.diff(ordered, axis=1, prepend=-1) != 0
    relay = ordered // per_node * per_node + source % per_node
    relay = np.where(ordered // per_node == source // per_node, source, relay)
    crosses = (np.diff(ordered // per_node, axis=1, prepend=-1) != 0) & (relay != source)
    key = np.concatenate([(source * devices + relay)[crosses], (relay * devices + ordered)[new]])
    return np.bincount(key, minlength=devices**2).reshape(devices, devices) * float(bytes_per_token)


def row_bytes(hidden: int, form: str) -> float:
    """Bytes on the wire of one token's hidden state: "bf16" 2 a number; "fp8" 1, and 4 of scale for every 128 (DeepSeek-V3,
    section 3.3.2), as its dispatch goes out where its combine comes back in bf16."""
    if form not in ("bf16", "fp8"):
        raise ValueError(f"traffic.row_bytes: form = {form!r}: must be bf16 or fp8")
    return 2.0 * hidden if form == "bf16" else float(hidden + 4 * -(-hidden // 128))


def matrix(
    expert_index: np.ndarray,
    home: np.ndarray,
    devices: int,
    bytes_per_token: float,
    *,
    deduplicate: bool = False,
) -> np.ndarray:
    """Bytes sent in the dispatch, [devices, devices] source × destination; the combine is its transpose.

    expert_index [tokens, k]; home: a placement, [experts] or with copies [devices, slots].  Tokens lie on the devices in equal consecutive stretches.
    One copy of `bytes_per_token` per selection, or with `deduplicate` per device that holds any of its experts.  What
    lies on the diagonal stays home.
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


def even(tokens: int, k: int, devices: int, bytes_per_token: float) -> np.ndarray:
    """The same bytes spread perfectly evenly, [devices, devices]: what no imbalance would cost."""
    return np.full((devices, devices), tokens * k * bytes_per_token / devices**2)


def level_matrices(
    level: float, *, experts: int, k: int, tokens: int, devices: int, bytes_per_token: float, seeds: int, seed: int = 0,
    family: str = "power", permute: bool = True,
) -> np.ndarray:  # fmt: skip
    """Dispatch matrices [seeds, devices, devices] of synthetic routes at a level, experts placed contiguously.

    permute: expert labels are drawn anew per seed, as they would be per layer; without it the hot experts lie side by
    side on the first devices, the worst case.  Seed i is the same for every level, so levels can be compared in pairs.
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
    expert_index: np.ndarray, batches: np.ndarray, *, experts: int, devices: int, bytes_per_token: float, seed: int = 0
) -> np.ndarray:
    """Dispatch matrices [batches, devices, devices] of recorded routes [all tokens, k] for batches [batches, tokens] of
    token numbers; each batch meets its own random balanced placement."""
    found = []
    for i, batch in enumerate(batches):
        home = placement.random(experts, devices, np.random.default_rng([seed, i]))
        found.append(matrix(expert_index[batch], home, devices, bytes_per_token))
    return np.stack(found)
