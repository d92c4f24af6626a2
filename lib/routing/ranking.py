"""What a router ranks, as the scores that strategies start from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lib.routing.rule import Rule

LEAST = 1e-30  # below which a gate's logarithm is cut off


def ranked(rule: Rule, logits: Tensor, index: Tensor, experts: int) -> Tensor:
    """[tokens, experts] finite scores whose k largest entries are the router's own choice `index`
    [tokens, k]: its scores, or logits, with its selection bias.

    What its groups do not admit stands below all that they do, in its own order; where a table by
    token id chooses, what it chose stands above the rest.
    """
    free = replace(rule, groups=None).choice(logits)[:, :experts]
    if rule.groups is None and rule.on != "token":
        return free
    span = free.max() - free.min() + 1
    if rule.on == "token":
        return free.scatter_add(1, index, span.expand(index.shape))
    shut = rule.choice(logits)[:, :experts].isinf()
    return torch.where(shut, free - span, free)


def logs(scores: Tensor, rule: Rule) -> Tensor:
    """Scores as summands, for strategies that add them up: logits as they are, else the logarithms
    of what is ranked, lifted to be ≥ 0 where a bias takes it below.
    """
    if rule.on == "logit":
        return scores
    return (scores - scores.min().clamp(max=0)).clamp_min(LEAST).log()
