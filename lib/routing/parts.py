"""A trace layer by layer, as a whole or by domain: how uneven it is, and beside which null.

A table here has a row per part and layer (from 1).  Parts are what `whole` or `by_domain` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from lib import stats
from lib.routing.profile import METRICS
from lib.routing.trace import Trace

Parts = Callable[[Trace], Iterator[tuple[dict, np.ndarray]]]


def whole(t: Trace) -> Iterator[tuple[dict, np.ndarray]]:
    """All documents of a trace."""
    yield {}, np.arange(len(t.cluster))


def by_domain(t: Trace) -> Iterator[tuple[dict, np.ndarray]]:
    """Domain, number of documents and of clusters, and which documents they are."""
    for number, domain in enumerate(t.domains):
        mine = np.flatnonzero(t.document_domain() == number)
        clusters = len(set(t.cluster[mine]))
        yield dict(domain=domain, documents=len(mine), clusters=clusters), mine


def _table(t: Trace, parts: Parts, row: Callable[[np.ndarray, np.ndarray], dict]) -> pd.DataFrame:
    """row(counts [documents, experts], clusters [documents]) of each part and layer."""
    rows = []
    for layer in range(len(t.expert_index)):
        routed = t.per_document(layer)
        for about, mine in parts(t):
            rows.append(about | dict(layer=layer + 1) | row(routed[mine], t.cluster[mine]))
    return pd.DataFrame(rows)


def measured(t: Trace, parts: Parts) -> pd.DataFrame:
    """The metrics of the load."""
    return _table(
        t, parts, lambda routed, _: {name: f(routed.sum(0)) for name, f in METRICS.items()}
    )


def unbiased(t: Trace, parts: Parts) -> pd.DataFrame:
    """cv2: the unbiased squared CV (NaN of a single document, which has no pair); cv2_low,
    cv2_high: its 95 % interval by jackknife over clusters (NaN: too few).
    """

    def row(routed: np.ndarray, clusters: np.ndarray) -> dict:
        if len(routed) < 2:
            return dict.fromkeys(("cv2", "cv2_low", "cv2_high"), np.nan)
        limits = stats.jackknife_interval(routed, clusters, stats.cv2_unbiased)
        low, high = limits or (np.nan, np.nan)
        return dict(cv2=stats.cv2_unbiased(routed), cv2_low=low, cv2_high=high)

    return _table(t, parts, row)


def nulls(t: Trace, parts: Parts, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Mean Gini under two nulls, document_null and cluster_null, each with the band that holds 95 %
    of `draws` (_low, _high): experts' labels permuted for each document by itself, and alike for
    all documents of a cluster.

    What a router shows that is balanced over documents (clusters), but as uneven within each as
    this one.  Documents of a cluster resemble each other, so that the second lies higher.
    """

    def row(routed: np.ndarray, clusters: np.ndarray) -> dict:
        found: dict[str, float] = {}
        kinds = dict(document_null=routed, cluster_null=_summed(routed, clusters))
        for kind, counts in kinds.items():
            gini = stats.gini(stats.permutation_null(counts, draws, rng))
            low, high = np.quantile(gini, [0.025, 0.975])
            found |= {kind: gini.mean(), f"{kind}_low": low, f"{kind}_high": high}
        return found

    return _table(t, parts, row)


def _summed(routed: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """[clusters, experts] sums of counts [documents, experts] over the documents of a cluster."""
    names, own = np.unique(clusters, return_inverse=True)
    found = np.zeros((len(names), routed.shape[1]), routed.dtype)
    np.add.at(found, own, routed)
    return found
