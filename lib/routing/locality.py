"""Locality: how much of the imbalance inside a group of documents do other groups cancel?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lib import stats
from lib.routing.trace import Trace

TESTED = (
    "locality",
    "locality_low",
    "locality_high",
    "locality_null",
    "locality_null_low",
    "locality_null_high",
    "locality_p",
)


def phi(counts: np.ndarray, group: np.ndarray) -> float:
    """Φ = 1 − CV²_U(pooled) / mean over groups of CV²_U(group), both averaged over layers first.

    counts [documents, layers, experts], group [documents].  1: every group is imbalanced and their
    sum is balanced; 0: all groups load the same experts; NaN: none is imbalanced at all.  Groups of
    fewer than two documents are left out.
    """
    return float(_cancelled(_cv2(counts).mean(), _within(counts, group)))


def _cancelled(pooled: float, within: ArrayLike) -> np.ndarray:
    """1 − pooled / within; NaN where within is 0."""
    return np.where(within, 1 - pooled / np.where(within, within, 1.0), np.nan)


def _groups(group: np.ndarray) -> np.ndarray:
    """The numbers of the groups that have two documents or more."""
    return np.flatnonzero(np.bincount(group) > 1)


def _within(counts: np.ndarray, group: np.ndarray) -> float:
    """Mean over groups and layers of the unbiased squared CV."""
    return float(np.mean([_cv2(counts[group == g]).mean() for g in _groups(group)]))


def _cv2(counts: np.ndarray) -> np.ndarray:
    """stats.cv2_unbiased for every layer of counts [documents, layers, experts]."""
    counts = counts.astype(float)
    n = counts.sum(2)
    pairs = (counts.sum(0) ** 2).sum(1) - (counts**2).sum((0, 2))
    return counts.shape[2] * pairs / (n.sum(0) ** 2 - (n**2).sum(0)) - 1


def permuted(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws] mean over groups and layers of CV²_U where whole clusters change their group at
    random.

    counts [documents, layers, experts], group and cluster [documents].  Refused: a cluster in two
    groups.
    """
    names, of_document = np.unique(cluster, return_inverse=True)
    groups, own = np.unique(group, return_inverse=True)
    home = np.full(len(names), -1)
    home[of_document] = own
    if (home[of_document] != own).any():
        raise ValueError("locality.permuted: a cluster in two groups: must lie in one")
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
    return np.array(found)


def _summed(rows: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums of rows [documents, …] by group."""
    found = np.zeros((groups, *rows.shape[1:]))
    np.add.at(found, group, rows)
    return found


def null(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws] Φ where whole clusters change their group at random: what Φ is held against.

    Above 0 on average, since documents of one cluster route alike, so that a group of few clusters
    is uneven by itself.  Arguments and refusals: `permuted`.
    """
    return _cancelled(_cv2(counts).mean(), permuted(counts, group, cluster, draws, rng))


def tested(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """locality: Φ; locality_low, locality_high: its 95 % interval (delete-one-cluster jackknife;
    NaN below 8 clusters); locality_null: its mean under labels permuted over whole clusters,
    between locality_null_low and locality_null_high in 95 % of draws; locality_p: the p-value of
    that test.  All NaN where fewer than two groups have two documents.

    The pooled CV²_U does not depend on the labels, so the test compares the mean CV²_U within
    groups, of which Φ is a monotone function: p is the share of draws where it is as large, the
    observed one counted.  A cluster in two groups counts as one of each.
    """
    if len(_groups(group)) < 2:
        return dict.fromkeys(TESTED, np.nan)
    unit = np.unique(np.stack([group, cluster]), axis=1, return_inverse=True)[1].ravel()
    within = permuted(counts, group, unit, draws, rng)
    by_chance = _cancelled(_cv2(counts).mean(), within)
    limits = stats.jackknife_interval(
        np.arange(len(counts))[:, None],
        cluster,
        lambda rows: phi(counts[rows[:, 0]], group[rows[:, 0]]),
    )
    ends = np.quantile(by_chance, [0.025, 0.975])
    p = (1 + (within >= _within(counts, group)).sum()) / (1 + draws)
    found = (phi(counts, group), *(limits or (np.nan, np.nan)), by_chance.mean(), *ends, p)
    return dict(zip(TESTED, map(float, found), strict=True))


def known(table: pd.DataFrame) -> list[str]:
    """The traces (column arm) of which a table of `tested` holds Φ."""
    return table.arm[table.locality.notna()].tolist()


def _counts(t: Trace) -> np.ndarray:
    """[documents, layers, experts] of a trace."""
    return np.stack([t.per_document(layer) for layer in range(len(t.expert_index))], 1)


def by_domain(t: Trace, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """`tested` of a trace's documents by domain, one row; within: "", for names of values."""
    found = tested(_counts(t), t.document_domain(), t.cluster, draws, rng)
    return pd.DataFrame([dict(groups="domain", within="") | found])


def by_package(t: Trace, domain: str, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """`tested` of the documents of one domain by package, the first part of a cluster's name, one
    row, or none without such documents (NaN of a single package); within: that domain.
    """
    mine = np.flatnonzero(t.domains[t.document_domain()] == domain)
    if not len(mine):
        return pd.DataFrame(columns=["groups", "within", *TESTED])
    cluster = t.cluster[mine]
    names = [str(name).split("/")[0] for name in t.clusters[cluster]]
    package = np.unique(names, return_inverse=True)[1].astype(int)
    found = tested(_counts(t)[mine], package, cluster, draws, rng)
    return pd.DataFrame([dict(groups=f"package within {domain}", within=domain) | found])
