"""Assign otherwise: strategies that replace a router's choice of experts.

A strategy is a function from scores [..., tokens, experts] (larger is better; leading axes are
routing groups, each a batch of its own) to (index [..., tokens, slots] int64, weights [..., tokens,
slots]).  Weight 0 is an unused slot: the expert it names counts for nothing, yet the experts of a
row are distinct.  Scores are compared as given, by tokens and by experts.  Pass the router's
*gates* (its softmax or sigmoid), which is what weights are read from by default, or pass logits
together with ``weigh=weights(gate=softmax)`` of `lib.routing.weighing`.  Everything but the scores
is bound beforehand, with `functools.partial`; state that moves from batch to batch (`offset`,
`load`, `cut`) is a tensor of the caller's, changed in place.  *Causal* are strategies that never
look at later tokens of the batch.  All k slots of a token are used where nothing else is said.
What else is known of each stands in `lib.routing.table`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.routing import capacity, fitting
from lib.routing.weighing import NATIVE, Weigh

Assignment = tuple[Tensor, Tensor]


def _weighed(
    scores: Tensor, index: Tensor, k: int, weigh: Weigh, kept: Tensor | None = None
) -> Assignment:
    """Index and weights in the shape of the scores, where all of the slots were asked for."""
    index = index.reshape(*scores.shape[:-1], index.shape[-1])
    all_slots = torch.ones_like(index, dtype=torch.bool)
    return index, weigh(
        scores, index, all_slots if kept is None else kept.reshape(index.shape), k, all_slots
    )


def _from_mask(scores: Tensor, mask: Tensor, k: int, weigh: Weigh) -> Assignment:
    """The same where `mask` [..., tokens, experts] says who goes where: as many slots as the
    busiest token needs.
    """
    mask = mask.view(scores.shape)
    slots = max(int(mask.sum(-1).max()), 1)
    index = capacity.best(scores.masked_fill(~mask, -torch.inf), slots)
    return index, weigh(scores, index, mask.gather(-1, index), k)


def native(scores: Tensor, k: int, *, weigh: Weigh = NATIVE) -> Assignment:
    """The router's own choice, its k best experts.  Causal."""
    capacity.checked("native", scores, k)
    return _weighed(scores, capacity.best(scores, k), k, weigh)


def random(
    scores: Tensor, k: int, *, seed: int | Sequence[int], weigh: Weigh = NATIVE
) -> Assignment:
    """k distinct experts, uniformly; the same for the same seed, e.g. (seed, step, layer), on every
    device.  Causal.
    """
    capacity.checked("random", scores, k)
    state = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
    drawn = torch.rand(scores.shape, generator=torch.Generator().manual_seed(state))
    return _weighed(scores, capacity.best(drawn, k).to(scores.device), k, weigh)


