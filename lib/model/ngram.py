"""The bar that a language model must clear: an interpolated 5-gram model, and xz, on the same text.

The n-gram model is interpolated modified Kneser-Ney (Chen and Goodman 1999, eqs. 26-27): absolute
discounts D1, D2, D3+ estimated from counts of counts, lower orders on continuation counts, the
lowest interpolated with a uniform one. Tables are sorted arrays of n-gram numbers, so that 10^8
tokens fit in memory and a GPU builds them in seconds.
"""

from __future__ import annotations

import lzma
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.model.corpus import Document


@dataclass(frozen=True)
class Order:
    """The n-grams of one order: sorted keys (number of the context × V + token), counts, and per
    context the sums.
    """

    keys: Tensor  # int64 [types]: context number × vocabulary + token
    counts: Tensor  # float [types]: raw for the highest order, continuation counts below
    context_total: Tensor  # float [contexts]: sum of counts
    context_mass: Tensor  # float [contexts]: share of probability handed to the next lower order
    discount: Tensor  # float [4]: what a count of 0, 1, 2, 3 or more loses


@dataclass(frozen=True)
class Model:
    """An n-gram model: its orders from 1 up, and the size of the vocabulary."""

    orders: list[Order]
    vocabulary: int


def _discounts(counts: Tensor) -> Tensor:
    """Modified Kneser-Ney discounts [0, D1, D2, D3+] from the counts of counts 1 to 4."""
    n1, n2, n3, n4 = (float((counts == i).sum()) or 1.0 for i in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    values = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # a tiny text's counts of counts can say "no discount"
    values[1:] = [max(value, 0.05) for value in values[1:]]
    return torch.tensor(values, device=counts.device, dtype=torch.float64)


def _order(keys: Tensor, counts: Tensor, contexts: int, vocabulary: int) -> Order:
    """One order from its sorted keys and counts: discounts and, per context, total and mass left to
    the lower order.
    """
    counts = counts.double()
    discount = _discounts(counts)
    context = keys // vocabulary
    total = torch.zeros(contexts, dtype=torch.float64, device=keys.device).index_add_(
        0, context, counts
    )
    lost = discount[counts.clamp(max=3).long()]
    mass = torch.zeros_like(total).index_add_(0, context, lost) / total.clamp(min=1)
    return Order(keys, counts, total, mass, discount)


def fit(stream: Tensor, vocabulary: int, highest: int = 5) -> Model:
    """Fit on a row of tokens [tokens] (documents run on, separated by an end-of-text token)."""
    stream = stream.long()
    # number: of the n-gram that ends at each position
    number = torch.zeros(len(stream), dtype=torch.int64, device=stream.device)
    types = 1
    tables: list[tuple[Tensor, Tensor, int]] = []
    for n in range(1, highest + 1):
        previous = number
        keys = previous[:-1] * vocabulary + stream[n - 1 :] if n > 1 else stream
        unique, number, counts = torch.unique(keys, return_inverse=True, return_counts=True)
        if n > 1:  # how many different tokens stand before each (n-1)-gram
            ending = torch.empty(len(unique), dtype=torch.int64, device=stream.device)
            ending[number] = previous[1:]
            lower_keys, _, lower_contexts = tables[-1]
            before = torch.bincount(ending, minlength=len(lower_keys))
            tables[-1] = (lower_keys, before, lower_contexts)
        tables.append((unique, counts, types))
        types = len(unique)
    return Model(
        [
            _order(keys, counts.clamp(min=1) if i + 1 == highest else counts, contexts, vocabulary)
            for i, (keys, counts, contexts) in enumerate(tables)
        ],
        vocabulary,
    )


def nats(model: Model, tokens: Tensor) -> Tensor:
    """−ln p of every token but the first [tokens − 1], each given at most four tokens before it."""
    tokens = tokens.long()
    uniform, where = 1 / model.vocabulary, tokens.device
    probability = torch.full((len(tokens),), uniform, dtype=torch.float64, device=where)
    # One context number per order and position: the number of the (n−1)-gram that ends just before
    # the position, −1: unseen.
    context = torch.zeros(len(tokens), dtype=torch.int64, device=where)
    for order in model.orders:
        known = context >= 0
        at, found = _find(order.keys, torch.where(known, context * model.vocabulary + tokens, -1))
        total = order.context_total[context.clamp(min=0)]
        use = known & (total > 0)
        count = torch.where(found, order.counts[at], 0.0)
        kept = (count - order.discount[count.clamp(max=3).long()]).clamp(min=0)
        mixed = kept / total.clamp(min=1) + order.context_mass[context.clamp(min=0)] * probability
        probability = torch.where(use, mixed, probability)
        here = torch.where(found, at, -1)  # number of the n-gram that ends at each position
        context = torch.cat([here.new_full((1,), -1), here[:-1]])
    return -probability[1:].log()


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(position, whether it is there) of each wanted key in the sorted keys."""
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return at, keys[at] == wanted


def bits_per_byte(
    model: Model, documents: Iterable[Document], device: torch.device
) -> dict[str, float]:
    """Bits per byte per domain of encoded documents under the n-gram model."""
    bits: defaultdict[str, float] = defaultdict(float)
    size: defaultdict[str, int] = defaultdict(int)
    for doc in documents:
        ids = torch.tensor(doc.token_ids, device=device)
        bits[doc.domain] += float(nats(model, ids).sum()) / math.log(2)
        size[doc.domain] += doc.bytes
    return {domain: bits[domain] / size[domain] for domain in sorted(bits)}


def xz_bits_per_byte(documents: Iterable[Document]) -> dict[str, float]:
    """Bits per byte per domain of the documents compressed together by ``xz -9``."""
    texts: dict[str, list[bytes]] = {}
    for doc in documents:
        texts.setdefault(doc.domain, []).append(doc.text.encode())
    joined = {domain: b"".join(parts) for domain, parts in sorted(texts.items())}
    packed = {domain: len(lzma.compress(text, preset=9)) for domain, text in joined.items()}
    return {domain: 8 * size / len(joined[domain]) for domain, size in packed.items()}
