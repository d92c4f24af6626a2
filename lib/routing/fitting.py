"""What strategies learn beforehand, on training text: a hash table, a bias, a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lib.routing import capacity


def hash_table(frequency: ArrayLike, experts: int, k: int) -> Tensor:
    """Experts [vocabulary, k] of every token id, so that the training text loads them evenly.

    The most frequent ids go first, each to the k experts that have least so far; an id that was
    never seen counts as seen once (balanced hash of Hash Layers, arXiv 2106.04426, section 3.2).
    """
    if not 1 <= k <= experts:
        raise ValueError(f"fitting.hash_table: k = {k}: must be from 1 to {experts}, the experts")
    count = np.maximum(np.asarray(frequency, dtype=np.float64), 1)
    load, table = np.zeros(experts), np.empty((len(count), k), dtype=np.int64)
    for token in np.argsort(-count, kind="stable"):
        table[token] = np.argsort(load, kind="stable")[:k]
        load[table[token]] += count[token]
    return torch.from_numpy(table)


def fit_bias(
    batches: Sequence[Tensor], k: int, *, rate: float | None = None, steps: int | None = None
) -> Tensor:
    """Bias [experts] that evens the load of training batches [tokens, experts]: b += u sign(mean −
    c), recentred.

    rate: u of the first step, falling linearly to 0 over `steps` (default: once over the batches);
    default 0.01 / E, for softmax gates (loss-free balancing, arXiv 2408.15664, algorithm 1, there u
    = 0.001 for sigmoid gates).
    """
    if not batches:
        raise ValueError("fitting.fit_bias: 0 batches: must be at least one")
    experts, steps = batches[0].shape[-1], len(batches) if steps is None else steps
    rate = 0.01 / experts if rate is None else rate
    bias = torch.zeros(experts, dtype=batches[0].dtype, device=batches[0].device)
    for step in range(steps):
        scores = capacity.checked("fit_bias", batches[step % len(batches)], k)
        chosen = capacity.best(scores + bias, k)
        load = torch.bincount(chosen.flatten(), minlength=experts)
        bias += rate * (1 - step / steps) * torch.sign(chosen.numel() - load * experts)
        bias -= bias.mean()
    return bias


def quantile(scores: Tensor, k: int) -> Tensor:
    """[experts] the score that n k / E of the tokens (rounded, at least one) reach at an expert."""
    flat = scores.reshape(-1, scores.shape[-1])
    reach = max(round(len(flat) * k / flat.shape[1]), 1)
    return flat.sort(dim=0, descending=True).values[reach - 1]


def fit_cut(batches: Iterable[Tensor], k: int, *, rate: float = 0.1) -> Tensor:
    """Threshold [experts] of `threshold`: the running mean of the batches' quantiles, q += rate
    (quantile − q).
    """
    cut = None
    for scores in batches:
        found = quantile(capacity.checked("fit_cut", scores, k), k)
        cut = found.clone() if cut is None else cut + rate * (found - cut)
    if cut is None:
        raise ValueError("fitting.fit_cut: 0 batches: must be at least one")
    return cut
