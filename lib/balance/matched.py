"""Losses against imbalance compared where they are equally even: no coefficient of one means the
same as that of another.

Each loss is a curve over its coefficients, nats per token against a measure of balance; at one
level of it, what two losses cost is compared seed by seed, since runs of one seed see the same text
in the same order.  Intervals cover seeds and clusters of held-out documents
(`lib.balance.crossed`); balance itself is taken as it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import stats
from lib.balance import crossed, documents, reading, runs
from lib.balance.study import Job, Study

EQUAL = ("entropy", "gini")  # the losses that are held to cost what Switch costs
TAGS = ("", "elsewhere")  # of what is told of the first text, and of the second
COLUMNS = ["loss", "seeds", "target", "cost", "cost_low", "cost_high", "difference"]
COLUMNS += ["difference_low", "difference_high", "p_equivalent"]
CLAIMS = [  # H3: name, text, predicate
    (
        "h3",
        "From this one start, at the lowest MaxVio that all reach, entropy and Gini losses "
        "differ from Switch by less than the margin.",
        "gap_entropy < margin and gap_gini < margin",
    ),
    (
        "h3_elsewhere",
        "The same on the second text that was trained on.",
        "gap_entropy_elsewhere < margin and gap_gini_elsewhere < margin",
    ),
]
Key = tuple[str, int]  # a loss and a seed


@dataclass(frozen=True)
class Curves:
    """The runs of one text as curves: per loss and seed the balance [points] and the nats per token
    [points, 1 + clusters] (on all documents, then without one cluster at a time), of which the
    first point is the run without a loss, the end that all losses share.
    """

    seeds: list[int]
    losses: list[str]
    balance: dict[Key, np.ndarray]
    nats: dict[Key, np.ndarray]

    def lowest(self) -> float:
        """The lowest balance that Switch and the losses `EQUAL` all reach in each seed; NaN without
        a seed.
        """
        asked = [loss for loss in self.losses if loss in ("switch", *EQUAL)]
        ends = [self.balance[loss, seed].min() for loss in asked for seed in self.seeds]
        return float(max(ends, default=np.nan))

    def target(self, share: float) -> float:
        """The balance `share` of the way from the lowest to the most even run without a loss."""
        free = [points[0] for points in self.balance.values()]
        return self.lowest() + share * (float(min(free, default=np.nan)) - self.lowest())

    def read(self, loss: str, at: float, way: str) -> np.ndarray:
        """[seeds, 1 + clusters] nats per token of a loss at the balance `at`; NaN where its curve
        does not reach it.
        """
        rows = [
            reading.WAYS[way](self.balance[loss, seed], self.nats[loss, seed], at)
            for seed in self.seeds
        ]
        return np.array(rows) if rows else np.empty((0, 1))


def curves(results: Mapping[Job, dict], seeds: Sequence[int], metric: str) -> Curves:
    """The curves of these seeds over `metric`, a column of `runs.table`."""
    table = runs.table(results)
    known = {job: documents.per_token(one) for job, one in runs.evaluated(results).items()}
    losses = [loss for loss in dict.fromkeys(table.loss) if loss not in ("start", "none")]
    found = Curves(list(seeds), losses, {}, {})
    for loss in losses:
        for seed in seeds:
            own = table[(table.seed == seed) & table.loss.isin([loss, "none"])]
            own = own.sort_values("loss", key=lambda name: name != "none", kind="stable")
            names = zip(own.loss, own.coefficient, strict=True)
            found.balance[loss, seed] = own[metric].to_numpy()
            found.nats[loss, seed] = np.array([known[Job(*name, seed)] for name in names])
    return found


def compared(
    own: Curves, margin: float, *, share: float = 0.0, way: str = "straight lines"
) -> pd.DataFrame:
    """A row per loss with what it costs at matched balance: loss, seeds, target, of cost and
    difference the mean with its 95 % interval over paired seeds and clusters, and p_equivalent.

    target: `Curves.target` at `share`.  A seed whose curve does not reach it is missing, never
    extrapolated.  cost: nats per token above the run without a loss; difference: above Switch (none
    for itself); p_equivalent: of two one-sided tests within ± margin.  Below two seeds or
    `stats.CLUSTERS` clusters no interval and no p.
    """
    target, rows = own.target(share), []
    at = {loss: own.read(loss, target, way) for loss in own.losses}
    for loss in own.losses:
        free = [own.nats[loss, seed][0] for seed in own.seeds]
        costs = _reached(at[loss] - (np.array(free) if free else at[loss]))
        gaps = _reached(at[loss] - at["switch"]) if loss != "switch" else costs[:0]
        rows.append(
            dict(loss=loss, seeds=len(costs), target=target)
            | crossed.mean(costs, "cost")
            | crossed.mean(gaps, "difference")
            | dict(p_equivalent=crossed.equivalence_p(gaps, margin))
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _reached(values: np.ndarray) -> np.ndarray:
    """The seeds [seeds, 1 + clusters] of which there is a value."""
    return values[np.isfinite(values[:, :1]).all(1)]


def by_text(
    study: Study, results: Mapping[int, Mapping[Job, dict]], jobs: Sequence[Job], margin: float
) -> pd.DataFrame:
    """`compared` at the lowest MaxVio on each text whose start is evaluated, in the order of the
    study.

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
        own = curves(known, runs.complete(table, jobs), "max_violation")
        tables.append(
            compared(own, margin).assign(
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
    own[["gap_low", "gap_high"]] = sizes(own)
    own["gap"] = own.difference.abs().where(enough)
    return own


def equal(table: pd.DataFrame, *things: str) -> pd.DataFrame:
    """These columns of `equality` on both of the first two texts of `by_text`, as `runs.told` has
    them.
    """
    asked = dict.fromkeys(things, EQUAL)
    both = [equality(on_text(table, place)) for place in range(len(TAGS))]
    parts = [runs.told(own, tag=tag, **asked) for own, tag in zip(both, TAGS, strict=True)]
    return pd.concat(parts, ignore_index=True)


def sizes(table: pd.DataFrame) -> np.ndarray:
    """[rows, 2] the interval of the size of each row's difference; NaN where there is none."""
    limits = table[["difference_low", "difference_high"]].to_numpy(dtype=float)
    known = np.isfinite(limits).all(1)
    found = np.full(limits.shape, np.nan)
    for row in np.flatnonzero(known):
        found[row] = stats.size_interval(tuple(limits[row]))
    return found
