"""What a trace says of a router: tables of imbalance, each with its null, and what a server sees.

Layers keep their own values throughout; counts of different layers are never added up.  A table of
several traces by name is made by `each`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
import pandas as pd

from lib import stats
from lib.routing.trace import Trace, counts

METRICS = {
    "gini": stats.gini,
    "cv": stats.cv,
    "variance": stats.variance,
    "entropy": stats.entropy,
    "effective": stats.effective_experts,
    "max_violation": stats.max_violation,
    "min_over_mean": stats.min_over_mean,
    "dead": stats.dead_experts,
}


def each(
    table: Callable[..., pd.DataFrame], traces: Mapping[str, Trace], **options
) -> pd.DataFrame:
    """table(trace, **options) of every trace, one below the other, its name in the column arm."""
    parts = [table(t, **options) for t in traces.values()]
    named = [part.assign(arm=arm) for arm, part in zip(traces, parts, strict=True)]
    whole = pd.concat(named, ignore_index=True)
    return whole[["arm", *whole.columns.drop("arm")]]


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables of the same rows side by side, matched by the columns that they share."""
    return reduce(pd.merge, tables)


def told(table: pd.DataFrame, column: str, by: str | list[str] = "arm") -> pd.Series:
    """One column of a table, labelled by what its rows are of, as a sentence tells it."""
    return table.set_index(by)[column]


def metrics(load: np.ndarray) -> pd.DataFrame:
    """Every metric of a load [rows, experts], a row each."""
    return pd.DataFrame({name: metric(load) for name, metric in METRICS.items()})


def shape(t: Trace, **words: str) -> pd.Series:
    """Of the router: layers, experts, k (the experts of a token), and what is told in `words`."""
    layers, _, k = t.expert_index.shape
    return pd.Series(dict(layers=layers, experts=t.experts, k=k) | words)


def extent(t: Trace) -> pd.Series:
    """How much text was routed: documents, clusters, tokens."""
    tokens = t.expert_index.shape[1]
    return pd.Series(dict(documents=len(t.cluster), clusters=len(t.clusters), tokens=tokens))


def loads(t: Trace) -> pd.DataFrame:
    """The load per layer (from 1), a column for each expert."""
    return pd.DataFrame(t.load).rename_axis("layer").rename(index=lambda i: i + 1).reset_index()


def maps(t: Trace) -> dict[str, np.ndarray]:
    """Loads [layers, experts] of all domains together, and of each by its name."""
    return {"all domains": t.load, **t.domain_load()}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per trace of its layers (column arm): means over layers of Gini, MaxVio (maxvio),
    effective experts and the router's entropy; the extremes of Gini (gini_least, gini_most);
    dead: experts without a token, of all layers; over_null: the least Gini over the upper end of
    the cluster-permutation null (NaN where that is 0, as of a router that takes every expert).
    """
    named = table.assign(over_null=table.gini / table.cluster_null_high)
    return (
        named.groupby("arm", sort=False)
        .agg(
            gini=("gini", "mean"),
            gini_least=("gini", "min"),
            gini_most=("gini", "max"),
            maxvio=("max_violation", "mean"),
            effective=("effective", "mean"),
            dead=("dead", "sum"),
            router_entropy=("router_entropy", "mean"),
            over_null=("over_null", "min"),
        )
        .reset_index()
    )


def busiest(table: pd.DataFrame) -> pd.Series:
    """The largest load over its layer's mean, by arm, of layers (column arm)."""
    return (1 + table.groupby("arm", sort=False).max_violation.max()).rename("busiest")


def chance(t: Trace, table: pd.DataFrame) -> pd.DataFrame:
    """The Gini that chance would give, mean over layers, a row per null and trace of its
    layers (column arm): null: "null", if tokens chose independently (arm: ""); "document_null" and
    "cluster_null", with labels permuted by document and by cluster; gini.
    """
    _, tokens, k = t.expert_index.shape
    independent = dict(null="null", arm="", gini=stats.gini_null(tokens, t.experts, k))
    means = table.groupby("arm", sort=False)[["document_null", "cluster_null"]].mean()
    long = means.melt(var_name="null", value_name="gini", ignore_index=False).reset_index()
    return pd.concat([pd.DataFrame([independent]), long], ignore_index=True)


def compared(table: pd.DataFrame) -> pd.Series:
    """Both checkpoints' layers held against each other, at the worst of the layers:
    gini_ratio_most, the largest Gini with the balance loss over that without it (NaN where one of
    them is not there).
    """
    gini = table.pivot(index="layer", columns="arm", values="gini")
    both = gini.reindex(columns=["with", "without"])
    return pd.Series(dict(gini_ratio_most=(both["with"] / both["without"]).max()))


