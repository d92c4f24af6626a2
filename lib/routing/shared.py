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
    shared = _between(np.array(shares))
    return shared, np.mean(within, axis=0) - shared


def of_totals(loads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`split` of totals [groups, layers, experts], where documents are not known.

    within is then the plain squared CV of a group, so specific also holds the burstiness of its
    documents, and is too large rather than too small.  Refused: fewer than two groups.
    """
    loads = np.asarray(loads, dtype=float)
    if len(loads) < 2:
        raise ValueError(f"shared.of_totals: {len(loads)} groups: must be at least 2")
    shares = loads / loads.sum(2, keepdims=True)
    within = loads.shape[2] * (shares**2).sum(2).mean(0) - 1
    common = _between(shares)
    return common, within - common


def _between(shares: np.ndarray) -> np.ndarray:
    """[layers] mean over pairs of groups of E Σ_e P_ae P_be − 1; P [groups, layers, experts]."""
    products = [
        (shares[a] * shares[b]).sum(1)
        for a in range(len(shares))
        for b in range(a + 1, len(shares))
    ]
    return shares.shape[2] * np.mean(products, axis=0) - 1
