"""H3 over checkpoints, and what repair costs, from the ladder's results of the queue "repairs".

Each result holds one starting checkpoint, trained without a loss, and what it became when trained
on with each loss and coefficient.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats
from lib.commands import declared
from lib.commands.ladder_results import Results, mean, of, p_equivalent, per_token, price


def rows(results: Results) -> pd.DataFrame:
    """A row per start and repair: loss ("start" for the start itself), coefficient, seed, nats per
    token, max_violation (P95 over serving batches, mean over layers), and price, what re-routing
    costs the model.
    """
    found = []
    for result in of(results, "repairs", "repairs"):
        for row in result["repairs"]:
            own = row["profile"]
            violation = stats.max_violation(np.array(own["serving"]))
            found.append(
                {
                    "seed": result["job"]["seed"],
                    "loss": row["loss"],
                    "coefficient": row["coefficient"],
                    "nats": sum(own["nats"]) / sum(own["tokens"]),
                    "max_violation": np.quantile(violation, 0.95, axis=0).mean(),
                    "price": price(row)[0],
                }
            )
    return pd.DataFrame(found)


def cost(results: Results, base: str = "start") -> pd.DataFrame:
    """Per loss and coefficient the nats per token above `base` ("start", or "none", which was
    trained on without a loss): `mean` over starts, and the mean max_violation and price.
    """
    table, found = rows(results), []
    for key, own in table.groupby(["loss", "coefficient"], sort=False):
        if key[0] == base:
            continue
        gaps = []
        for result in of(results, "repairs", "repairs"):
            one, other = _profile(result, *key), _profile(result, base, 0.0)
            gap = np.array(one["nats"]) - np.array(other["nats"])
            gaps.append(per_token(gap, np.array(one["tokens"]), one["cluster"]))
        about = dict(zip(("loss", "coefficient"), key, strict=True))
        shown = own[["max_violation", "price"]].mean().to_dict()
        found.append(about | shown | mean(gaps))
    return pd.DataFrame(found)


def over_prevention(results: Results, name: str = "switch") -> pd.DataFrame:
    """Per loss and coefficient the nats per token of a repaired model above the one of the same
    seed that was trained with configuration `name` from the start: `mean` over pairs.
    """
    prevented = {r["job"]["seed"]: r["profile"] for r in of(results, name, "profile")}
    found = []
    for key in rows(results)[["loss", "coefficient"]].drop_duplicates().itertuples(index=False):
        gaps = []
        for result in of(results, "repairs", "repairs"):
            one, other = _profile(result, *key), prevented[result["job"]["seed"]]
            gap = np.array(one["nats"]) - np.array(other["nats"])
            gaps.append(per_token(gap, np.array(one["tokens"]), one["cluster"]))
        found.append(key._asdict() | mean(gaps))
    return pd.DataFrame(found)


def _profile(result: dict, loss: str, coefficient: float) -> dict:
    """The profile of one repair."""
    return next(
        row["profile"]
        for row in result["repairs"]
        if (row["loss"], row["coefficient"]) == (loss, coefficient)
    )


def equal(results: Results, margin: float = declared.MARGIN) -> pd.DataFrame:
    """H3: per loss the nats per token above Switch at matched balance, `mean` over starts, with
    p_equivalent and the target.

    A loss's curve of one start runs from "none" through its coefficients on straight lines,
    document by document; target: the lowest max_violation that every loss reaches from every start.
    """
    table = rows(results)
    if table.empty:
        return pd.DataFrame()
    losses = [loss for loss in table.loss.unique() if loss not in ("start", "none")]
    curves = {
        (loss, seed): own.sort_values("max_violation")
        for seed, mine in table.groupby("seed")
        for loss in losses
        for own in [mine[mine.loss.isin(["none", loss])]]
    }
    target = max(curve.max_violation.min() for curve in curves.values())
    found = []
    for loss in (loss for loss in losses if loss != "switch"):
        gaps = []
        for result in of(results, "repairs", "repairs"):
            seed = result["job"]["seed"]
            gap = _at(result, curves[loss, seed], target) - _at(
                result, curves["switch", seed], target
            )
            own = _profile(result, "none", 0.0)
            gaps.append(per_token(gap, np.array(own["tokens"]), own["cluster"]))
        row = mean(gaps)
        p = p_equivalent(row, margin)
        found.append({"loss": loss, "target": target} | row | {"p_equivalent": p})
    return pd.DataFrame(found)


def _at(result: dict, curve: pd.DataFrame, target: float) -> np.ndarray:
    """Nats [documents] at `target` on the straight lines of a curve sorted by max_violation; NaN
    beyond its ends.
    """
    nats = np.array([_profile(result, r.loss, r.coefficient)["nats"] for r in curve.itertuples()])
    return np.array([stats.crossing(curve.max_violation, column, target) for column in nats.T])
