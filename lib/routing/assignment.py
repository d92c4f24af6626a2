"""What another assignment costs: quality per document and balance per routing group, in the same
forward pass.

Two protocols.  *prefix*: the first half of every document is its prompt, routed as one group
(legal: all its tokens are there); the second half is decoded, position by position, each position
one group across all documents.  One teacher-forced pass does both, and only the second half is
scored.  *prefill*: groups of consecutive tokens of the stream of documents; a strategy that looks
at the whole group then sees the future, so its quality is flattered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats
from torch import Tensor
from torch.nn.functional import cross_entropy

from lib import stats
from lib.model.corpus import Document
from lib.routing import adapter


def grid(documents: Sequence[Document], tokens: int) -> tuple[list[Document], np.ndarray]:
    """The documents that have `tokens` tokens, and these [documents, tokens]; refused: fewer than
    two.
    """
    whole = [doc for doc in documents if len(doc.token_ids) >= tokens]
    if len(whole) < 2:
        raise ValueError(
            f"assignment.grid: {len(whole)} documents of {tokens} tokens: must be at least 2"
        )
    return whole, np.array([doc.token_ids[:tokens] for doc in whole])


def prefix_groups(documents: int, tokens: int) -> np.ndarray:
    """[documents × tokens] group of every token in the prefix protocol: prompts 0 … documents − 1,
    then positions.
    """
    group = np.broadcast_to(np.arange(documents)[:, None], (documents, tokens)).copy()
    group[:, tokens // 2 :] = documents + np.arange(tokens - tokens // 2)
    return group.ravel()


def prefill_groups(documents: int, tokens: int, size: int) -> np.ndarray:
    """[documents × tokens] group of every token in the prefill protocol: `size` consecutive ones of
    the stream.
    """
    return np.arange(documents * tokens) // size


@torch.no_grad()
def run(
    model: torch.nn.Module,
    ids: Tensor,
    strategy: adapter.Strategy,
    group: Tensor,
    *,
    first: int,
    layer: int | None = None,
) -> dict:
    """One pass over ids [documents, tokens] under a strategy; tokens from position `first` on are
    scored.

    Returns nats and correct [documents] (sums over scored tokens), tokens (per document), and over
    groups that hold a scored position: gini [layers, groups], max_over_nominal [layers, groups];
    churn: share of the router's own choices that were not used; kept: gates used over gates chosen;
    dropped: share of the k slots that stayed empty. layer: assign in this layer only.
    """
    documents, width = ids.shape
    scored = (torch.arange(width, device=ids.device) >= first).expand(documents, width).reshape(-1)
    groups = torch.unique(group[scored])
    loads, sums = {}, np.zeros(4)

    def watched(scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        index, weight = (
            strategy(scores, call) if layer in (None, call.layer) else (call.index, call.weights)
        )
        used = (weight != 0) & scored[:, None]
        experts = scores.shape[1]
        place = torch.searchsorted(groups, group)[:, None] * experts + index
        loads[call.layer] = torch.bincount(place[used], minlength=len(groups) * experts).view(
            -1, experts
        )
        mine = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, index, used)
        own = torch.zeros_like(mine).scatter_(1, call.index, True) & scored[:, None]
        sums[:] += [float(part.sum()) for part in (own & ~mine, own, scores * mine, scores * own)]
        return index, weight

    with adapter.assign(model, watched):
        logits = model(input_ids=ids, use_cache=False).logits
    nats, hits = _score(logits, ids, first)
    load = torch.stack([loads[number] for number in sorted(loads)]).double()
    nominal = (
        load.new_tensor(np.bincount(np.searchsorted(groups.cpu(), group[scored].cpu())))
        * sums[1]
        / len(loads)
        / int(scored.sum())
        / load.shape[2]
    )
    return dict(
        nats=nats,
        correct=hits,
        tokens=width - max(first, 1),
        load=load.cpu().numpy(),
        max_over_nominal=(load.amax(2) / nominal).cpu().numpy(),
        churn=sums[0] / sums[1],
        kept=sums[2] / sums[3],
        dropped=1 - float(load.sum()) / sums[1],
    )


def _score(logits: Tensor, ids: Tensor, first: int) -> tuple[np.ndarray, np.ndarray]:
    """(nats, hits) [documents] of the tokens from position max(first, 1) on, each predicted by the
    one before.
    """
    start, parts = max(first, 1), []
    for row, text in zip(logits.split(16), ids.split(16), strict=True):
        guess, truth = row[:, start - 1 : -1].float(), text[:, start:]
        nats = cross_entropy(guess.flatten(0, 1), truth.flatten(), reduction="none").view_as(truth)
        parts.append(
            torch.stack([nats.double().sum(1), (guess.argmax(-1) == truth).double().sum(1)])
        )
    found = torch.cat(parts, 1).cpu().numpy()
    return found[0], found[1]


def per_document(documents: Sequence[Document], result: dict, **about) -> pd.DataFrame:
    """The quality of a run, a row per document, with what `about` says of the run."""
    names = pd.DataFrame(
        [(d.name, d.domain, d.cluster) for d in documents], columns=["name", "domain", "cluster"]
    )
    return names.assign(
        tokens=result["tokens"], nats=result["nats"], correct=result["correct"].astype(int), **about
    )


def difference(table: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    """[documents, 2]: nats over those of `base`, and tokens; the rows of both tables are the same
    documents.
    """
    if table.name.tolist() != base.name.tolist():
        raise ValueError(
            "assignment.difference: the documents of both runs: must be the same, in the same order"
        )
    return np.stack(
        [table.nats.to_numpy() - base.nats.to_numpy(), table.tokens.to_numpy(dtype=float)], 1
    )


def per_token(pairs: np.ndarray) -> float:
    """Nats per token of rows [documents, 2] of nats and tokens."""
    return float(pairs[:, 0].sum() / pairs[:, 1].sum())


def p_value(pairs: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided p of per_token(pairs) = 0: Student's t of the delete-one-cluster jackknife; NaN
    below 8 clusters.
    """
    names = np.unique(clusters)
    if len(names) < stats.CLUSTERS:
        return float("nan")
    left = np.array([per_token(pairs[clusters != name]) for name in names])
    error = np.sqrt((len(names) - 1) / len(names) * ((left - left.mean()) ** 2).sum())
    return (
        float(2 * scipy_stats.t.sf(abs(per_token(pairs)) / error, len(names) - 1)) if error else 1.0
    )


def at_balance(curve: pd.DataFrame, target: float) -> tuple[str, str, float] | None:
    """The two neighbouring settings of one strategy between which its p95 reaches `target`, and the
    share of the second.

    curve: columns setting, p95, delta; None if the curve does not reach it.  Of several crossings
    the cheapest counts.
    """
    ordered, found = curve.sort_values("p95").reset_index(drop=True), []
    for one, two in zip(ordered.itertuples(), ordered.iloc[1:].itertuples(), strict=False):
        if one.p95 <= target <= two.p95:
            share = (target - one.p95) / (two.p95 - one.p95) if two.p95 > one.p95 else 0.0
            found.append(
                ((1 - share) * one.delta + share * two.delta, one.setting, two.setting, share)
            )
    return min(found)[1:] if found else None
