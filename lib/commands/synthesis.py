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


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`parts` as their table shows them."""
    return table.drop(columns="name")


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


def as_perplexity(table: pd.DataFrame, column: str, sign: int = 1) -> pd.DataFrame:
    """A table with the column perplexity_by, by which part a difference in nats per token, `column`
    with its interval, changes perplexity: e^(± nats) − 1.  sign: −1 where `column` is a gain.
    """
    ends = {"": "", "_low": "_low", "_high": "_high"}
    if sign < 0:
        ends |= {"_low": "_high", "_high": "_low"}
    parts = {
        f"perplexity_by{to}": np.expm1(sign * table[f"{column}{of}"]) for to, of in ends.items()
    }
    return table.assign(**parts)


def prices(results: Results) -> pd.DataFrame:
    """The price of balancing at inference per pair and arm: seed, arm ("without" or "with" a
    balance loss), price in nats per token.
    """
    table = ladder_results.prices(results)
    rows = table.melt("seed", ["without", "with"], var_name="arm", value_name="price")
    return rows.sort_values(["arm", "seed"], ignore_index=True)


def mean_prices(table: pd.DataFrame) -> pd.Series:
    """Of `prices`, their mean by arm."""
    return table.groupby("arm").price.mean()


def price_difference(results: Results) -> pd.DataFrame:
    """One row: how much more balancing at inference costs a model trained without a balance loss,
    with its interval, the mean price of both arms, and the checkpoints.
    """
    own = ladder_results.prices(results)
    row = decided(ladder_results.price_difference(results))
    return pd.DataFrame([row | {"without": own["without"].mean(), "with": own["with"].mean()}])


def price_told(results: Results) -> pd.DataFrame:
    """`price_difference` as sentences tell it: name, estimate and perplexity_by with their
    intervals, checkpoints.
    """
    known = as_perplexity(price_difference(results), "estimate").assign(name="price")
    return known.drop(columns=["without", "with"])


def found_again(table: pd.DataFrame) -> pd.DataFrame:
    """Of `transfer`, one row: in how many of the shapes the difference is found_again."""
    return pd.DataFrame([{"found_again": int(table.found_again.sum()), "shapes": len(table)}])


def transfer(results: Results) -> pd.DataFrame:
    """The same difference for other router shapes, one pair each: shape, estimate with its
    interval, asked (what was declared to count), found_again (whether it reaches that).
    """
    table = ladder_results.transfer(results)
    shape = table.experts.astype(str) + ", top " + table.k.astype(str)
    low, high = table.low_all, table.high_all
    known = table.rename(columns={"reached": "found_again"})
    own = known[["estimate", "asked", "found_again"]].assign(estimate_low=low, estimate_high=high)
    return own.assign(shape=shape)[
        ["shape", "estimate", "estimate_low", "estimate_high", "asked", "found_again"]
    ]


def quality(results: Results, models: pd.DataFrame) -> pd.DataFrame:
    """What a balance loss that is there from the start gains on held-out text, in nats per token
    below the model without one: loss ("embedded": Switch in the embedded pair), mean MaxVio, gain
    with its interval, checkpoints.  models: `ladder_profile.models`.
    """
    names = {"switch": "switch"} | {f"start-{loss}": loss for loss in FROM_START}
    cases = [("none", name, loss) for name, loss in names.items()]
    cases.append(("embedded-without", "embedded-with", "embedded"))
    known = models.groupby("name").max_violation.mean()
    rows = []
    for without, name, loss in cases:
        row = ladder_results.held_out(results, without, name)
        ends = {"gain": row["estimate"], "gain_low": row["low_all"], "gain_high": row["high_all"]}
        about = {"loss": loss, "max_violation": known[name]}
        rows.append(about | ends | {"checkpoints": int(row["n"])})
    return pd.DataFrame(rows)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """`quality` as sentences tell it: name ("gain" in nats, of Switch and of the embedded pair also
    "perplexity_by"), loss, value with its interval.
    """
    known = as_perplexity(table, "gain", sign=-1)
    both = known[known.loss.isin(["switch", "embedded"])]
    return pd.concat([_named(known, "gain"), _named(both, "perplexity_by")], ignore_index=True)


def dearer(table: pd.DataFrame) -> pd.DataFrame:
    """Of `weakest`, what repair with Switch costs in perplexity over prevention: name, of, value
    with its interval.
    """
    own = as_perplexity(table[table.loss == "switch"], "over_start")
    return _named(own, "perplexity_by").assign(of="dearer").drop(columns="loss")


def _named(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column with its interval, if it has one, as value, and its name."""
    ends = {f"value{end}": table.get(f"{column}{end}") for end in ("", "_low", "_high")}
    return pd.DataFrame({"name": column, "loss": table.loss, **ends})


