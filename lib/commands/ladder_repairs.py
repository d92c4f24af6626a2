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
            found.append(
                {
                    "seed": result["job"]["seed"],
                    "loss": row["loss"],
                    "coefficient": row["coefficient"],
                    "nats": sum(own["nats"]) / sum(own["tokens"]),
                    "max_violation": _violation(row),
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
            known = dict(zip(("loss", "coefficient"), key, strict=True))
            gaps.append(_gap(_found(result, known), _found(result, {"loss": base})))
        about = dict(zip(("loss", "coefficient"), key, strict=True))
        shown = own[["max_violation", "price"]].mean().to_dict()
        found.append(about | shown | mean(gaps))
    return pd.DataFrame(found)


def over_prevention(results: Results, name: str = "switch") -> pd.DataFrame:
    """Per loss and coefficient the nats per token of a repaired model above the one of the same
    seed that was trained with configuration `name` from the start: `mean` over pairs.
    """
    prevented = {r["job"]["seed"]: r for r in of(results, name, "profile")}
    known, found = of(results, "repairs", "repairs"), []
    for row in rows(results)[["loss", "coefficient"]].drop_duplicates().to_dict("records"):
        gaps = [_gap(_found(r, row), prevented[r["job"]["seed"]]) for r in known]
        found.append(row | mean(gaps))
    return pd.DataFrame(found)


def cheap(results: Results) -> pd.DataFrame:
    """Repairs by what is trained: a row per (trained, loss, coefficient, rate) of the queue
    "cheap": above_start and above_none, each with its interval as `<name>_low/_high` (nats per
    token, `mean` over starts), the mean max_violation and price of re-routing, megatokens, and
    memory in GB beyond the model.  One that diverged from any start is left out.
    """
    known = of(results, "cheap", "repairs")
    found = []
    for row in known[0]["repairs"][1:] if known else []:
        key = {name: row[name] for name in ("trained", "loss", "coefficient", "rate")}
        own = [_found(result, key) for result in known]
        if any("profile" not in one for one in own):
            continue
        about = {
            "max_violation": np.mean([_violation(one) for one in own]),
            "price": np.mean([price(one)[0] if "prefix" in one else np.nan for one in own]),
            "megatokens": row["tokens"] / 1e6,
            "memory_gb": np.mean([one.get("memory_bytes", np.nan) for one in own]) / 1e9,
            "checkpoints": len(own),
        }
        for base in ("start", "none"):
            gaps = [_gap(one, _found(r, {"loss": base})) for one, r in zip(own, known, strict=True)]
            over = mean(gaps)
            ends = {"": "estimate", "_low": "low_all", "_high": "high_all"}
            about |= {f"above_{base}{end}": over[name] for end, name in ends.items()}
        found.append(key | about)
    return pd.DataFrame(found)


def _found(result: dict, key: dict) -> dict:
    """The repair of a result that has these fields."""
    return next(r for r in result["repairs"] if all(r[name] == key[name] for name in key))


def _violation(row: dict) -> float:
    """P95 of MaxVio over serving batches, mean over layers."""
    violation = stats.max_violation(np.array(row["profile"]["serving"]))
    return float(np.quantile(violation, 0.95, axis=0).mean())


def _gap(row: dict, base: dict) -> np.ndarray:
    """[1 + clusters] nats per token above another model, as `per_token` gives them."""
    own, other = row["profile"], base["profile"]
    gap = np.array(own["nats"]) - np.array(other["nats"])
    return per_token(gap, np.array(own["tokens"]), own["cluster"])


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
            own = _found(result, {"loss": "none"})["profile"]
            gaps.append(per_token(gap, np.array(own["tokens"]), own["cluster"]))
        row = mean(gaps)
        p = p_equivalent(row, margin)
        found.append({"loss": loss, "target": target} | row | {"p_equivalent": p})
    return pd.DataFrame(found)


def _at(result: dict, curve: pd.DataFrame, target: float) -> np.ndarray:
    """Nats [documents] at `target` on the straight lines of a curve sorted by max_violation; NaN
    beyond its ends.
    """
    keys = curve[["loss", "coefficient"]].to_dict("records")
    nats = np.array([_found(result, key)["profile"]["nats"] for key in keys])
    return np.array([stats.crossing(curve.max_violation, column, target) for column in nats.T])
