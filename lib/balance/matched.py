"""Losses against imbalance compared where they are equally even: no coefficient of one means the
same as that of another.

Each loss is a curve over its coefficients, nats per token against max_violation; at one level of
balance, what two losses cost is compared seed by seed, since runs of one seed see the same text in
the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib import stats
from lib.balance import runs
from lib.balance.trial import Job, Study

EQUAL = ("entropy", "gini")  # the losses that are held to cost what Switch costs


def compared(table: pd.DataFrame, seeds: Sequence[int], margin: float) -> pd.DataFrame:
    """A row per loss with what it costs at matched balance: loss, seeds, target, of cost and
    difference the mean and its 95 % interval over paired seeds, and p_equivalent.

    A loss's curve runs on straight lines through its coefficients of one seed, from the run without
    a loss.  target: the lowest max_violation that Switch and the losses `EQUAL` all reach in each
    of `seeds`.  A seed whose curve does not reach it is missing, never extrapolated.  cost: nats
    per token above the run without a loss; difference: above Switch (none for itself);
    p_equivalent: of two one-sided tests within ± margin (`stats.equivalence_p`).  Below two seeds
    no interval and no p.
    """
    own = table[table.seed.isin(seeds)]
    losses = [loss for loss in dict.fromkeys(table.loss) if loss not in ("start", "none")]
    curves = {
        (loss, seed): own[(own.seed == seed) & own.loss.isin([loss, "none"])]
        for loss in losses
        for seed in seeds
    }
    reached = [
        curve.max_violation.min()
        for (loss, _), curve in curves.items()
        if loss in ("switch", *EQUAL)
    ]
    target = max(reached, default=np.nan)
    nats = {
        key: stats.crossing(curve.max_violation, curve.nats, target)
        for key, curve in curves.items()
    }
    free = {seed: own.nats[(own.seed == seed) & (own.loss == "none")].item() for seed in seeds}
    rows = []
    for loss in losses:
        costs = np.array([nats[loss, seed] - free[seed] for seed in seeds])
        gaps = np.array([nats[loss, seed] - nats["switch", seed] for seed in seeds])
        gaps = gaps[np.isfinite(gaps)] if loss != "switch" else gaps[:0]
        rows.append(
            dict(loss=loss, seeds=int(np.isfinite(costs).sum()), target=target)
            | runs.mean(costs[np.isfinite(costs)], "cost")
            | runs.mean(gaps, "difference")
            | dict(p_equivalent=stats.equivalence_p(gaps, margin) if len(gaps) > 1 else np.nan)
        )
    return pd.DataFrame(rows)


def by_text(
    study: Study, results: Mapping[int, Mapping[Job, dict]], jobs: Sequence[Job], margin: float
) -> pd.DataFrame:
    """`compared` on each text whose start is evaluated, in the order of the study.

    stride: of every how manyth training document the text is; text_tokens_m: its size in million
    tokens; passes: how often a run sees it; drift: nats per token of the runs without a loss above
    the start.
    """
    tables = []
    for stride, known in results.items():
        if jobs[0] not in runs.evaluated(known):
            continue
        table = runs.table(known)
        start = table[table.loss == "start"]
        size = known[jobs[0]]["held_out"]["training_tokens"]
        tables.append(
            compared(table, runs.complete(table, jobs), margin).assign(
                stride=stride,
                text_tokens_m=size / 1e6,
                passes=study.tokens / size,
                drift=table.nats[table.loss == "none"].mean() - start.nats.item(),
            )
        )
    return pd.concat(tables, ignore_index=True)


def texts(table: pd.DataFrame) -> pd.DataFrame:
    """What `by_text` says of the first two texts themselves, a row each; NaN where one is not
    there.
    """
    own = table[["stride", "text_tokens_m", "passes", "drift", "target"]]
    return own.drop_duplicates("stride", ignore_index=True).reindex(range(2))


def on_text(table: pd.DataFrame, place: int) -> pd.DataFrame:
    """What `compared` gave on the text number `place` (from 0); no rows where it is not there."""
    strides = table.stride.drop_duplicates().iloc[place : place + 1]
    own = table[table.stride.isin(strides)].reset_index(drop=True)
    return own.drop(columns=["target", "stride", "text_tokens_m", "passes", "drift"])


def equality(table: pd.DataFrame) -> pd.DataFrame:
    """Of rows of one text, for each of the losses `EQUAL`: difference, nats per token above Switch,
    and its size, gap, with their intervals, and p_equivalent.

    Below `stats.CLUSTERS` seeds only the difference is told; a loss that is not there is a row of
    NaN.
    """
    own = runs.of(table, *EQUAL)
    limits = ["difference_low", "difference_high"]
    enough = own.seeds >= stats.CLUSTERS
    own[[*limits, "p_equivalent"]] = own[[*limits, "p_equivalent"]].where(enough)
    sizes = [
        stats.size_interval((low, high)) if known else (np.nan, np.nan)
        for known, low, high in zip(enough, *(own[limit] for limit in limits), strict=True)
    ]
    own[["gap_low", "gap_high"]] = sizes
    own["gap"] = own.difference.abs().where(enough)
    return own


def sides(table: pd.DataFrame) -> dict[str, list[str]]:
    """The losses that are "cheaper" and "dearer" than Switch by their intervals over at least
    `stats.CLUSTERS` seeds, in order of their difference.
    """
    known = table[table.seeds >= stats.CLUSTERS].sort_values("difference")
    return {
        "cheaper": known.loss[known.difference_high < 0].tolist(),
        "dearer": known.loss[known.difference_low > 0].tolist(),
    }
