"""What a model is worth on held-out text: nats per token, bits per byte, next-token accuracy, document by document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib.model.corpus import Document


def windows(tokens: Sequence[int], length: int) -> list[Sequence[int]]:
    """Cut one document into runs of at most `length` + 1 tokens, each beginning with the last token of the one before,
    so that every token but the first is predicted exactly once."""
    return [tokens[i : i + length + 1] for i in range(0, len(tokens) - 1, length)]


@torch.no_grad()
def per_document(
    model: torch.nn.Module,
    documents: Sequence[Document],
    *,
    context: int = 512,
    batch_tokens: int = 8192,
    progress: str = "evaluating",
) -> pd.DataFrame:
    """One row per document: name, domain, cluster, bytes, tokens (predicted), nats (summed), correct (argmax hits).

    Teacher-forced in windows of `context` tokens that do not overlap; windows are padded at their end and batched by
    length.  Under a causal mask the padding cannot be seen by what is scored.
    """
    device = next(model.parameters()).device
    pieces = [(i, run) for i, doc in enumerate(documents) for run in windows(doc.token_ids, context)]
    pieces.sort(key=lambda piece: len(piece[1]))
    size = max(1, batch_tokens // context)
    sums = np.zeros((len(documents), 3))
    for start in tqdm(range(0, len(pieces), size), desc=progress, mininterval=5.0, leave=False):
        batch = pieces[start : start + size]
        owner = np.array([i for i, _ in batch])
        for column, part in enumerate(_score(model, [run for _, run in batch], device)):
            np.add.at(sums[:, column], owner, part)
    table = pd.DataFrame([(d.name, d.domain, d.cluster, d.bytes) for d in documents],
                         columns=["name", "domain", "cluster", "bytes"])  # fmt: skip
    return table.assign(tokens=sums[:, 0].astype(int), nats=sums[:, 1], correct=sums[:, 2].astype(int))


def _score(model, runs: list[Sequence[int]], device) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens predicted, their nats, their hits) per run, each [runs]."""
    longest = max(map(len, runs))
    ids = torch.tensor([[*run, *[0] * (longest - len(run))] for run in runs], device=device)
    length = torch.tensor([len(run) for run in runs], device=device)
    real = torch.arange(1, longest, device=device) < length[:, None]
    logits = model(input_ids=ids[:, :-1]).logits
    nats = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view_as(real)
    hits = logits.argmax(-1) == ids[:, 1:]
    parts = (real.sum(1), (nats.double() * real).sum(1), (hits & real).sum(1))
    return tuple(part.cpu().numpy() for part in parts)


def by_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Per domain: documents, clusters, tokens, bytes, nats per token, bits per byte, next-token accuracy."""
    part = table.groupby("domain").agg(documents=("name", "size"), clusters=("cluster", "nunique"),
                                       tokens=("tokens", "sum"), bytes=("bytes", "sum"),
                                       nats=("nats", "sum"), correct=("correct", "sum"))  # fmt: skip
    part["nats_per_token"] = part.nats / part.tokens
    part["bits_per_byte"] = part.nats / np.log(2) / part.bytes
    part["accuracy"] = part.correct / part.tokens
    return part.drop(columns=["nats", "correct"])


@torch.no_grad()
def completion(model: torch.nn.Module, tokenizer, document: Document, prompt: int, tokens: int) -> dict[str, str]:
    """The greedy continuation of a document's first `prompt` tokens by `tokens` more, beside the original."""
    device = next(model.parameters()).device
    start = torch.tensor([document.token_ids[:prompt]], device=device)
    made = model.generate(start, max_new_tokens=tokens, do_sample=False, attention_mask=torch.ones_like(start))
    return {
        "domain": document.domain,
        "document": document.name,
        "beginning": tokenizer.decode(list(document.token_ids[:prompt])),
        "continuation": tokenizer.decode(made[0, prompt:].tolist()),
        "original": tokenizer.decode(list(document.token_ids[prompt : prompt + tokens])),
    }
