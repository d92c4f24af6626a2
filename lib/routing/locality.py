"""Locality: how much of the imbalance inside a group of documents do other groups cancel?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats
from lib.routing.trace import Trace


def phi(counts: np.ndarray, group: np.ndarray) -> float:
    """Φ = 1 − CV²_U(pooled) / mean over groups of CV²_U(group), both averaged over layers first.

    counts [documents, layers, experts], group [documents].  1: every group is imbalanced and their
    sum is balanced; 0: all groups load the same experts.  Groups of fewer than two documents are
    left out.
    """
    return float(1 - _cv2(counts).mean() / _within(counts, group))


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


def tested(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """locality: Φ; locality_low, locality_high: its 95 % interval (delete-one-cluster jackknife;
    NaN below 8 clusters); locality_p: the p-value of the permutation test in which whole clusters
    change their group.  All NaN where fewer than two groups have two documents.

    The pooled CV²_U does not depend on the labels, so the test compares the mean CV²_U within
    groups, of which Φ is a monotone function: p is the share of draws where it is as large, the
    observed one counted.
    """
    names = ("locality", "locality_low", "locality_high", "locality_p")
    if len(_groups(group)) < 2:
        return dict.fromkeys(names, np.nan)
    clusters, of_document = np.unique(cluster, return_inverse=True)
    first = np.array([group[of_document == c][0] for c in range(len(clusters))])
    within = _within(counts, group)
    null = np.array([_within(counts, rng.permutation(first)[of_document]) for _ in range(draws)])
    limits = stats.jackknife_interval(
        np.arange(len(counts))[:, None],
        cluster,
        lambda rows: phi(counts[rows[:, 0]], group[rows[:, 0]]),
    )
    low, high = limits or (np.nan, np.nan)
    p = float((1 + (null >= within).sum()) / (1 + draws))
    return dict(zip(names, (phi(counts, group), low, high, p), strict=True))


def of_trace(t: Trace, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """`tested` of a trace in two groupings, a row each (column groups): its documents by domain;
    those of the domain "python", where there are any, by package, every document its own cluster.
    """
    counts = np.stack([t.per_document(layer) for layer in range(len(t.expert_index))], 1)
    domain = t.document_domain()
    rows = [dict(groups="domain") | tested(counts, domain, t.cluster, draws, rng)]
    python = np.flatnonzero(t.domains[domain] == "python")
    if len(python):
        found = tested(counts[python], t.cluster[python], python, draws, rng)
        rows.append(dict(groups="package within python") | found)
    return pd.DataFrame(rows)


def between_domains(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `of_trace` that group documents by domain."""
    return table[table.groups == "domain"]
