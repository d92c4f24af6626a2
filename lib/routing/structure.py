"""What a token's experts depend on: the token itself, its place, its domain, and each other.

Layers keep their own values throughout.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lib.routing.trace import Trace


def information_share(x: ArrayLike, y: ArrayLike, shuffles: int, rng: np.random.Generator) -> float:
    """Which share of the entropy of y [n] is known from x [n].

    (I(x; y) − mean I(shuffled x; y)) / H(y), of labels that are whole numbers ≥ 0.  Mutual
    information of finite samples is biased upwards; its mean over shuffled labels is taken off.
    0: nothing is known, 1: everything.  Refused: different lengths, and a y that is constant.
    """
    x, y = np.unique(x, return_inverse=True)[1], np.unique(y, return_inverse=True)[1]
    if x.shape != y.shape or y.max() == 0:
        given = f"{len(x)} and {len(y)} labels"
        raise ValueError(
            f"structure.information_share: {given}: must be as many, and y not constant"
        )
    null = np.mean([_joint_entropy(rng.permutation(x), y) for _ in range(shuffles)])
    return float((null - _joint_entropy(x, y)) / _entropy_nats(np.bincount(y)))


def _joint_entropy(x: np.ndarray, y: np.ndarray) -> float:
    return _entropy_nats(np.unique(x.astype(np.int64) * (y.max() + 1) + y, return_counts=True)[1])


def _entropy_nats(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def known(t: Trace, shuffles: int, rng: np.random.Generator) -> pd.DataFrame:
    """Per layer and source the share of the entropy of a token's first expert that is known from
    it.

    token: its vocabulary entry; position: its sixteenth of the context; domain; second: the expert
    chosen next to it (co-activation); before: its first expert in the layer above.  Each is
    `information_share`, net of its shuffled null; 0 where the first expert is always the same, of
    which nothing is left to know.
    """
    always = {
        "token": t.token,
        "position": 16 * t.position // (t.position.max() + 1),
        "domain": t.domain,
    }
    rows = []
    for layer, index in enumerate(t.expert_index):
        first = index[:, 0]
        sources = always | ({"second": index[:, 1]} if index.shape[1] > 1 else {})
        sources |= {"before": t.expert_index[layer - 1, :, 0]} if layer else {}
        for name, x in sources.items():
            constant = (first == first[0]).all()
            share = 0.0 if constant else information_share(x, first, shuffles, rng)
            rows.append(dict(layer=layer + 1, source=name, share=share))
    return pd.DataFrame(rows)


def known_means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over layers of `known` of several traces (column arm): arm, source, known."""
    means = table.groupby(["arm", "source"]).share.mean()
    return means.rename("known").reset_index()


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
    total = together.sum() / (expected.sum() or np.inf)
    known = (expected > 0) & (total > 0)  # of one expert a token no pair is expected
    return np.divide(together, expected * total, out=np.full(expected.shape, np.nan), where=known)


def strongest(table: pd.DataFrame) -> pd.Series:
    """The largest ratio of `pairs`, by arm."""
    return table.groupby("arm").ratio.max()


def most(strongest: pd.Series) -> pd.DataFrame:
    """`strongest` as values: arm, together; without a row where no two experts serve a token."""
    return strongest.rename("together").reset_index()


def pairs(ratios: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`coactivation` of several traces by name as a table: arm, expert, other, ratio, a row for
    each pair of different experts whose ratio is known.
    """
    tables = [
        pd.DataFrame(ratio)
        .rename_axis("expert")
        .melt(var_name="other", value_name="ratio", ignore_index=False)
        .reset_index()
        .assign(arm=arm)
        for arm, ratio in ratios.items()
    ]
    return pd.concat(tables, ignore_index=True).dropna()[["arm", "expert", "other", "ratio"]]
