"""The weights of an assignment that is not the router's own: three policies, one function for the
`weigh` argument of every strategy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.routing import capacity

Gate = Callable[[Tensor], Tensor]
Weigh = Callable[..., Tensor]
POLICIES = ("native", "mass", "rank")


def weights(
    policy: str = "mass", *, gate: Gate | None = None, renormalise: bool = False, scale: float = 1.0
) -> Weigh:
    """How a changed assignment is weighed: weigh(scores, index, kept, k, asked) → [..., slots].

    native: the router's own rule at the new index, its gate (× scale).  A router that renormalises
            (`renormalise`) divides by the gates of all slots that were asked for, so that a dropped
            slot loses its share.
    mass:   in proportion to the gates, and in sum what the token's native k choices would have had.
    rank:   the token's j-th best slot gets what its j-th native choice would have had.
    gate:   from scores to gates ≥ 0; None where the scores are gates.
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
        chosen = gates.gather(-1, index)
        own = gates.gather(-1, capacity.best(scores, max(k, index.shape[-1])))
        total = own[..., :k].sum(-1, keepdim=True)
        if policy == "rank":
            worth = scores.gather(-1, index).masked_fill(~kept, -torch.inf)
            chosen = own.gather(-1, capacity.ranks(capacity.best(worth, index.shape[-1]), -1))
        elif policy == "mass":
            held = (chosen * kept).sum(-1, keepdim=True)
            chosen = chosen * (total / held.where(held > 0, 1.0))
        else:
            total = (chosen * (kept if asked is None else asked)).sum(-1, keepdim=True)
        if renormalise:
            chosen = chosen / total.where(total > 0, 1.0)
        return chosen * scale * kept

    return weigh


NATIVE, MASS = weights("native"), weights("mass")


def softmax(scores: Tensor) -> Tensor:
    """The gates of most routers: softmax over the experts."""
    return scores.softmax(-1)