def inside(table: pd.DataFrame) -> pd.DataFrame:
    """Of layers by domain (column arm), a row per trace: arm, gini_domain: mean over domains and
    layers.
    """
    named = table.assign(gini_domain=table.gini)
    return named.groupby("arm", sort=False).gini_domain.mean().reset_index()


def above_null(table: pd.DataFrame) -> pd.Series:
    """Of the same, by arm, the share of domains and layers whose Gini lies above the band of the
    cluster-permutation null.
    """
    named = table.assign(above_null=table.gini > table.cluster_null_high)
    return named.groupby("arm", sort=False).above_null.mean()


def documents(t: Trace) -> pd.DataFrame:
    """Per document and layer: domain, tokens, and the metrics."""
    k, names = t.expert_index.shape[2], t.domains[t.document_domain()]
    parts = []
    for layer in range(len(t.expert_index)):
        routed = t.per_document(layer)
        about = dict(layer=layer + 1, document=np.arange(len(routed)), domain=names)
        tokens = routed.sum(1) // k
        parts.append(
            pd.concat([pd.DataFrame(about | dict(tokens=tokens)), metrics(routed)], axis=1)
        )
    return pd.concat(parts, ignore_index=True)


def places(t: Trace, weight: Mapping[str, float]) -> pd.DataFrame:
    """Gini where the same routes are read in parts, one row.

    gini_all: over all documents, mean over layers; gini_document: of one document, median over
    documents and layers; then means over layers: gini_mixture, with domains weighted by `weight`
    (NaN where one has none); gini_opening, gini_quarter_2 to _4: of each quarter of what is read;
    gini_later, gini_later_most: mean and largest of the last three.
    """
    quarter = 4 * t.position // np.bincount(t.document)[t.document]
    by_domain, by_quarter = _by_group(t, t.domain), _by_group(t, quarter)
    names = [str(name) for name in t.domains]
    shares = np.array([weight.get(name, 1.0) for name in names])
    mixture = np.tensordot(by_domain / by_domain.sum(2, keepdims=True), shares, (1, 0))
    single = [stats.gini(t.per_document(layer)) for layer in range(len(t.load))]
    opening, *later = stats.gini(by_quarter).mean(0)
    row = dict(
        gini_all=stats.gini(t.load).mean(),
        gini_document=np.median(single),
        gini_mixture=stats.gini(mixture).mean() if {*names} <= weight.keys() else np.nan,
        gini_opening=opening,
    )
    row |= {f"gini_quarter_{number}": value for number, value in enumerate(later, 2)}
    return pd.DataFrame([row | dict(gini_later=np.mean(later), gini_later_most=max(later))])


def _by_group(t: Trace, group: np.ndarray) -> np.ndarray:
    """[layers, groups, experts] assignments of the tokens of each group [tokens]."""
    number = range(group.max() + 1)
    rows = [
        [np.bincount(row[group == g].ravel(), minlength=t.experts) for g in number]
        for row in t.expert_index
    ]
    return np.array(rows)


def batches(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] token numbers of serving batches: whole documents in random order, cut to
    size.

    The documents are shuffled anew for every pass over the text; consecutive stretches of `tokens`
    are the batches.
    """
    if not 1 <= tokens <= len(t.document):
        rule = f"must be from 1 to {len(t.document)}, the trace's"
        raise ValueError(f"profile.batches: tokens = {tokens}: {rule}")
    starts = np.flatnonzero(np.diff(t.document, prepend=-1))
    pieces = np.split(np.arange(len(t.document)), starts[1:])
    found: list[np.ndarray] = []
    while len(found) < number:
        row = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        row = np.roll(row, -int(rng.integers(len(row))))
        found += list(row[: len(row) // tokens * tokens].reshape(-1, tokens))
    return np.stack(found[:number])


def repeated(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] token numbers of batches in which one prompt repeats: a document each, drawn
    at random, over and over until the batch is full.
    """
    starts = np.flatnonzero(np.diff(t.document, prepend=-1))
    pieces = np.split(np.arange(len(t.document)), starts[1:])
    return np.stack([np.resize(pieces[i], tokens) for i in rng.integers(len(pieces), size=number)])


def batch_loads(t: Trace, batch: np.ndarray) -> np.ndarray:
    """[layers, batches, experts] load of batches [batches, tokens]."""
    return np.stack(
        [counts(index[batch].reshape(len(batch), -1), t.experts) for index in t.expert_index]
    )


def even_load(
    tokens: int, experts: int, k: int, number: int, rng: np.random.Generator
) -> np.ndarray:
    """[number, experts] loads of a perfect router whose tokens choose k distinct experts
    independently.
    """
    score = rng.random((number, tokens, experts), dtype=np.float32)
    return counts(score.argpartition(k - 1, axis=-1)[..., :k].reshape(number, -1), experts)
