"""Losses against imbalance, each for one MoE layer and in float32; a training step takes the mean over layers.

Symbols: E experts, k chosen per token, c_e assignments of expert e over the *global* batch, f_e = c_e / Σc,
P_e the mean router probability of expert e over the tokens at hand.
"""

from __future__ import annotations

import torch
from torch import Tensor


def switch(logits: Tensor, load: Tensor) -> Tensor:
    """Load-balancing loss of Switch Transformer, E Σ_e f_e P_e (arXiv 2101.03961, eq. 4), for one layer.

    logits: router logits [tokens, experts]; load: assignments [experts] counted over the global batch (any number
    type, no gradient flows through it).  Returns a scalar: 1 when load and probabilities are both even, at most E.
    Gradient: ∂/∂P_e = E f_e, so a token's probability is pushed away from experts in proportion to their load.
    Since P is a mean over tokens, averaging the loss over micro-batches under one global `load` equals the loss of
    the whole batch: accumulation does not change the coefficient (arXiv 2501.11873).
    """
    if logits.dim() != 2 or load.shape != logits.shape[1:]:
        raise ValueError(
            f"losses.switch: logits {tuple(logits.shape)}, load {tuple(load.shape)}: must be [tokens, E], [E]"
        )
    fraction = load.detach().float() / load.detach().sum().clamp(min=1)
    probability = torch.softmax(logits.float(), dim=-1).mean(dim=0)
    return logits.shape[1] * (fraction * probability).sum()


LOSSES = {"none": None, "switch": switch}
