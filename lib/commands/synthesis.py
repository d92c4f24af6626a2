"""What the ladder's checkpoints say, as the tables that the synthesis shows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats
from lib.commands import (
    declared,
    ladder_profile,
    ladder_queue,
    ladder_repairs,
    ladder_results,
    ladder_summary,
)
from lib.commands.ladder_results import Results

# names of the parts that prose tells
SLUGS = {
    "Φ": "phi",
    f"{declared.POLICIES[0]}, γ {declared.PRICE_GAMMA:g}": "drop_over_reroute",
    "bias over rival": "bias_over_rival",
    "entropy": "entropy_over_switch",
    "gini": "gini_over_switch",
}
FROM_START = ("entropy", "gini", "max", "bias", "stock", "switch_z")


def published() -> Results:
    """The results in the repository, of what is declared."""
    return ladder_queue.read([ladder_queue.PUBLISHED], ladder_queue.numbers())


def decided(row: dict) -> dict:
    """An estimate with the interval that decides: over checkpoints and clusters of documents."""
    return {
        "estimate": row["estimate"],
        "estimate_low": row["low_all"],
        "estimate_high": row["high_all"],
        "checkpoints": int(row["n"]),
    }


def hypotheses(results: Results, draws: int) -> pd.DataFrame:
    """A row per part of every hypothesis that the ladder decides: `ladder_summary.hypotheses`."""
    return ladder_summary.hypotheses(results, draws)


def parts(table: pd.DataFrame) -> pd.DataFrame:
    """`hypotheses` for readers: hypothesis, part, estimate with its interval, checkpoints, p and
    verdict; name: what prose calls a part, empty where it does not.
    """
    rows = [
        {"hypothesis": row["hypothesis"], "part": row["part"]}
        | decided(row)
        | {"p": row["p"], "verdict": row["verdict"], "name": SLUGS.get(row["part"], "")}
        for row in table.to_dict("records")
    ]
    return pd.DataFrame(rows)


def family(table: pd.DataFrame, results: Results) -> pd.DataFrame:
    """A row per declared hypothesis: verdict, p, p_holm (Holm over all of `declared.FAMILY`; one
    that was not run counts with p = 1) and checkpoints.
    """
    known = ladder_summary.verdicts(table, results).set_index("hypothesis")
    rows = known.reindex(declared.FAMILY).rename_axis("hypothesis").reset_index()
    rows["verdict"] = rows.verdict.fillna("not run")
    rows["p_holm"] = stats.holm(rows.p.fillna(1.0))
    rows.loc[rows.verdict == "not run", ["p", "p_holm"]] = np.nan
    rows["checkpoints"] = rows.n.fillna(0).astype(int)
    return rows[["hypothesis", "verdict", "p", "p_holm", "checkpoints"]]


def prices(results: Results) -> pd.DataFrame:
    """The price of balancing at inference per pair and arm: seed, arm ("without" or "with" a
    balance loss), price in nats per token.
    """
    table = ladder_results.prices(results)
    rows = table.melt("seed", ["without", "with"], var_name="arm", value_name="price")
    return rows.sort_values(["arm", "seed"], ignore_index=True)


def price_difference(results: Results) -> pd.DataFrame:
    """One row: how much more balancing at inference costs a model trained without a balance loss,
    with its interval, the mean price of both arms, and the checkpoints.
    """
    own = ladder_results.prices(results)
    row = decided(ladder_results.price_difference(results))
    return pd.DataFrame([row | {"without": own["without"].mean(), "with": own["with"].mean()}])


def transfer(results: Results) -> pd.DataFrame:
    """The same difference for other router shapes, one pair each: shape, estimate with its
    interval, asked (what was declared to count), reached.
    """
    table = ladder_results.transfer(results)
    shape = table.experts.astype(str) + ", top " + table.k.astype(str)
    low, high = table.low_all, table.high_all
    own = table[["estimate", "asked", "reached"]].assign(estimate_low=low, estimate_high=high)
    return own.assign(shape=shape)[
        ["shape", "estimate", "estimate_low", "estimate_high", "asked", "reached"]
    ]


def quality(results: Results) -> pd.DataFrame:
    """What a balance loss that is there from the start gains on held-out text, in nats per token
    below the model without one: loss, mean MaxVio, gain with its interval, checkpoints.
    """
    names = {"switch": "switch"} | {f"start-{loss}": loss for loss in FROM_START}
    known = ladder_profile.models(results).groupby("name").max_violation.mean()
    rows = []
    for name, loss in names.items():
        row = ladder_results.held_out(results, "none", name)
        ends = {"gain": row["estimate"], "gain_low": row["low_all"], "gain_high": row["high_all"]}
        about = {"loss": loss, "max_violation": known[name]}
        rows.append(about | ends | {"checkpoints": int(row["n"])})
    return pd.DataFrame(rows)


def repairs(results: Results) -> pd.DataFrame:
    """What training an unbalanced model on with a loss costs, above where it started: loss,
    coefficient, mean MaxVio and price of balancing afterwards, repair with its interval.
    """
    table = ladder_repairs.cost(results)
    about = ["loss", "coefficient", "max_violation", "price"]
    rows = [{name: row[name] for name in about} | decided(row) for row in table.to_dict("records")]
    ends = {"estimate": "repair", "estimate_low": "repair_low", "estimate_high": "repair_high"}
    return pd.DataFrame(rows).rename(columns=ends)


def shares(results: Results) -> pd.DataFrame:
    """CV² within domains, split into what all domains share and what is each one's own, and the
    share of a packed placement's gain that is left on other text: arm, quantity, estimate with its
    interval, checkpoints.
    """
    rows = []
    for arm, name in {"without": "none", "with": "switch"}.items():
        split = ladder_profile.parts(results, name)
        rows += [{"arm": arm, "quantity": r["part"]} | decided(r) for r in split.to_dict("records")]
        moved = ladder_profile.kept(results, name).query("text == 'other'").iloc[0]
        over = {"low_all": moved["low"], "high_all": moved["high"]}
        rows.append({"arm": arm, "quantity": "kept"} | decided(moved.to_dict() | over))
    return pd.DataFrame(rows)


def path(results: Results) -> pd.DataFrame:
    """One model without a balance loss at fractions of its training: tokens in millions, Gini, and
    settled, what is left at the end of the gain of a placement packed then (1: all).
    """
    found = ladder_profile.path(results[f"none_{declared.SEEDS[0]}"])
    tokens = found.step * declared.BATCH_SEQUENCES * declared.SEQUENCE_TOKENS / 1e6
    return found.assign(tokens_m=tokens)[["tokens_m", "gini", "settled", "nats"]]


def weakest(table: pd.DataFrame) -> pd.DataFrame:
    """Of `repairs` each loss at its weakest coefficient."""
    return table.sort_values("coefficient").drop_duplicates("loss")


def as_values(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose estimates are called "value", as names that other columns make up want them."""
    ends = {"estimate": "value", "estimate_low": "value_low", "estimate_high": "value_high"}
    return table.rename(columns=ends)
