"""How much text does a profile need?  What a part of the documents says of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib import stats
from lib.routing.trace import Trace

NEAR = 0.1  # part of the whole text's Gini, and of its hot experts, that may be missed
THINGS = ("gini", "dead", "hot")
SURE = 0.95  # share of draws in which what is asked must hold


def curve(t: Trace, sizes: Sequence[int], draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """What `draws` random sets of so many documents say of a trace, a row per size.

    documents; over draws the mean, and as _low and _high the 5th and 95th percentile, of: gini
    (mean over layers); dead, experts without a token, of all layers; hot, the share of the k
    busiest experts of every layer of the whole text that are the k busiest of the sample.
    near_gini: the share of draws whose Gini differs by at most a `NEAR` part from that of the whole
    text; near_hot: in which at most such a part of the hot experts is missed; near_dead: in which
    the dead experts are those of the whole text.

    Documents are drawn without being put back, so sizes beyond half of them, of which the sample is
    no longer independent of the whole, are left out.
    """
    parts = np.stack([t.per_document(layer) for layer in range(len(t.expert_index))], 1)
    k, whole = t.expert_index.shape[2], t.load
    gini, dead, hot = stats.gini(whole).mean(), whole == 0, _busiest(whole, k)
    rows = []
    for size in (size for size in sizes if size <= len(parts) // 2):
        found = []
        for _ in range(draws):
            load = parts[rng.choice(len(parts), size, replace=False)].sum(0)
            own = stats.gini(load).mean()
            common = (_busiest(load, k) & hot).sum() / hot.sum()
            near = abs(own - gini) <= NEAR * gini, ((load == 0) == dead).all(), common >= 1 - NEAR
            found.append((own, (load == 0).sum(), common, *near))
        rows.append(_row(size, np.array(found, dtype=float)))
    return pd.DataFrame(rows)


def _busiest(load: np.ndarray, k: int) -> np.ndarray:
    """[layers, experts] whether an expert is one of the k busiest of its layer."""
    place = np.argsort(-load, axis=1, kind="stable")[:, :k]
    found = np.zeros(load.shape, dtype=bool)
    np.put_along_axis(found, place, True, axis=1)
    return found


def _row(size: int, found: np.ndarray) -> dict[str, float]:
    """A row of `curve` from what its draws found, [draws, 6]."""
    row: dict[str, float] = dict(documents=size)
    for name, values, near in zip(THINGS, found.T[:3], found.T[3:], strict=True):
        low, high = np.quantile(values, [0.05, 0.95])
        row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
        row[f"near_{name}"] = near.mean()
    return row


def enough(table: pd.DataFrame) -> pd.DataFrame:
    """From how many documents on a `curve` (column arm) is settled, a row per arm and thing.

    thing: "gini", "dead" or "hot"; settled, in words: the least number of documents from which on,
    at every larger one too, its near_ reaches `SURE`.
    """
    rows = []
    for arm, own in table.groupby("arm", sort=False):
        down = own.sort_values("documents", ascending=False)
        for thing in THINGS:
            sizes = down.documents[(down[f"near_{thing}"] >= SURE).cummin()]
            words = f"{sizes.min():,}" if len(sizes) else f"more than {down.documents.max():,}"
            rows.append(dict(arm=arm, thing=thing, settled=words))
    return pd.DataFrame(rows)


def fewest(table: pd.DataFrame) -> pd.DataFrame:
    """Of a `curve` (column arm), arm and dead with the fewest documents."""
    return table.loc[table.documents == table.documents.min(), ["arm", "dead"]]
