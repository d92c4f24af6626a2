"""Run a model over documents and keep its routes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from lib.routing import adapter
from lib.routing.trace import Trace, counts


@torch.no_grad()
def trace(model: torch.nn.Module, documents: Sequence, *, batch_tokens: int = 8192, name: str = "model") -> Trace:
    """The routes of `documents` (with token_ids, domain, cluster), each read from its beginning in one forward pass.

    Batches are padded to their longest document and masked, so padding is never counted.  Refused: no document.
    """
    if not documents:
        raise ValueError("observe.trace: 0 documents: must be at least one")
    device = next(model.parameters()).device
    order = sorted(range(len(documents)), key=lambda i: len(documents[i].token_ids))
    longest = len(documents[order[-1]].token_ids)
    size = max(1, batch_tokens // longest)
    owner: list[int] = []
    with adapter.record(model, indices=True) as rec:
        for start in tqdm(range(0, len(order), size), desc=f"routing {name}", mininterval=5.0, leave=False):
            batch = order[start : start + size]
            owner += batch
            _forward(model, [documents[i].token_ids for i in batch], device)
        index = np.stack([rec.index(layer).cpu().numpy() for layer in range(rec.layers)])
    return _assemble(index, [documents[i] for i in owner], rec.experts, name)


def _forward(model: torch.nn.Module, rows: list[Sequence[int]], device: torch.device) -> None:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    length = torch.tensor([len(row) for row in rows], device=device)
    mask = (torch.arange(longest, device=device) < length[:, None]).long()
    model(input_ids=ids, attention_mask=mask, use_cache=False)


def _assemble(index: np.ndarray, documents: list, experts: int, name: str) -> Trace:
    """The trace of documents in the order in which they were run."""
    lengths = [len(doc.token_ids) for doc in documents]
    domains = sorted({doc.domain for doc in documents})
    clusters = sorted({doc.cluster for doc in documents})
    domain = [domains.index(doc.domain) for doc in documents]
    return Trace(
        expert_index=index.astype(np.uint8 if experts <= 256 else np.uint16),
        document=np.repeat(np.arange(len(documents), dtype=np.int32), lengths),
        position=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        domain=np.repeat(np.array(domain, dtype=np.int16), lengths),
        token=np.concatenate([np.asarray(doc.token_ids, dtype=np.int32) for doc in documents]),
        cluster=np.array([clusters.index(doc.cluster) for doc in documents], dtype=np.int32),
        domains=np.array(domains), clusters=np.array(clusters), experts=experts, model=name,
    )  # fmt: skip


def batches(routes: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] token numbers of serving batches: whole documents in random order, cut to size.

    The documents are shuffled anew for every pass over the text; consecutive stretches of `tokens` are the batches.
    """
    if not 1 <= tokens <= len(routes.document):
        raise ValueError(f"observe.batches: tokens = {tokens}: must be from 1 to {len(routes.document)}, the trace's")
    starts = np.flatnonzero(np.diff(routes.document, prepend=-1))
    pieces = np.split(np.arange(len(routes.document)), starts[1:])
    found: list[np.ndarray] = []
    while len(found) < number:
        row = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        row = np.roll(row, -int(rng.integers(len(row))))
        found += list(row[: len(row) // tokens * tokens].reshape(-1, tokens))
    return np.stack(found[:number])


def batch_load(routes: Trace, layer: int, batch: np.ndarray) -> np.ndarray:
    """[batches, experts] load of one layer for batches [batches, tokens]."""
    return counts(routes.expert_index[layer][batch].reshape(len(batch), -1), routes.experts)


def even_load(tokens: int, experts: int, k: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, experts] loads of a perfect router whose tokens choose k distinct experts independently."""
    chosen = rng.random((number, tokens, experts), dtype=np.float32).argpartition(k - 1, axis=-1)[..., :k]
    return counts(chosen.reshape(number, -1), experts)
