"""What a server sees: the imbalance of batches of serving size, beside that of a perfect router.

The perfect router is called "null": its tokens choose independently, so its batches are synthetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lib import stats
from lib.routing import profile
from lib.routing.trace import Trace

NULL = "null"


def loads(
    traces: Mapping[str, Trace], arm: str, tokens: int, number: int, rng: np.random.Generator
) -> np.ndarray:
    """[layers, batches, experts] loads of `number` batches of `tokens` tokens of one trace; of the
    null there is one layer, with the experts and the k of the first trace.
    """
    if arm == NULL:
        first = next(iter(traces.values()))
        k = first.expert_index.shape[2]
        return profile.even_load(tokens, first.experts, k, number, rng)[None]
    return profile.batch_loads(traces[arm], profile.batches(traces[arm], tokens, number, rng))


def samples(
    traces: Mapping[str, Trace], tokens: int, number: int, rng: np.random.Generator
) -> pd.DataFrame:
    """gini and max_violation of each of `number` batches and each layer, by arm, the null last.

    Batches have `tokens` tokens, or all of the first trace where it has fewer.
    """
    fitting = min(tokens, len(next(iter(traces.values())).document))
    tables = []
    for arm in (*traces, NULL):
        load = loads(traces, arm, fitting, number, rng)
        gini, violation = stats.gini(load).ravel(), stats.max_violation(load).ravel()
        tables.append(pd.DataFrame(dict(arm=arm, gini=gini, max_violation=violation)))
    return pd.concat(tables, ignore_index=True)


def repeated(traces: Mapping[str, Trace], tokens: int) -> pd.DataFrame:
    """gini and max_violation of batches of one prompt repeated, a row per document and layer; arm:
    "repeated_" and that of the trace.

    The prompt is a document's first `tokens` tokens (all of a shorter one).  Copies choose alike,
    so the batch is as uneven as one of them, however many fill it.
    """
    tables = []
    for arm, t in traces.items():
        first = t.position < tokens
        part = t.expert_index[:, first]
        key = t.document[first].astype(np.int64)[:, None] * t.experts
        size = len(t.cluster) * t.experts
        load = np.stack([np.bincount((key + row).ravel(), minlength=size) for row in part])
        load = load.reshape(len(part), len(t.cluster), t.experts)
        gini, violation = stats.gini(load).ravel(), stats.max_violation(load).ravel()
        rows = dict(arm=f"repeated_{arm}", gini=gini, max_violation=violation)
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)


def tail(*tables: pd.DataFrame) -> pd.DataFrame:
    """Of `samples` and `repeated`, by arm, the percentiles 50, 95 and 99 over batches and layers:
    columns batch_maxvio_p50 …, batch_gini_p50 ….
    """
    named = pd.concat(tables).rename(columns={"max_violation": "maxvio"})
    found = named.groupby("arm")[["maxvio", "gini"]].quantile([0.5, 0.95, 0.99]).unstack()
    found.columns = [f"batch_{name}_p{100 * q:.0f}" for name, q in found.columns]
    return found.reset_index()


def largest(table: pd.DataFrame) -> pd.Series:
    """Gini of the largest batches of `sizes`, by arm."""
    return table.groupby("arm").gini.last()


def kinds(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of a table that were measured, and those of the null, which are synthetic."""
    yield "measured", table[table.arm != NULL]
    yield "synthetic", table[table.arm == NULL]


def sizes(
    traces: Mapping[str, Trace], tokens: Sequence[int], number: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Gini of a batch's load, mean over layers, against its tokens: arm, tokens, and over batches
    gini (mean), gini_low and gini_high (5th and 95th percentile).

    tokens: the sizes, of which those are left out of which the first trace does not hold two;
    number: batches of each.
    """
    most = len(next(iter(traces.values())).document) // 2
    rows = []
    for arm in (*traces, NULL):
        for size in (size for size in tokens if size <= most):
            gini = stats.gini(loads(traces, arm, size, number, rng)).mean(0)
            low, high = np.quantile(gini, [0.05, 0.95])
            rows.append(dict(arm=arm, tokens=size, gini=gini.mean(), gini_low=low, gini_high=high))
    return pd.DataFrame(rows)
