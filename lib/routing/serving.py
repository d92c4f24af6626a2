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


def _uneven(load: np.ndarray) -> pd.DataFrame:
    """gini and max_violation of every load [..., experts], a row each."""
    gini, violation = stats.gini(load).ravel(), stats.max_violation(load).ravel()
    return pd.DataFrame(dict(gini=gini, max_violation=violation))


def _loads(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[layers, batches, experts] loads of `number` batches of `tokens` tokens of a trace."""
    return profile.batch_loads(t, profile.batches(t, tokens, number, rng))


def _even(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[1, batches, experts] of the perfect router, with the experts and the k of a trace."""
    return profile.even_load(tokens, t.experts, t.expert_index.shape[2], number, rng)[None]


def samples(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """gini and max_violation of each of `number` batches and each layer.

    Batches have `tokens` tokens, or all of a trace that has fewer.
    """
    return _uneven(_loads(t, min(tokens, len(t.document)), number, rng))


def perfect(t: Trace, tokens: int, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """`samples` of a perfect router in place of the trace's, with arm: the null."""
    found = _uneven(_even(t, min(tokens, len(t.document)), number, rng))
    return found.assign(arm=NULL)[["arm", *found.columns]]


def repeated(t: Trace, tokens: int) -> pd.DataFrame:
    """gini and max_violation of batches of one prompt repeated, a row per document and layer.

    The prompt is a document's first `tokens` tokens (all of a shorter one).  Copies choose alike,
    so the batch is as uneven as one of them, however many fill it.
    """
    first = t.position < tokens
    key = t.document[first].astype(np.int64)[:, None] * t.experts
    shape = len(t.cluster), t.experts
    found = [
        np.bincount((key + row).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        for row in t.expert_index[:, first]
    ]
    return _uneven(np.stack(found))


def repeats(
    t: Trace, tokens: int, number: int, rng: np.random.Generator, prompt: int = 64
) -> np.ndarray:
    """[number, tokens] token numbers of batches of one prompt repeated: the first `prompt` tokens
    of a document (all of a shorter one), over and over, the last copy cut off; each batch is of
    another document, in random order, and of any again only after all.

    What `profile.batches` gives for text, and may take its place: the traffic of an attack on
    balance.
    """
    starts = np.flatnonzero(np.diff(t.document, prepend=-1))
    sizes = np.diff(starts, append=len(t.document)).clip(max=prompt)
    orders = [rng.permutation(len(starts)) for _ in range(-(-number // len(starts)))]
    place = np.concatenate(orders)[:number, None]
    return starts[place] + np.arange(tokens) % sizes[place]


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
    drawn = [(arm, _loads, t) for arm, t in traces.items()]
    for arm, load, t in (*drawn, (NULL, _even, next(iter(traces.values())))):
        for size in (size for size in tokens if size <= most):
            gini = stats.gini(load(t, size, number, rng)).mean(0)
            low, high = np.quantile(gini, [0.05, 0.95])
            rows.append(dict(arm=arm, tokens=size, gini=gini.mean(), gini_low=low, gini_high=high))
    return pd.DataFrame(rows)
