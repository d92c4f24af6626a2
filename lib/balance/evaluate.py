"""What a model is worth on held-out text: nats per token, bits per byte, next-token accuracy,
document by document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from lib import stats
from lib.model.corpus import Document
from lib.routing import adapter, scoring


def windows(tokens: Sequence[int], length: int) -> list[Sequence[int]]:
    """Cut one document into runs of at most `length` + 1 tokens, each beginning with the last token
    of the one before, so that every token but the first is predicted exactly once.
    """
    return [tokens[i : i + length + 1] for i in range(0, len(tokens) - 1, length)]


@torch.no_grad()
def per_document(
    model: torch.nn.Module,
    documents: Sequence[Document],
    *,
    context: int = 512,
    batch_tokens: int = 8192,
    progress: str = "evaluating",
    seen: Callable[[np.ndarray, torch.Tensor], None] | None = None,
) -> pd.DataFrame:
    """One row per document: name, domain, cluster, bytes, tokens (predicted), nats (summed),
    correct (argmax hits).

    Teacher-forced in windows of `context` tokens that do not overlap; windows are padded at their
    end and batched by length.  Under a causal mask the padding cannot be seen by what is scored.
    seen: called after each forward pass with the number of each row's document and [rows, tokens]
    which are no padding.
    """
    device = next(model.parameters()).device
    pieces = [
        (i, run) for i, doc in enumerate(documents) for run in windows(doc.token_ids, context)
    ]
    pieces.sort(key=lambda piece: len(piece[1]))
    size = max(1, batch_tokens // context)
    sums = np.zeros((len(documents), 3))
    for start in tqdm(range(0, len(pieces), size), desc=progress, mininterval=5.0, leave=False):
        batch = pieces[start : start + size]
        owner = np.array([i for i, _ in batch])
        *parts, real = _score(model, [run for _, run in batch], device)
        for column, part in enumerate(parts):
            np.add.at(sums[:, column], owner, part.cpu().numpy())
        if seen is not None:
            seen(owner, real)
    table = pd.DataFrame(
        [(d.name, d.domain, d.cluster, d.bytes) for d in documents],
        columns=["name", "domain", "cluster", "bytes"],
    )
    return table.assign(
        tokens=sums[:, 0].astype(int), nats=sums[:, 1], correct=sums[:, 2].astype(int)
    )


def _score(model, runs: list[Sequence[int]], device) -> tuple[torch.Tensor, ...]:
    """(tokens predicted, their nats, their hits) per run, each [runs], and [runs, tokens] which
    tokens are no padding.
    """
    longest = max(map(len, runs))
    ids = torch.tensor([[*run, *[0] * (longest - len(run))] for run in runs], device=device)
    length = torch.tensor([len(run) for run in runs], device=device)
    real = torch.arange(1, longest, device=device) < length[:, None]
    with scoring.headless(model, 0, None) as states:
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    found = []
    size = scoring.rows_at_once(model, longest) if states else len(runs)
    for start in range(0, len(runs), size):
        rows = slice(start, start + size)
        if states:
            logits = scoring.head(model, states[0], rows, ids[rows, :-1])
        found.append(_scored(logits, ids[rows, 1:], real[rows]))
    nats, hits = torch.cat(found, 1)
    return real.sum(1), nats, hits, real


def _scored(logits: torch.Tensor, truth: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """[2, runs] summed nats and hits of the tokens `truth` [runs, tokens] that are `real`."""
    rows = logits.float().flatten(0, 1)
    nats = cross_entropy(rows, truth.flatten(), reduction="none").view_as(real)
    hits = (logits.argmax(-1) == truth) & real
    return torch.stack([(nats.double() * real).sum(1), hits.double().sum(1)])


def routed(
    model: torch.nn.Module,
    documents: Sequence[Document],
    *,
    serving_tokens: int,
    seed: int = 0,
    draws: int = 200,
    again: int = 0,
    **options,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """`per_document`, and from the same forward passes what the router did, in arrays by name:

    counts [documents, layers, experts] assignments; serving [batches, layers, experts], of at least
    `draws` batches of `serving_tokens` tokens, cut from the documents in random orders; redrawn
    [again, batches, layers, experts], as many batches each, of further orders; router_entropy
    [layers], the mean over tokens of the entropy of the router's probabilities, in nats.
    """
    rows: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    uncertain: list[np.ndarray] = []  # entropies, summed over a pass's tokens
    with adapter.record(model, indices=True, scores=True) as rec:

        def seen(owner: np.ndarray, real: torch.Tensor) -> None:
            keep = real.reshape(-1).cpu()
            chosen = torch.stack([index[-1].to(torch.int16).cpu()[keep] for index in rec.indices])
            rows.append(chosen.numpy())
            owners.append(np.repeat(owner, real.sum(1).cpu().numpy()))
            logs = [one[-1][keep.to(one[-1].device)].log_softmax(-1) for one in rec.scores]
            uncertain.append(np.array([-float((log.exp() * log).sum()) for log in logs]))
            rec.clear()

        table = per_document(model, documents, seen=seen, **options)
    index, owner = np.concatenate(rows, axis=1), np.concatenate(owners)
    counts = np.stack(
        [_counts(owner, layer, len(documents), rec.experts) for layer in index], axis=1
    )
    rng = np.random.default_rng(seed)
    drawn = [
        _serving(index, owner, rec.experts, serving_tokens, draws, rng) for _ in range(1 + again)
    ]
    entropy = sum(uncertain, np.zeros(len(index))) / len(owner)
    found = dict(counts=counts, serving=drawn[0], router_entropy=entropy)
    return table, found | dict(redrawn=np.array(drawn[1:]))


def _serving(
    index: np.ndarray,
    owner: np.ndarray,
    experts: int,
    tokens: int,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[batches, layers, experts] of at least `draws` batches, from the experts [layers, tokens, k]
    and the document [tokens] of each token; batches of one order hold every token once, but for
    the rest that fills none.
    """
    serving, size, n = [], min(tokens, len(owner)), len(owner) // tokens or 1
    for _ in range(-(-draws // n)):
        order = np.argsort(rng.permutation(owner.max() + 1)[owner], kind="stable")[: n * size]
        batch = np.repeat(np.arange(n), size)
        serving.append(
            np.stack([_counts(batch, layer[order], n, experts) for layer in index], axis=1)
        )
    return np.concatenate(serving)


def _counts(group: np.ndarray, index: np.ndarray, groups: int, experts: int) -> np.ndarray:
    """[groups, experts] assignments, from the group [tokens] and the experts [tokens, k] of each
    token.
    """
    flat = group[:, None] * experts + index
    return np.bincount(flat.ravel(), minlength=groups * experts).reshape(groups, experts)


def specialisation(counts: np.ndarray, domain: Sequence[str]) -> np.ndarray:
    """Mutual information of domain and expert per layer in bits, domains weighted alike: 0, all use
    experts alike.

    counts [documents, layers, experts].  It is the mean over domains of the divergence of a
    domain's load from their mean.
    """
    names = np.asarray(domain)
    shares = np.stack([counts[names == name].sum(0) for name in np.unique(names)]).astype(float)
    shares /= shares.sum(-1, keepdims=True)
    bits = np.log2(counts.shape[-1])
    return bits * (stats.entropy(shares.mean(0)) - stats.entropy(shares).mean(0))


def by_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Per domain: documents, clusters, tokens, bytes, nats per token, bits per byte, next-token
    accuracy.
    """
    part = table.groupby("domain").agg(
        documents=("name", "size"),
        clusters=("cluster", "nunique"),
        tokens=("tokens", "sum"),
        bytes=("bytes", "sum"),
        nats=("nats", "sum"),
        correct=("correct", "sum"),
    )
    part["nats_per_token"] = part.nats / part.tokens
    part["bits_per_byte"] = part.nats / np.log(2) / part.bytes
    part["accuracy"] = part.correct / part.tokens
    return part.drop(columns=["nats", "correct"])


@torch.no_grad()
def completion(model, tokenizer, document: Document, prompt: int, tokens: int) -> dict[str, str]:
    """The greedy continuation of a document's first `prompt` tokens by `tokens` more, beside the
    original; `model` is one of transformers that generates.
    """
    device = next(model.parameters()).device
    start = torch.tensor([document.token_ids[:prompt]], device=device)
    made = model.generate(
        start, max_new_tokens=tokens, do_sample=False, attention_mask=torch.ones_like(start)
    )
    return {
        "domain": document.domain,
        "document": document.name,
        "beginning": tokenizer.decode(list(document.token_ids[:prompt])),
        "continuation": tokenizer.decode(made[0, prompt:].tolist()),
        "original": tokenizer.decode(list(document.token_ids[prompt : prompt + tokens])),
    }