def round_robin(
    scores: Tensor, k: int, *, offset: Tensor | None = None, weigh: Weigh = NATIVE
) -> Assignment:
    """Slot j of token t goes to expert (o + t k + j) mod E; loads differ by at most 1.  Causal.

    offset: int64 scalar tensor o, moved on so that the next batch goes on where this one ended;
    None is 0.  Leading axes are read as one stream.
    """
    experts = capacity.checked("round_robin", scores, k).shape[-1]
    turn = torch.arange(scores.numel() // experts * k, device=scores.device)
    if offset is not None:
        turn += offset.to(turn.device)
        offset += len(turn)
    return _weighed(scores, (turn % experts).view(-1, k), k, weigh)


def hashed(
    scores: Tensor, k: int, *, token_ids: Tensor, table: Tensor, weigh: Weigh = NATIVE
) -> Assignment:
    """The experts `table` [vocabulary, k] of `token_ids` [..., tokens], whatever the scores
    (2106.04426).  Causal.
    """
    capacity.checked("hashed", scores, k)
    if token_ids.shape != scores.shape[:-1] or table.shape[-1] != k:
        raise ValueError(
            f"hashed: token_ids {list(token_ids.shape)}, table {list(table.shape)}: must be "
            f"{list(scores.shape[:-1])}, one id per token, and [vocabulary, {k}]"
        )
    return _weighed(scores, table.to(scores.device)[token_ids.to(scores.device)], k, weigh)


def drop(
    scores: Tensor, k: int, gamma: float | str, *, priority: str = "score", weigh: Weigh = NATIVE
) -> Assignment:
    """The native choice, of which every expert takes ⌈γ n k / E⌉; the overflow is dropped (weight
    0).

    priority: who is taken first, see `capacity.drop`.  GShard and Switch (arXiv 2006.16668,
    2101.03961) keep the weights of what is left, as is the default here.  Causal by "position", and
    by "choice" if k = 1; not by "score".
    """
    groups = capacity.checked("drop", scores, k)
    size = capacity.capacity(groups.shape[1], groups.shape[2], k, gamma)
    index = capacity.best(groups, k)
    return _weighed(scores, index, k, weigh, capacity.drop(groups, index, size, priority))


def expanded_drop(
    scores: Tensor,
    k: int,
    gamma: float | str,
    *,
    extra: int,
    device: Tensor | None = None,
    weigh: Weigh = NATIVE,
) -> Assignment:
    """`drop` by score, but an overflowing slot first tries the token's next `extra` experts that
    have room left.

    device: [experts] number of the device of each expert; a token tries only those on devices its
    native choice goes to (None: all).  At most k slots a token are used, the rest are dropped
    (after expanded drop of arXiv 2503.05066, which lets a token keep more than k).  Not causal.
    """
    groups = capacity.checked("expanded_drop", scores, k)
    if extra < 0:
        raise ValueError(f"expanded_drop: extra = {extra}: must be ≥ 0")
    size = capacity.capacity(groups.shape[1], groups.shape[2], k, gamma)
    index = capacity.best(groups, k)
    kept, allowed = capacity.drop(groups, index, size, "score"), None
    if device is not None:
        device = device.to(index.device)
        allowed = (device == device[index][..., None]).any(2)
    index, kept = capacity.refill(groups, index, kept, size, extra, allowed)
    return _weighed(scores, index, k, weigh, kept)


def reroute(scores: Tensor, k: int, gamma: float | str, *, weigh: Weigh = NATIVE) -> Assignment:
    """Deferred acceptance under capacity ⌈γ n k / E⌉: the stable assignment that is best for the
    tokens.

    No token and expert would both rather have each other (see `capacity.reroute`).  At γ = 1 a few
    slots in a thousand find no expert and have weight 0.  Not causal.
    """
    groups = capacity.checked("reroute", scores, k)
    size = capacity.capacity(groups.shape[1], groups.shape[2], k, gamma)
    index, kept, _ = capacity.reroute(groups, k, size)
    return _weighed(scores, index, k, weigh, kept)


def optimal(scores: Tensor, k: int, gamma: float | str, *, weigh: Weigh = NATIVE) -> Assignment:
    """The largest total score of all assignments with k experts a token and ⌈γ n k / E⌉ places an
    expert.

    BASE (arXiv 2103.16716) maximises logits; the log of softmax gates has the same solution, as it
    differs by a constant per token.  k = 1 is solved as an assignment problem.  Refused: γ < 1,
    which leaves too few places. Not causal.
    """
    groups = capacity.checked("optimal", scores, k)
    size = capacity.enough(groups, k, gamma)
    if k == 1:
        return _weighed(scores, capacity.optimal_single(groups, size), k, weigh)
    return _from_mask(scores, capacity.optimal(groups, k, size)[0], k, weigh)


def optimal_prices(scores: Tensor, k: int, gamma: float | str) -> Tensor:
    """Prices [..., experts] ≥ 0 of a place at each expert under `optimal`, in units of score (the
    LP's multipliers).
    """
    groups = capacity.checked("optimal_prices", scores, k)
    prices = capacity.optimal(groups, k, capacity.enough(groups, k, gamma))[1]
    return prices.view(*scores.shape[:-2], -1)


def sinkhorn(
    scores: Tensor, k: int, *, temperature: float = 1.0, steps: int = 100, weigh: Weigh = NATIVE
) -> Assignment:
    """The k best experts of each token in the entropic transport plan of scores/τ with even loads.

    Pass logits, or logs of gates, as for `optimal`.  The *plan* is even; its top-k is so only
    nearly, more so at low temperature (S-BASE, arXiv 2202.01169).  Not causal.
    """
    groups = capacity.checked("sinkhorn", scores, k)
    if not temperature > 0 or steps < 1:
        raise ValueError(
            f"sinkhorn: temperature = {temperature}, steps = {steps}: must be > 0 and ≥ 1"
        )
    return _weighed(
        scores, capacity.best(capacity.sinkhorn(groups, k, temperature, steps), k), k, weigh
    )


def biased(
    scores: Tensor, k: int, *, bias: Tensor, bias_scale: float = 1.0, weigh: Weigh = NATIVE
) -> Assignment:
    """The k best of scores + a frozen `bias` [experts] × `bias_scale`; weights from the scores
    alone (2408.15664).  Causal.
    """
    capacity.checked("biased", scores, k)
    return _weighed(scores, capacity.best(scores + (bias_scale * bias).to(scores), k), k, weigh)


def expert_choice(
    scores: Tensor, k: int, gamma: float | str = 1, *, weigh: Weigh = NATIVE
) -> Assignment:
    """Every expert takes its ⌈γ n k / E⌉ best tokens: even loads, and from 0 to E experts a token,
    k on average.

    arXiv 2202.09368, whose capacity factor c is γ k and whose weights are the gates, as by default
    here.  Not causal.
    """
    groups = capacity.checked("expert_choice", scores, k)
    size = capacity.capacity(groups.shape[1], groups.shape[2], k, gamma)
    return _from_mask(scores, capacity.expert_choice(groups, size), k, weigh)


def least_loaded(
    scores: Tensor, k: int, *, among: int, load: Tensor | None = None, weigh: Weigh = NATIVE
) -> Assignment:
    """Token after token, the k least loaded of its `among` best experts (power of two choices: k =
    1, among = 2).

    load: [experts] int64, the assignments so far, moved on; None starts at 0.  Leading axes are
    read as one stream. LASER (arXiv 2510.03293) varies `among` with the shape of the scores.
    Causal if the tokens come in time order.
    """
    experts = capacity.checked("least_loaded", scores, k).shape[-1]
    if not k <= among <= experts:
        raise ValueError(
            f"least_loaded: among = {among}: must be from k = {k} to {experts}, the experts"
        )
    load = torch.zeros(experts, dtype=torch.int64) if load is None else load
    return _weighed(
        scores,
        capacity.least_loaded(capacity.best(scores, among).view(-1, among), k, load),
        k,
        weigh,
    )


def threshold(
    scores: Tensor, k: int, *, cut: Tensor, rate: float = 0.0, weigh: Weigh = NATIVE
) -> Assignment:
    """Every token goes to the experts whose threshold `cut` [experts] it reaches: 0 to E of them,
    about k on average.

    rate: after routing, cut moves by that share towards the batch's own quantile (0: frozen).
    Causal, as a batch is routed by the thresholds of those before it (expert threshold, arXiv
    2603.11535).
    """
    capacity.checked("threshold", scores, k)
    assigned = _from_mask(scores, scores >= cut.to(scores), k, weigh)
    if rate:
        cut += rate * (fitting.quantile(scores, k).to(cut) - cut)
    return assigned


def activate_fewer(scores: Tensor, k: int, *, least: int, weigh: Weigh = NATIVE) -> Assignment:
    """Every token gets its `least` best experts; the rest of its k slots join experts active in the
    batch anyway.

    For decoding, where a step waits for the weights of all active experts: one group is one step of
    different documents (OEA, arXiv 2511.02237).  All k slots are used unless fewer experts are
    active.  Causal in that use.
    """
    capacity.checked("activate_fewer", scores, k)
    if not 1 <= least <= k:
        raise ValueError(f"activate_fewer: least = {least}: must be from 1 to k = {k}")
    sure = torch.zeros_like(scores, dtype=torch.bool).scatter_(
        -1, capacity.best(scores, least), True
    )
    active = sure.any(-2, keepdim=True).expand_as(scores)
    index = capacity.best(scores.masked_fill(~active, -torch.inf), k)
    return index, weigh(scores, index, active.gather(-1, index), k)


def load(index: Tensor, weight: Tensor, experts: int) -> Tensor:
    """[experts] used slots (weight > 0) of each expert."""
    return torch.bincount(index[weight > 0], minlength=experts)
