"""The weights of an assignment that is not the router's own: three policies, one function for the
`weigh` argument of every strategy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.routing import capacity
from lib.routing.rule import SCORES, Rule

Gate = Callable[[Tensor], Tensor]
Weigh = Callable[..., Tensor]
POLICIES = ("native", "mass", "rank")


def weights(
    policy: str = "native",
    *,
    gate: Gate | None = None,
    renormalise: bool = False,
    scale: float = 1.0,
    ranked: Tensor | None = None,
    always: Tensor | float = 0.0,
) -> Weigh:
    """How a changed assignment is weighed: weigh(scores, index, kept, k, asked) → [..., slots].

    native: the router's own rule at the new index, its gate (× scale); the default.  A router that
            renormalises (`renormalise`) divides by the gates of all slots that were asked for, so
            that a dropped slot loses its share.
    mass:   in proportion to the gates, and in sum what the token's native k choices would have had.
    rank:   the token's j-th best slot gets what its j-th native choice would have had.
    gate:   from scores to gates ≥ 0; None where the scores are gates.
    ranked: [..., experts] what the router ranks, where that is not the scores (they and a bias).
    always: [..., 1] the gates of shared experts, part of the sum that a router divides by.
    Refused: another policy, gates below 0.
    """
    if policy not in POLICIES:
        raise ValueError(
            f"weighing.weights: policy = {policy!r}: must be one of {', '.join(POLICIES)}"
        )

    def weigh(
        scores: Tensor, index: Tensor, kept: Tensor, k: int, asked: Tensor | None = None
    ) -> Tensor:
        gates = scores if gate is None else gate(scores)
        if bool((gates < 0).any()):
            raise ValueError(
                "weighing.weights: gates: must be ≥ 0; logits need gate=softmax or another rule"
            )
        chosen, order = gates.gather(-1, index), scores if ranked is None else ranked
        own = gates.gather(-1, capacity.best(order, max(k, index.shape[-1])))
        total = own[..., :k].sum(-1, keepdim=True)
        if policy == "rank":
            worth = order.gather(-1, index).masked_fill(~kept, -torch.inf)
            chosen = own.gather(-1, capacity.ranks(capacity.best(worth, index.shape[-1]), -1))
        elif policy == "mass":
            held = (chosen * kept).sum(-1, keepdim=True)
            chosen = chosen * (total / held.where(held > 0, 1.0))
        else:
            total = (chosen * (kept if asked is None else asked)).sum(-1, keepdim=True)
        if renormalise:
            total = total + always
            chosen = chosen / total.where(total > 0, 1.0)
        return chosen * scale * kept

    return weigh


NATIVE = weights("native")


def softmax(scores: Tensor) -> Tensor:
    """The gates of most routers: softmax over the experts."""
    return scores.softmax(-1)


def marks(
    scores: Tensor, _index: Tensor, kept: Tensor, _k: int, asked: Tensor | None = None
) -> Tensor:
    """In the place of weights what becomes of every slot, for `by_rule`: 2 used, 1 asked for and
    dropped, 0 neither.
    """
    return kept.to(scores.dtype) + (kept if asked is None else asked).to(scores.dtype)


def by_rule(
    policy: str, rule: Rule, logits: Tensor, ranked: Tensor, index: Tensor, marked: Tensor, k: int
) -> Tensor:
    """[tokens, slots] the weights of experts `index` under a router's whole rule.

    logits: [tokens, width] the router's own, those of shared experts last; ranked: [tokens,
    experts] finite, what it chooses its k by; marked: [tokens, slots] the `marks` of a strategy.
    """
    gates = SCORES[rule.score](logits.float())
    always = gates[:, gates.shape[1] - rule.shared :].sum(-1, keepdim=True)
    weigh = weights(
        policy, renormalise=rule.renormalised, scale=rule.scale, ranked=ranked, always=always
    )
    found = weigh(gates[:, : ranked.shape[1]], index, marked > 1, k, marked > 0)
    if rule.expert_scale is not None:
        found = found * rule.expert_scale.read(found)[index]
    return found
