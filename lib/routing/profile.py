"""What a trace says of a router: tables of imbalance and of structure, each with its null.

Layers keep their own values throughout; counts of different layers are never added up.
"""

from __future__ import annotations

from pathlib import Path

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


def metrics(load: np.ndarray) -> pd.DataFrame:
    """Every metric of a load [rows, experts], a row each."""
    return pd.DataFrame({name: metric(load) for name, metric in METRICS.items()})


def layers(t: Trace, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Per layer (from 1) over all documents: the metrics; null, null_mean: upper 97.5 % end and
    mean of Gini under the document-permutation null; cv2: unbiased squared CV with cv2_low,
    cv2_high by jackknife over clusters (NaN: none).
    """
    rows = []
    for layer in range(len(t.expert_index)):
        routed = t.per_document(layer)
        null = stats.gini(stats.permutation_null(routed, draws, rng))
        limits = stats.jackknife_interval(routed, t.cluster, stats.cv2_unbiased) or (np.nan, np.nan)
        rows.append(
            dict(
                layer=layer + 1,
                null=np.quantile(null, 0.975),
                null_mean=null.mean(),
                cv2=stats.cv2_unbiased(routed),
                cv2_low=limits[0],
                cv2_high=limits[1],
            )
        )
    return pd.concat([pd.DataFrame(rows), metrics(t.load)], axis=1)


def domains(t: Trace, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Per domain and layer: the metrics, the 95 % band of Gini under the null, and the unbiased
    squared CV.
    """
    parts = []
    for number, domain in enumerate(t.domains):
        mine = np.flatnonzero(t.document_domain() == number)
        for layer in range(len(t.expert_index)):
            routed = t.per_document(layer)[mine]
            low, high = np.quantile(
                stats.gini(stats.permutation_null(routed, draws, rng)), [0.025, 0.975]
            )
            limits = stats.jackknife_interval(routed, t.cluster[mine], stats.cv2_unbiased) or (
                np.nan,
                np.nan,
            )
            row = dict(
                domain=domain,
                layer=layer + 1,
                documents=len(mine),
                clusters=len(set(t.cluster[mine])),
                null_low=low,
                null_high=high,
                cv2=stats.cv2_unbiased(routed),
                cv2_low=limits[0],
                cv2_high=limits[1],
            )
            parts.append(pd.concat([pd.DataFrame([row]), metrics(routed.sum(0)[None])], axis=1))
    return pd.concat(parts, ignore_index=True)


def documents(t: Trace) -> pd.DataFrame:
    """Per document and layer: domain, tokens, and the metrics."""
    k, names = t.expert_index.shape[2], t.domains[t.document_domain()]
    parts = []
    for layer in range(len(t.expert_index)):
        routed = t.per_document(layer)
        about = pd.DataFrame(
            dict(
                layer=layer + 1,
                document=np.arange(len(routed)),
                domain=names,
                tokens=routed.sum(1) // k,
            )
        )
        parts.append(pd.concat([about, metrics(routed)], axis=1))
    return pd.concat(parts, ignore_index=True)


def places(t: Trace, weight: np.ndarray) -> dict[str, float]:
    """Gini, mean over layers: with domains weighted by `weight` [domains], and in each quarter of
    what is read.
    """
    quarter = 4 * t.position // np.bincount(t.document)[t.document]
    by_domain, by_quarter = (
        np.stack(
            [
                [
                    np.bincount(row[group == g].ravel(), minlength=t.experts)
                    for g in range(group.max() + 1)
                ]
                for row in t.expert_index
            ]
        )
        for group in (t.domain, quarter)
    )
    mixture = np.tensordot(by_domain / by_domain.sum(2, keepdims=True), weight, (1, 0))
    found = stats.gini(by_quarter).mean(0)
    return dict(mixture=stats.gini(mixture).mean()) | {
        f"quarter_{q + 1}": float(g) for q, g in enumerate(found)
    }


def structure(t: Trace, shuffles: int, rng: np.random.Generator) -> pd.DataFrame:
    """Per layer, which share of the uncertainty of a token's first expert is known from what.

    token: its vocabulary entry; position: its sixteenth of the context; domain; second: the expert
    chosen next to it (co-activation); before: its first expert in the layer above.  Each is
    information_share, net of its shuffled null.
    """
    known = {
        "token": t.token,
        "position": 16 * t.position // (t.position.max() + 1),
        "domain": t.domain,
    }
    rows = []
    for layer, index in enumerate(t.expert_index):
        first = index[:, 0]
        sources = known | ({"second": index[:, 1]} if index.shape[1] > 1 else {})
        sources |= {"before": t.expert_index[layer - 1, :, 0]} if layer else {}
        rows += [
            dict(
                layer=layer + 1, source=name, share=stats.information_share(x, first, shuffles, rng)
            )
            for name, x in sources.items()
        ]
    return pd.DataFrame(rows)


def coactivation(t: Trace, layer: int) -> np.ndarray:
    """[experts, experts] how often two experts serve the same token, over the expectation if they
    were chosen independently with their own frequencies (and are distinct); NaN on the diagonal and
    where nothing is expected.
    """
    index = t.expert_index[layer]
    chosen = np.zeros((len(index), t.experts), dtype=np.float32)
    np.put_along_axis(chosen, index.astype(np.int64), 1, axis=1)
    together, share = chosen.T @ chosen, chosen.mean(0, dtype=float)
    expected = np.outer(share, share)
    np.fill_diagonal(expected, 0)
    np.fill_diagonal(together, 0)
    total = together.sum() / expected.sum()
    return np.divide(
        together, expected * total, out=np.full(expected.shape, np.nan), where=expected > 0
    )


def locality(counts: np.ndarray, group: np.ndarray) -> float:
    """Φ = 1 − CV²_U(pooled) / mean over groups of CV²_U(group), both averaged over layers first.

    counts [documents, layers, experts], group [documents].  1: every group is imbalanced and their
    sum is balanced; 0: all groups load the same experts.  Groups of fewer than two documents are
    left out.
    """
    return float(1 - _cv2(counts).mean() / _within(counts, group))


def _within(counts: np.ndarray, group: np.ndarray) -> float:
    """Mean over groups and layers of the unbiased squared CV."""
    return float(
        np.mean([_cv2(counts[group == g]).mean() for g in np.flatnonzero(np.bincount(group) > 1)])
    )


def _cv2(counts: np.ndarray) -> np.ndarray:
    """stats.cv2_unbiased for every layer of counts [documents, layers, experts]."""
    counts = counts.astype(float)
    n = counts.sum(2)
    pairs = (counts.sum(0) ** 2).sum(1) - (counts**2).sum((0, 2))
    return counts.shape[2] * pairs / (n.sum(0) ** 2 - (n**2).sum(0)) - 1


def locality_test(
    counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int, rng: np.random.Generator
) -> dict:
    """Φ with its 95 % interval (delete-one-cluster jackknife; None below 8 clusters) and the
    p-value of the permutation test in which whole clusters change their group.

    The pooled CV²_U does not depend on the labels, so the test compares the mean CV²_U within
    groups, of which Φ is a monotone function: p is the share of draws where it is as large, the
    observed one counted.
    """
    names, of_document = np.unique(cluster, return_inverse=True)
    first = np.array([group[of_document == c][0] for c in range(len(names))])
    phi, within = locality(counts, group), _within(counts, group)
    null = np.array([_within(counts, rng.permutation(first)[of_document]) for _ in range(draws)])
    limits = stats.jackknife_interval(
        np.arange(len(counts))[:, None],
        cluster,
        lambda rows: locality(counts[rows[:, 0]], group[rows[:, 0]]),
    )
    return dict(phi=phi, interval=limits, p=(1 + (null >= within).sum()) / (1 + draws))


def batches(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] token numbers of serving batches: whole documents in random order, cut to
    size.

    The documents are shuffled anew for every pass over the text; consecutive stretches of `tokens`
    are the batches.
    """
    if not 1 <= tokens <= len(t.document):
        raise ValueError(
            f"profile.batches: tokens = {tokens}: must be from 1 to {len(t.document)}, the trace's"
        )
    starts = np.flatnonzero(np.diff(t.document, prepend=-1))
    pieces = np.split(np.arange(len(t.document)), starts[1:])
    found: list[np.ndarray] = []
    while len(found) < number:
        row = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        row = np.roll(row, -int(rng.integers(len(row))))
        found += list(row[: len(row) // tokens * tokens].reshape(-1, tokens))
    return np.stack(found[:number])


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
    chosen = rng.random((number, tokens, experts), dtype=np.float32).argpartition(k - 1, axis=-1)[
        ..., :k
    ]
    return counts(chosen.reshape(number, -1), experts)


def published() -> pd.DataFrame:
    """`recorded` of the expert counts that AI2 published with OLMoE (arXiv 2409.02060), of
    OLMoE-1B-7B and Mixtral-8x7B: five domains of 208,896 tokens each, layers 0, 7 and 15.
    """
    return pd.read_csv(Path(__file__).parents[2] / "data/published/real_routers.csv")


def recorded(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics of counts that others recorded (columns of observe.recorded_counts), per model,
    domain and layer, and for all domains together ("pooled", where there are several).

    gini_share: Gini over its largest value, 1 − k/E (missing where k is not known).  locality, of
    pooled rows only: 1 − CV²(pooled) / mean of CV²(domain); totals have no documents, so this CV²
    is the plain one.
    """
    rows = []
    for (model, layer), part in frame.groupby(["model", "layer"], sort=False):
        load = part.pivot_table(
            index="domain", columns="expert", values="count", sort=False, fill_value=0
        )
        k, tokens = (
            int(part.top_k.iloc[0]),
            part.drop_duplicates("domain").set_index("domain").tokens,
        )
        about = dict(model=model, experts=load.shape[1], top_k=k, layer=layer)
        each = metrics(load.to_numpy()).assign(
            domain=load.index, tokens=tokens[load.index].to_numpy()
        )
        if len(load) > 1:
            pooled = metrics(load.to_numpy().sum(0)[None]).assign(
                domain="pooled", tokens=tokens.sum()
            )
            pooled["locality"] = 1 - pooled.cv**2 / (each.cv**2).mean()
            each = pd.concat([each, pooled])
        rows.append(
            each.assign(**about, gini_share=each.gini / (1 - k / about["experts"]) if k else np.nan)
        )
    columns = [
        "model",
        "experts",
        "top_k",
        "layer",
        "domain",
        "tokens",
        *METRICS,
        "gini_share",
        "locality",
    ]
    return pd.concat(rows, ignore_index=True).reindex(columns=columns)
