"""What a loss sees that adds the counts of expert number e up over layers, where experts of one
number have nothing in common but the number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lib import stats
from lib.balance import runs
from lib.balance.study import Job, Study

WORSE = 1.1  # times the Gini of the per-layer loss from which on the pooled one is advised against


def seen(load: ArrayLike) -> dict[str, float]:
    """Of a load [layers, experts], each layer weighted alike: pooled_gini, the Gini coefficient of
    the mean over layers; pooled_agreement, its correlation with a layer's own load, mean over
    layers; pooled_wrong, the share of experts that it pushes the wrong way: loaded above the mean
    in their layer and below it in the pool, or the reverse.
    """
    count = np.asarray(load, dtype=float)
    share = count / count.sum(1, keepdims=True)
    pool = share.mean(0)
    wrong = np.sign(pool - pool.mean()) != np.sign(share - share.mean(1, keepdims=True))
    return dict(
        pooled_gini=float(stats.gini(pool)),
        pooled_agreement=float(np.mean([np.corrcoef(pool, own)[0, 1] for own in share])),
        pooled_wrong=float(np.mean(wrong)),
    )


def layers(load: ArrayLike) -> pd.DataFrame:
    """Of a load [layers, experts], a row per layer (from 1): gini, dead experts, and of what the
    pool shows of it pooled_agreement and pooled_wrong (`seen`).
    """
    count = np.asarray(load, dtype=float)
    share = count / count.sum(1, keepdims=True)
    pool, mean = share.mean(0), 1 / share.shape[1]
    return pd.DataFrame(
        dict(
            layer=range(1, len(share) + 1),
            gini=stats.gini(count),
            dead=stats.dead_experts(count),
            pooled_agreement=[float(np.corrcoef(pool, own)[0, 1]) for own in share],
            pooled_wrong=(np.sign(pool - mean) != np.sign(share - mean)).mean(1),
        )
    )


def by_loss(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss at its middle coefficient: loss, and `seen` of its held-out load, over seeds."""
    own = runs.at_middle(study, results)
    rows = [dict(loss=job.loss) | seen(result["held_out"]["load"]) for job, result in own]
    return pd.DataFrame(rows).groupby("loss", sort=False, as_index=False).mean()


def most_even(points: pd.DataFrame) -> pd.DataFrame:
    """Of `runs.by_coefficient`, for the stock loss and for Switch: loss, and the lowest mean gini
    that any coefficient reaches; NaN where there is none.
    """
    return runs.of(points.groupby("loss", as_index=False).gini.min(), "stock", "switch")


def advice(best: pd.DataFrame) -> str:
    """What a user of the stock loss should do by `most_even`, as the end of a sentence."""
    stock, switch = best.gini
    if np.isnan(stock):
        return "not read anything into this run, which did not train with it"
    if stock > WORSE * switch:
        return "replace it by the same loss per layer"
    return "have no need to replace it here"
