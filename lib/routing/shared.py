"""Which part of an imbalance do all domains share, and which is each domain's own?"""

from __future__ import annotations

import numpy as np


def split(counts: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shared, specific), each [layers]: two parts of the mean squared CV within a group (domain).

    counts [documents, layers, experts], group [documents].  With p_d the shares of document d and
    E experts, pairs of *different* documents of one group, weighted by their tokens, give

        within = mean over groups of E Σ_e p_de p_d'e − 1  (stats.cv2_unbiased of the group),

    pairs of documents of two different groups, all pairs of groups weighted alike,

        shared = mean over pairs of groups of E Σ_e P_ae P_be − 1,   P_a the shares of group a,

    and specific = within − shared.  shared is what a placement packed for one domain finds again in
    another: the popularity of experts that all domains agree on.  Both are unbiased where documents
    are independent, and may be negative.  Refused: fewer than two groups of two documents.
    """
    counts = np.asarray(counts, dtype=float)
    names = [name for name in np.unique(group) if (group == name).sum() > 1]
    if len(names) < 2:
        raise ValueError(
            f"shared.split: {len(names)} groups of at least 2 documents: must be at least 2"
        )
    experts = counts.shape[2]
    within, shares = [], []
    for name in names:
        own = counts[group == name]
        n, total = own.sum(2), own.sum(0)
        pairs = (total**2).sum(1) - (own**2).sum((0, 2))
        within.append(experts * pairs / (n.sum(0) ** 2 - (n**2).sum(0)) - 1)
        shares.append(total / total.sum(1, keepdims=True))
    between = [
        experts * (shares[a] * shares[b]).sum(1) - 1
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]
    shared = np.mean(between, axis=0)
    return shared, np.mean(within, axis=0) - shared


def locality_null(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws] Φ (`locality.phi`) where whole clusters change their group at random.

    counts [documents, layers, experts], group and cluster [documents].  Above 0 on average, since
    documents of one cluster route alike, so that a group of few clusters is uneven by itself.
    Refused: a cluster in two groups.
    """
    names, of_document = np.unique(cluster, return_inverse=True)
    groups, own = np.unique(group, return_inverse=True)
    home = np.full(len(names), -1)
    home[of_document] = own
    if (home[of_document] != own).any():
        raise ValueError("shared.locality_null: a cluster in two groups: must lie in one")
    counts = counts.astype(float)
    n, size = counts.sum(2), len(names)
    # of every cluster: its load, and the squares that pairs of one and the same document make
    parts = [counts, (counts**2).sum(2), n, n**2]
    load, squares, tokens, own_pairs = (_summed(part, of_document, size) for part in parts)
    found = []
    for _ in range(draws):
        member = np.eye(len(groups))[rng.permutation(home)].T  # [groups, clusters]
        total = np.einsum("gc,cle->gle", member, load)
        pairs = (total**2).sum(2) - member @ squares
        weight = (member @ tokens) ** 2 - member @ own_pairs
        several = weight.min(1) > 0  # as everywhere, a group of one document is left out
        found.append((counts.shape[2] * pairs[several] / weight[several] - 1).mean())
    whole = load.sum(0)
    pairs = (whole**2).sum(1) - squares.sum(0)
    pooled = counts.shape[2] * pairs / (tokens.sum(0) ** 2 - own_pairs.sum(0)) - 1
    return 1 - pooled.mean() / np.array(found)


def _summed(rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums of rows [documents, …] by group."""
    found = np.zeros((groups, *rows.shape[1:]))
    np.add.at(found, group, rows)
    return found
