"""Where the fresh run missed the declared bar of β, by how much and in which part, and what was
tried afterwards.

Exploratory: nothing here was declared before that run, and nothing of it enters the model.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from lib.measure import calibrate, elasticity
from lib.measure.fitting import Fit

CASE = ["shape", "tokens", "placement"]
TRIED = ["refit_difference", "even_difference"]


def tried(
    fresh: pd.DataFrame, layers: pd.DataFrame, tables: calibrate.Tables, fits: Mapping[str, Fit]
) -> pd.DataFrame:
    """The cases `fresh` of elasticity.apart with the predicted less the measured β under two other
    readings: refit_difference, expert products fitted on the judging machine's own; and
    even_difference, β from lines through the layer under even routes instead of an intercept that
    the layers of a case may lie far from (NaN where even routes were not measured).

    layers: those of the judging machine, as in calibrate.everything.
    """
    table = fresh.reindex(columns=list(dict.fromkeys([*fresh.columns, *TRIED])))
    rows = layers[layers.routes == "level"]
    if rows.empty or fresh.empty:
        return table
    again = _refitted(tables, fits, machine=rows.machine.iloc[0])
    even = layers[layers.routes == "even"].groupby(["shape", "tokens"])[["s", "predicted_s"]].mean()
    for index, case in fresh.iterrows():
        named = tuple(case[CASE])
        own, other = (x.set_index(CASE).sort_index().loc[[named]] for x in (rows, again))
        refit = elasticity.fit(other.rho, other.predicted_s)[1]
        table.loc[index, "refit_difference"] = refit - case.beta
        if named[:2] in even.index:
            slopes = {x: _through(own, x, even.loc[named[:2], x]) for x in ("s", "predicted_s")}
            table.loc[index, "even_difference"] = slopes["predicted_s"] - slopes["s"]
    return table


def _refitted(tables: calibrate.Tables, fits: Mapping[str, Fit], machine: str) -> pd.DataFrame:
    """The level layers of a machine, predicted with experts that are fitted on its own products."""
    ending = f" ({machine})"
    own = {
        name.removeprefix("experts of ").removesuffix(ending): made
        for name, made in fits.items()
        if name.endswith(ending)
    }
    base = calibrate.base(tables)
    rows, _ = calibrate.layers(tables["layer"], fits["exchange"], own, base, draws=0)
    return rows[(rows.machine == machine) & (rows.routes == "level")]


def _through(own: pd.DataFrame, column: str, even_s: float) -> float:
    """β of the line through an even layer of `even_s` seconds, by least squares."""
    x, y = own.rho.to_numpy() - 1, own[column].to_numpy() / even_s - 1
    return float(x @ y / (x @ x))


def told(table: pd.DataFrame) -> pd.Series:
    """Of `tried`: beta_missed, the cases beyond the bar with their differences, in words;
    missed_experts, the least share of such a difference that is the experts'; and how many cases
    lie within the bar under each other reading, refit_within and even_within.
    """
    far = beyond(table)
    words = [
        f"{elasticity.case(row)} ({row['beta_difference']:+.3f})" for row in far.to_dict("records")
    ]
    share = (far.arithmetic_difference / far.beta_difference).astype(float)
    within = (table[TRIED].astype(float).abs() <= elasticity.BAR).sum()
    found = dict(beta_missed="; ".join(words) or "none", missed_experts=share.min())
    return pd.Series(
        found | dict(zip(("refit_within", "even_within"), within, strict=True)), dtype=object
    )


def beyond(table: pd.DataFrame) -> pd.DataFrame:
    """The cases of `tried` beyond the declared bar, the furthest first."""
    off = table.beta_difference.astype(float).abs()
    own = table[off > elasticity.BAR]
    columns = [*CASE, "beta", "beta_predicted", "beta_difference", "arithmetic_difference", *TRIED]
    return own.loc[off[own.index].sort_values(ascending=False).index, columns]
