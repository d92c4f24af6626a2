"""What training did to a model's quality, as readers know it: nats, perplexity, accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.balance import crossed, documents, runs
from lib.balance.study import Job, Study

COLUMNS = ["loss", "coefficient", "seeds", "gini", "max_violation", "added", "added_low"]
COLUMNS += ["added_high", "perplexity_before", "perplexity", "perplexity_ratio"]
COLUMNS += ["perplexity_ratio_low", "perplexity_ratio_high", "accuracy_points"]
COLUMNS += ["accuracy_points_low", "accuracy_points_high"]


def ratio(row: Mapping[str, float], nats: str, name: str) -> dict[str, float]:
    """What perplexity is multiplied by: exp of a difference in nats per token, and its interval."""
    return {name + end: float(np.exp(row[nats + end])) for end in ("", "_low", "_high")}


def by_loss(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss at its middle coefficient, beside the checkpoint that training starts from: loss,
    coefficient, seeds, gini, max_violation; added, nats per token above the start; perplexity
    before and after, perplexity_ratio; accuracy_points, next-token accuracy gained, in points (NaN
    where a run's record does not hold the hits).

    Intervals of 95 % cover seeds and clusters of documents.
    """
    found = dict(runs.at_middle(study, results))
    starts = [one for job, one in found.items() if job.loss == "start"]
    state, rows = runs.by_loss(study, results), []
    for loss in (loss for loss in study.coefficients if starts):
        own = [one for job, one in found.items() if job.loss == loss]
        if not own:
            continue
        known = state[state.loss == loss].iloc[0]
        row = known[["loss", "coefficient", "seeds", "gini", "max_violation"]].to_dict()
        row |= crossed.mean(_gained(own, starts[0], "nats"), "added")
        before = documents.per_token(starts[0])[0]
        row |= dict(perplexity_before=np.exp(before), perplexity=np.exp(before + row["added"]))
        row |= ratio(row, "added", "perplexity_ratio")
        hits = 100 * _gained(own, starts[0], "correct")
        rows.append(row | crossed.mean(hits, "accuracy_points"))
    return pd.DataFrame(rows, columns=COLUMNS)


def _gained(own: list[dict], start: dict, what: str) -> np.ndarray:
    """[seeds, 1 + clusters] of runs, above the start."""
    return np.array([documents.per_token(one, what) for one in own]) - documents.per_token(
        start, what
    )


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`by_loss` for readers: perplexity as "before → after", and no column that says nothing."""
    both = [
        f"{one:.3f} → {other:.3f}"
        for one, other in zip(table.perplexity_before, table.perplexity, strict=True)
    ]
    own = table.drop(columns=["perplexity_before", "perplexity"])
    own.insert(8, "perplexity_both", both)
    points = [name for name in own if name.startswith("accuracy_points")]
    return own if own.accuracy_points.notna().any() else own.drop(columns=points)


def matched(table: pd.DataFrame) -> pd.DataFrame:
    """`matched.compared` with perplexity_ratio, by what a loss multiplies that of no loss."""
    rows = [ratio(row, "cost", "perplexity_ratio") for row in table.to_dict("records")]
    return table.join(pd.DataFrame(rows, index=table.index))