def repairs(results: Results) -> pd.DataFrame:
    """What training an unbalanced model on with a loss costs: loss, coefficient, mean MaxVio and
    price of balancing afterwards; repair, nats per token above where it started, and over_start,
    above the model of the same seed with Switch from the start, with their intervals.
    """
    keys = ["loss", "coefficient"]
    dearer = ladder_repairs.over_prevention(results).set_index(keys)
    rows = []
    for row in ladder_repairs.cost(results).to_dict("records"):
        about = {name: row[name] for name in (*keys, "max_violation", "price")}
        above = decided(dearer.loc[(row["loss"], row["coefficient"])].to_dict())
        more = {name.replace("estimate", "over_start"): value for name, value in above.items()}
        own = {name.replace("estimate", "repair"): value for name, value in decided(row).items()}
        rows.append(about | own | more)
    return pd.DataFrame(rows)


def shares(results: Results) -> pd.DataFrame:
    """CV² within domains, split into what all domains share and what is each one's own, and the
    share of a packed placement's gain that is left on other text (kept):
    arm, quantity, estimate with its interval, checkpoints; arm "change": with minus without a
    balance loss, over pairs.
    """
    rows = []
    for arm, name in {"without": "none", "with": "switch"}.items():
        split = ladder_profile.parts(results, name)
        both = split[split.part != "share"].to_dict("records")
        rows += [{"arm": arm, "quantity": row["part"]} | decided(row) for row in both]
        moved = ladder_profile.kept(results, name).query("text == 'other'").iloc[0]
        over = {"low_all": moved["low"], "high_all": moved["high"]}
        rows.append({"arm": arm, "quantity": "kept"} | decided(moved.to_dict() | over))
    for row in ladder_profile.gaps(results).to_dict("records"):
        rows.append({"arm": "change", "quantity": row["part"]} | decided(row))
    return pd.DataFrame(rows)


def over_checkpoints(results: Results, models: pd.DataFrame) -> pd.DataFrame:
    """Means over the models without ("none") and with Switch of Gini and of Φ's null, of the latter
    also of Φ, of the former of Φ of packages within Python and its null, with their intervals
    over checkpoints, in which the text counts as given: name, loss, value, checkpoints.
    """
    of = {loss: models[models.name == loss] for loss in ("none", "switch")}
    own = {(name, loss): rows[name] for name in ("gini", "phi_null") for loss, rows in of.items()}
    own["phi", "switch"] = of["switch"].phi
    inside = ladder_profile.within(results)
    own |= {("phi_python", "none"): inside.phi, ("phi_python_null", "none"): inside.null}
    rows = []
    for (name, loss), values in own.items():
        low, high = stats.mean_interval(values)
        ends = {"value": values.mean(), "value_low": low, "value_high": high}
        rows.append({"name": name, "loss": loss} | ends | {"checkpoints": len(values)})
    return pd.DataFrame(rows)


def path(results: Results) -> pd.DataFrame:
    """One model without a balance loss at fractions of its training: tokens in millions, Gini, and
    settled, what is left at the end of the gain of a placement packed then (1: all).
    """
    found = ladder_profile.path(results[f"none_{declared.SEEDS[0]}"])
    tokens = found.step * declared.BATCH_SEQUENCES * declared.SEQUENCE_TOKENS / 1e6
    return found.assign(tokens_m=tokens)[["tokens_m", "gini", "settled", "nats"]]


def gini_in_time(table: pd.DataFrame) -> pd.Series:
    """Of `path`, the Gini by tokens in millions."""
    return table.set_index("tokens_m").gini


def begins(table: pd.DataFrame) -> pd.DataFrame:
    """Two rows of `path`, when: "first", and "half", from where on at least half of the gain of a
    placement packed then is left at the end; tokens_m, gini, settled.
    """
    settled = (table.settled[::-1] >= 0.5).cummin()[::-1]  # from there on, at every later point
    rows = table.iloc[[0, int(settled.to_numpy().argmax())]]
    return rows.assign(when=["first", "half"])[["when", "tokens_m", "gini", "settled"]]


def weakest(table: pd.DataFrame) -> pd.DataFrame:
    """Of `repairs` the one without a loss, and Switch at its weakest coefficient."""
    own = table[table.loss.isin(["none", "switch"])]
    return own.sort_values("coefficient").drop_duplicates("loss")


KEYS = {"loss": "of", "arm": "of", "quantity": "name", "estimate": "value"}
KEYS |= {f"estimate{end}": f"value{end}" for end in ("_low", "_high")}


def named(*tables: pd.DataFrame) -> pd.DataFrame:
    """The rows of tables of estimates, or of values, as values are published: name (of a table
    without it its quantity; rows without one are left out), of (its loss or arm, empty where there
    is none), and value with its interval.
    """
    each = [table.rename(columns=KEYS).query("name != ''") for table in tables]
    whole = pd.concat(each, ignore_index=True)
    columns = ["name", "of", "value", "value_low", "value_high"]
    return whole.reindex(columns=columns).fillna({"of": ""})


def long(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Columns of a table by loss, with their intervals, as rows: name (the column), loss, value."""
    return pd.concat([_named(table, column) for column in columns], ignore_index=True)
