"""All that the ladder says of the declared hypotheses, in one table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.commands import (
    declared,
    ladder_balance,
    ladder_placed,
    ladder_profile,
    ladder_repairs,
    ladder_results,
)
from lib.commands.ladder_results import Results, of, together, verdict

COLUMNS = ["n", "clusters", "estimate", "low", "high", "low_all", "high_all", "p", "verdict"]


def hypotheses(results: Results, draws: int = declared.LOCALITY_DRAWS) -> pd.DataFrame:
    """A row per part of H1, H2a, H2b, H3, H5 and H6a: hypothesis, part, margin, and of the mean
    over checkpoints (`ladder_results.mean`) n, clusters, estimate, low, high, low_all, high_all,
    then p and verdict.  A part of which there is no result is missing.
    """
    rows: list[dict] = []
    if of(results, "none", "profile"):
        row = ladder_profile.locality(results, draws=draws)[0]
        rows.append(_row("H1", "Φ", row, declared.LOCALITY))
    for part in ladder_results.drop_over_reroute(results)[0].to_dict("records"):
        rows.append(_row("H2a", f"{part['policy']}, γ {part['gamma']:g}", part))
    if of(results, "none", "decode"):
        rows.append(_row("H2b", "bias over rival", ladder_balance.bias_over_rival(results)[0]))
    for part in ladder_repairs.equal(results).to_dict("records"):
        part |= {"p": part["p_equivalent"], "verdict": _inside(part, declared.MARGIN)}
        rows.append(_row("H3", part["loss"], part, declared.MARGIN))
    if ladder_results.pairs(results, "none", "switch", "prefix"):
        part = ladder_results.price_difference(results)
        part["verdict"] = verdict(part["low_all"], part["high_all"])
        rows.append(_row("H5", "difference of prices", part))
    for name, part in ladder_placed.over_bias(results).items():
        rows.append(_row("H6a", ladder_placed.PARTS[name], part))
    return pd.DataFrame(rows, columns=["hypothesis", "part", "margin", *COLUMNS])


def _row(hypothesis: str, part: str, found: dict, margin: float = 0.0) -> dict:
    about = {"hypothesis": hypothesis, "part": part, "margin": margin}
    return about | {name: found[name] for name in COLUMNS}


def _inside(row: dict, margin: float) -> str:
    """Of "the mean lies within ± margin": the two one-sided tests go by the 90 % interval, whose
    ends the p-value stands for; it is excluded where the 95 % interval lies beyond the margin.
    """
    if row["p_equivalent"] <= 0.05:
        return "supported"
    beyond = row["low_all"] > margin or row["high_all"] < -margin
    return "not supported" if beyond else "undecided"


def verdicts(table: pd.DataFrame, results: Results) -> pd.DataFrame:
    """A row per hypothesis that the ladder decides: verdict, p (of several parts the largest) and
    the least n.  Of H2a the primary policy alone counts; H5 needs its transfer too.
    """
    rows = []
    primary = f"{declared.POLICIES[0]}, "
    for name, own in table.groupby("hypothesis", sort=False):
        if name == "H2a":
            own = own[own.part.str.startswith(primary)]
        parts = own.verdict.tolist()
        if name == "H5":
            parts.append(_transferred(results))
        p = float(np.max(own.p)) if own.p.notna().all() else np.nan
        rows.append({"hypothesis": name, "verdict": together(parts), "p": p, "n": own.n.min()})
    return pd.DataFrame(rows, columns=["hypothesis", "verdict", "p", "n"])


def _transferred(results: Results) -> str:
    """Of "at least so many of the other shapes show so much of the embedded pair's difference"."""
    table = ladder_results.transfer(results)
    if table.reached.sum() >= declared.TRANSFER_LEAST:
        return "supported"
    excluded = table.high_all < table.asked if "high_all" in table else table.reached & False
    possible = len(table) - excluded.sum()
    return "not supported" if possible < declared.TRANSFER_LEAST else "undecided"
