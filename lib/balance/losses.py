"""Losses against imbalance, each for one MoE layer and in float32 or better; a training step takes
the mean over layers.

Symbols: E experts, k chosen per token, c_e assignments of expert e over the *global* batch of N
tokens, f_e = c_e / Σc, P_e the mean router probability of expert e, Nk the assignments in all.

*Straight-through load* ℓ = f + P − stopgrad(P): its value is the hard share f, which is what a
device sees, its gradient that of P.  So ∂L/∂logit_te = (1/N) p_te (g_e − Σ_j p_tj g_j) with g =
∂L/∂ℓ; only differences between experts matter.

Every loss takes (logits, load, mean): router logits [tokens, experts] of the tokens at hand, with
gradient; load [experts], counted over the global batch; mean [experts], the mean probability over
the global batch where the tokens at hand are only a part of it (None: they are all of it).  Value
and ∂L/∂P are then those of the global batch, and since P is a mean over tokens, the mean over parts
of equal size is the loss and the gradient of the whole (arXiv 2501.11873).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lib import provenance

TEMPERATURE = 0.1  # τ of `maximum`, in units of the mean load
Z_SHARE = 0.1  # weight of the z-loss in `switch_z`, in units of its coefficient


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def probability(logits: Tensor, mean: Tensor | None = None) -> Tensor:
    """P [experts]: the mean over tokens of softmax(logits), with their gradient; its value is
    `mean` where that is given.
    """
    own = torch.softmax(wide(logits), dim=-1).mean(dim=0)
    return own if mean is None else mean.detach() + (own - own.detach())


def _shares(where: str, logits: Tensor, load: Tensor, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """(f, P), both [experts]; no gradient flows through f.  A load without any assignment counts as
    0 everywhere.
    """
    if logits.dim() != 2 or load.shape != logits.shape[1:]:
        shapes = f"logits {tuple(logits.shape)}, load {tuple(load.shape)}"
        raise ValueError(f"losses.{where}: {shapes}: must be [tokens, E], [E]")
    known = probability(logits, mean)
    count = load.detach().to(known.dtype)
    return count / count.sum().clamp(min=1), known


def _through(where: str, logits: Tensor, load: Tensor, mean: Tensor | None) -> Tensor:
    """The straight-through load ℓ [experts], exactly f in value: never below 0 for a dead one."""
    share, known = _shares(where, logits, load, mean)
    return share + (known - known.detach())


def switch(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Load-balancing loss of Switch Transformer, E Σ_e f_e P_e (arXiv 2101.03961, eq. 4).

    1 when load or probabilities are even, at most E.  Gradient: ∂/∂P_e = E f_e, so a token's
    probability is pushed away from experts in proportion to their load: half that of the squared
    coefficient of variation of ℓ.
    """
    share, known = _shares("switch", logits, load, mean)
    return logits.shape[1] * (share * known).sum()


