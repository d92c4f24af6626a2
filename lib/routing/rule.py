"""The scoring rule of a router: how its logits become a choice of experts and their weights.

A rule is not read from a model's name or source; it is fitted to what the model was seen to do with
a few tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

SCORES = {
    "softmax": lambda z: z.softmax(-1),
    "sigmoid": torch.sigmoid,
    "sqrt-softplus": lambda z: softplus(z).sqrt(),
}


@dataclass(frozen=True)
class Vector:
    """One number per expert that lives in the model: read anew at each use, so that training it is
    followed.
    """

    module: nn.Module
    name: str

    def read(self, like: Tensor) -> Tensor:
        """[experts] float32 on the device of `like`."""
        return getattr(self.module, self.name).reshape(-1).to(like.device, torch.float32)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return getattr(self.module, self.name).numel()

    @property
    def learned(self) -> bool:
        """Whether it is a parameter that takes gradients (then it is a scale rather than a
        selection bias).
        """
        vector = getattr(self.module, self.name)
        return isinstance(vector, nn.Parameter) and vector.requires_grad


@dataclass(frozen=True)
class Groups:
    """Group-limited routing: of `number` groups of neighbouring experts a token may use the `kept`
    best.

    A group is ranked by the sum of its `best` highest entries (DeepSeek-V2, arXiv 2405.04434: 1;
    V3, 2412.19437: 2).
    """

    number: int
    kept: int
    best: int

    def limit(self, choice: Tensor) -> Tensor:
        """`choice` [tokens, experts] with −∞ outside the kept groups."""
        parts = choice.unflatten(-1, (self.number, -1))
        rank = parts.topk(min(self.best, parts.shape[-1]), dim=-1).values.sum(-1)
        allowed = torch.zeros_like(rank, dtype=torch.bool).scatter_(
            -1, rank.topk(self.kept, dim=-1).indices, True
        )
        return parts.masked_fill(~allowed[..., None], -torch.inf).flatten(-2)


def groupings(config: object, experts: int) -> tuple[Groups, ...]:
    """Every group limit that two whole numbers of the configuration could mean."""
    numbers = sorted({n for n in vars(config).values() if type(n) is int and 1 <= n <= experts})
    groups = [n for n in numbers if 1 < n < experts and experts % n == 0]
    return tuple(
        Groups(n, kept, best) for n in groups for kept in numbers if kept < n for best in (2, 1)
    )


@dataclass(frozen=True)
class Rule:
    """Score, selection and weight of a router, as functions of its logits [tokens, experts].

    score: "softmax", "sigmoid" or "sqrt-softplus" of the logits.  renormalised: whether the chosen
    scores are divided by their sum.  shared: number of last columns of the logits that are shared
    experts, always on and part of that sum.  scale: what all weights are multiplied by;
    expert_scale: a further factor per expert, or None.  on: what is ranked: "score", "logit", or
    "token" where a fixed table by token id chooses.  bias: added to what is ranked, never to the
    weights (2408.15664), or None.  groups: see `Groups`, or None.
    """

    score: str
    renormalised: bool
    scale: float
    expert_scale: Vector | None = None
    on: str = "score"
    bias: Vector | None = None
    groups: Groups | None = None
    shared: int = 0

    def scores(self, logits: Tensor) -> Tensor:
        """[tokens, experts] native scores, float32, without the selection bias."""
        return self._routed(SCORES[self.score](logits.float()))

    def _routed(self, columns: Tensor) -> Tensor:
        return columns[:, : columns.shape[1] - self.shared]

    def choice(self, logits: Tensor) -> Tensor:
        """[tokens, experts] what the router ranks: its k largest entries are the native assignment.

        (Where a table by token id chooses, nothing is ranked, and these are the scores.)
        """
        ranked = self._routed(logits.float()) if self.on == "logit" else self.scores(logits)
        if self.bias is not None:
            ranked = ranked + self.bias.read(ranked)
        return ranked if self.groups is None else self.groups.limit(ranked)

    def weights(self, logits: Tensor, index: Tensor) -> Tensor:
        """[tokens, slots] the weights that the native rule gives to experts `index` [tokens,
        slots].
        """
        scores = SCORES[self.score](logits.float())
        chosen = scores.gather(-1, index.long())
        if self.renormalised:
            always = scores[:, scores.shape[1] - self.shared :].sum(-1, keepdim=True)
            chosen = chosen / (chosen.sum(-1, keepdim=True) + always + 1e-20)
        if self.expert_scale is not None:
            chosen = chosen * self.expert_scale.read(chosen)[index.long()]
        return self.scale * chosen

    def __str__(self) -> str:
        """In words, e.g. "sigmoid, renormalised, × 2.5, bias, 2 of 4 groups"."""
        words = [self.score, "renormalised" if self.renormalised else "not renormalised"]
        words += [f"× {self.scale:.4g}"] * (abs(self.scale - 1) > 1e-3)
        words += ["× per expert"] * (self.expert_scale is not None)
        words += ["shared in the sum"] * (self.shared > 0)
        words += [f"ranked by {self.on}"] * (self.on == "token")
        words += ["bias"] * (self.bias is not None)
        words += [f"{self.groups.kept} of {self.groups.number} groups"] if self.groups else []
        return ", ".join(words)


@dataclass(frozen=True)
class Sample:
    """What a router was seen to do: logits [tokens, experts], index and weights [tokens, k], token
    ids [tokens].

    experts is the number of routed experts; vectors and groups are what the model holds that a rule
    might use.
    """

    logits: Tensor
    index: Tensor
    weights: Tensor
    token: Tensor
    experts: int
    vectors: tuple[Vector, ...] = ()
    groups: tuple[Groups, ...] = ()

    @property
    def live(self) -> Tensor:
        """[tokens, k] whether the slot is used (weight ≠ 0)."""
        return self.weights != 0

    @property
    def tolerance(self) -> float:
        """Relative rounding to be expected of the precisions in which the router computed."""
        kinds = (self.logits.dtype, self.weights.dtype)
        return max(1e-5, *(4 * torch.finfo(kind).eps for kind in kinds))


@torch.no_grad()
def calibrate(sample: Sample) -> tuple[Rule | None, str]:
    """The rule that explains `sample`, or None and the reason in words.

    Weights are fitted first (score × renormalised × expert scale, the common scale free; accepted
    where the largest deviation is within rounding), then the selection (score or logit × bias ×
    groups; accepted where every chosen expert is within rounding of the k best).
    """
    fits = sorted(_weight_fits(sample), key=lambda fit: fit[0])
    for _, rule in fits:
        for on, bias, groups in _selections(sample):
            whole = replace(rule, on=on, bias=bias, groups=groups)
            if _selects(sample, whole):
                return whole, ""
    if fits and _by_token(sample):
        return replace(fits[0][1], on="token"), ""
    what = "choice of experts" if fits else "weights"
    return None, f"no known rule gives its {what}"


def _weight_fits(sample: Sample) -> Iterator[tuple[float, Rule]]:
    """(error in units of the tolerance, rounded, rule) of every form of weights within rounding."""
    live, seen = sample.live, sample.weights.float()
    extra = sample.logits.shape[1] - sample.experts
    forms = [(False, 0), (True, 0)] + [(True, extra)] * (extra > 0)
    for score, scale, (renormalised, shared) in product(SCORES, (None, *sample.vectors), forms):
        plain = Rule(score, renormalised, 1.0, scale, shared=shared)
        base = plain.weights(sample.logits, sample.index) * live
        factor = float(seen.sum() / base.sum())
        error = float((seen - factor * base).abs().max() / seen.abs().max())
        if error < sample.tolerance:  # not NaN either
            yield round(error / sample.tolerance, 1), replace(plain, scale=factor)


def _selections(sample: Sample) -> Iterable[tuple[str, Vector | None, Groups | None]]:
    """Ways to select, the likeliest first: a buffer is a bias even while it is all zero, a learned
    vector hardly ever.
    """
    vectors = [v for v in sample.vectors if not _flat(v.read(sample.logits))]
    biases = [*(v for v in vectors if not v.learned), None, *(v for v in vectors if v.learned)]
    return (
        (on, bias, groups)
        for groups, bias, on in product((None, *sample.groups), biases, ("score", "logit"))
    )


def _flat(values: Tensor) -> bool:
    """Whether all are one number other than 0: as a bias that would change nothing."""
    return bool((values == values[0]).all()) and float(values[0]) != 0


def _selects(sample: Sample, rule: Rule) -> bool:
    if rule.bias is not None and rule.bias.size != sample.logits.shape[1] - rule.shared:
        return False
    choice = rule.choice(sample.logits)
    least = choice.topk(sample.index.shape[1], dim=-1).values[:, -1:]
    slack = sample.tolerance * least.abs() + 1e-12
    return bool(((choice.gather(-1, sample.index.long()) >= least - slack) | ~sample.live).all())


def _by_token(sample: Sample) -> bool:
    """Whether equal token ids went to equal experts throughout (needs repeated ids, and weights
    that vary).
    """
    if bool((sample.weights == sample.weights[0, 0]).all()):
        return False
    rows = torch.cat([sample.token[:, None], sample.index], dim=1).unique(dim=0)
    return len(rows) == len(sample.token.unique()) < len(sample.token)
