"""What a model is worth on held-out text, as plain data: nats and hits of each document, and per
layer how its router spreads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lib import stats
from lib.balance import documents, evaluate, objective
from lib.model.corpus import Document

AGAIN = 8  # further draws of serving batches, which say what the draw alone changes
KEPT = 64  # serving batches whose expert counts are kept
CHANCE = 0.95  # the quantile of MaxVio over batches, what a server provisions for


def provisioned(serving: np.ndarray) -> np.ndarray:
    """[…, layers] the 95th percentile of MaxVio over batches [batches, …, layers, experts]."""
    return np.quantile(stats.max_violation(serving), CHANCE, axis=0)


def of(
    model: torch.nn.Module, held_out: Sequence[Document], *, serving_tokens: int, seed: int
) -> dict:
    """What a model is worth on documents.

    layers: max_violation_p95, over batches of `serving_tokens` tokens, and more; draws: its mean
    over layers, of that draw of batches and of `AGAIN` further ones; serving: the expert counts
    [batches, layers, experts] of the first `KEPT` batches.
    """
    size = 65_536 if next(model.parameters()).is_cuda else 8_192
    with objective.biased(model):
        table, routes = evaluate.routed(
            model,
            held_out,
            serving_tokens=serving_tokens,
            seed=seed,
            again=AGAIN,
            batch_tokens=size,
        )
    violation = provisioned(routes["serving"])
    layers = {
        "max_violation_p95": violation,
        "gini": stats.gini(routes["counts"].sum(0)),
        "router_entropy": routes["router_entropy"],
        "specialisation": evaluate.specialisation(routes["counts"], table.domain),
    }
    drawn = [violation, *map(provisioned, routes["redrawn"])]
    return {
        "nats_per_token": table.nats.sum() / float(table.tokens.sum()),
        "domains": _domains(table),
        "layers": {name: np.round(values, 5).tolist() for name, values in layers.items()},
        "draws": np.round([row.mean() for row in drawn], 5).tolist(),
        "load": routes["counts"].sum(0).tolist(),
        "serving": routes["serving"][:KEPT].tolist(),
        "documents": _documents(table),
    }


def _domains(table) -> dict[str, float]:
    sums = table.groupby("domain")[["nats", "tokens"]].sum()
    return {name: row.nats / row.tokens for name, row in sums.iterrows()}


def _documents(table) -> dict:
    """Document by document: its cluster as a number, tokens, nats and hits."""
    cluster = np.unique(table.cluster, return_inverse=True)[1]
    return {
        "names_sha256": documents.digest(table),
        "count": len(table),
        "clusters": int(cluster.max()) + 1,
        "tokens": int(table.tokens.sum()),
        "cluster": cluster.tolist(),
        "sizes": table.tokens.tolist(),
        "nats": table.nats.round(1).tolist(),
        "correct": table.correct.tolist(),
    }