def cv2(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Importance loss of Shazeer: squared coefficient of variation of P, E Σ P_e² − 1 (arXiv
    1701.06538, eq. 6).

    0 when probabilities are even, at most E − 1.  Soft: `load` does not enter, so it may be 0 while
    loads are not even. Gradient: ∂/∂P_e = 2 E P_e.  (Importance there sums the gates after top-k;
    here, as for all losses, before it.)
    """
    known = _shares("cv2", logits, load, mean)[1]
    return logits.shape[1] * known.square().sum() - 1


def entropy(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Missing entropy of the load, 1 + Σ ℓ ln max(ℓ, 1/(Nk)) / ln E: 0 is even, 1 one expert only.

    Gradient: ∂/∂ℓ_e = (1 + ln f_e) / ln E, and for a dead expert −ln(Nk) / ln E: finite, as if it
    had one assignment.
    """
    share = _through("entropy", logits, load, mean)
    least = 1 / load.detach().sum().clamp(min=1).to(share.dtype)
    return 1 + (share * torch.where(share >= least, share, least).log()).sum() / math.log(
        len(share)
    )


def gini(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Gini coefficient of the load, Σ_ij |ℓ_i − ℓ_j| / (2 E Σ ℓ): 0 is even, 1 − 1/E one expert
    only.

    Gradient: ∂/∂ℓ_e = (Σ_j sign(f_e − f_j)) / E − G, by rank alone: as strong near balance as far
    from it.  Experts of equal load are not pushed apart (sign(0) = 0).
    """
    share = _through("gini", logits, load, mean)
    distance = (share[:, None] - share[None, :]).abs().sum()
    return distance / (2 * len(share) * share.sum().clamp(min=torch.finfo(share.dtype).tiny))


def maximum(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Smooth maximum violation, τ ln Σ exp(E ℓ_e / τ) − τ ln E − 1 with τ = `TEMPERATURE`: 0 is
    even, about MaxVio else.

    Between MaxVio − τ ln E and MaxVio.  Gradient: ∂/∂ℓ_e = E softmax(E f / τ)_e: only the busiest
    experts are pushed.
    """
    share = _through("maximum", logits, load, mean)
    experts = len(share)
    return TEMPERATURE * ((experts * share / TEMPERATURE).logsumexp(0) - math.log(experts)) - 1


def z(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Router z-loss, mean over tokens of (ln Σ_e exp z_e)² (ST-MoE, arXiv 2202.08906, eq. 5):
    stabilises, does not balance.

    Gradient: ∂/∂z_te = (2/N) lse_t softmax(z_t)_e.
    """
    _shares("z", logits, load, mean)
    return wide(logits).logsumexp(-1).square().mean()


def switch_z(logits: Tensor, load: Tensor, mean: Tensor | None = None) -> Tensor:
    """Switch with the router z-loss added at `Z_SHARE` of its coefficient (ST-MoE trains with 0.01
    and 0.001).
    """
    return switch(logits, load, mean) + Z_SHARE * z(logits, load, mean)


def stock(logits: tuple[Tensor, ...], k: int) -> Tensor:
    """`load_balancing_loss_func` of transformers, unchanged, on the logits of *all* layers.

    It adds up counts and probabilities of expert e over the layers before it multiplies them: E k
    Σ_e f̄_e P̄_e with f̄, P̄ the means over layers (k, as it divides counts by tokens, not by
    assignments).  Gradient: ∂/∂P_e = E k f̄_e / L in every layer, whatever that layer's own load:
    layers uneven in opposite ways look even to it.  It sees the tokens at hand only, so
    accumulation and data parallelism change it.
    """
    from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

    # without a mask it waits for the device
    all_text = torch.ones(1, len(logits[0]), device=logits[0].device)
    value = load_balancing_loss_func(tuple(logits), logits[0].shape[-1], k, all_text)  # type: ignore[arg-type]
    return torch.as_tensor(value)


@dataclass(frozen=True)
class Loss:
    """A way to train against imbalance, and what the training step has to know of it.

    function: of one layer, (logits, load, mean) → value, as above; None adds nothing.  whole_batch:
    its value depends on statistics of the global batch, which are then counted before the first
    gradient.  pooled: it takes (the logits of all layers, k) instead, of the tokens at hand.  raw:
    it looks at the router's own logits, also where scores are no softmax of them.  moves_bias: the
    selection bias goes a step of the coefficient's size per update, away from loaded experts;
    bias_decays: that step falls linearly to 0 over the run.
    """

    function: Callable[..., Tensor] | None
    words: str  # what is added to the language loss, for readers
    whole_batch: bool = True
    pooled: bool = False
    raw: bool = False
    moves_bias: bool = False
    bias_decays: bool = False


LOSSES = {
    "none": Loss(None, "nothing"),
    "switch": Loss(switch, "load times mean probability, layer by layer"),
    "stock": Loss(
        stock,
        "load times mean probability, of sums over all layers",
        whole_batch=False,
        pooled=True,
    ),
    "cv2": Loss(cv2, "squared coefficient of variation of the mean probability"),
    "entropy": Loss(entropy, "entropy that the load lacks"),
    "gini": Loss(gini, "Gini coefficient of the load"),
    "max": Loss(maximum, "smooth maximum of the load over its mean"),
    "z": Loss(z, "squared size of the logits: steadies, no balance", whole_batch=False, raw=True),
    "switch_z": Loss(switch_z, "Switch, and a share of the z-loss"),
    "bias": Loss(None, "nothing; a bias on the choice moves a step per update", moves_bias=True),
    "falling_bias": Loss(
        None,
        "nothing; a bias on the choice moves a step that falls to 0",
        moves_bias=True,
        bias_decays=True,
    ),
}


def check(name: str, coefficient: float) -> None:
    """Refuse an unknown loss, naming the nearest, and a coefficient that is not a finite number ≥
    0.
    """
    if name not in LOSSES:
        hint = provenance.nearest(str(name), LOSSES)
        raise ValueError(f"losses: loss = {name!r}: must be one of {', '.join(LOSSES)}{hint}")
    if not 0 <= coefficient < math.inf:
        raise ValueError(
            f"losses: coefficient = {coefficient!r} of {name}: must be a finite number ≥ 0"
        )


def comparable(coefficients: object) -> bool:
    """Whether this maps losses to lists of coefficients, with "none" and "switch" among them, which
    all others are compared with.
    """
    return (
        isinstance(coefficients, dict)
        and {"none", "switch"} <= coefficients.keys()
        and all(isinstance(values, list) and values for values in coefficients.values())
    )


RULE = (comparable, "must map each loss, none and switch too, to its coefficients")


def absent(coefficients: Mapping[str, list[float]]) -> list[str]:
    """The losses that a comparison leaves out."""
    return [name for name in LOSSES if name not in coefficients]


def described(coefficients: Mapping[str, list[float]]) -> pd.DataFrame:
    """A row per loss, those of a comparison first: loss, adds (in words), coefficients (as text,
    rising), or that it is "not run".
    """
    rows = [
        dict(
            loss=name,
            adds=LOSSES[name].words,
            coefficients=", ".join(f"{value:g}" for value in sorted(coefficients.get(name, []))),
        )
        for name in [*coefficients, *absent(coefficients)]
    ]
    return pd.DataFrame(rows).replace({"coefficients": {"": "not run"}})
