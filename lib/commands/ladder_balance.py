"""H2b from the ladder's results: a frozen bias against its best rival, both equally even."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from lib.commands import declared
from lib.commands.ladder_results import Results, mean, of, p_above, per_token, verdict
from lib.routing import comparison, profile


@cache
def target(group_tokens: int, experts: int, k: int, draws: int = declared.TARGET_DRAWS) -> float:
    """`TARGET` × the P95 of max/nominal of a perfect router in groups of so many tokens."""
    rng = np.random.default_rng(0)
    size = max(1, 50_000_000 // (group_tokens * experts))
    loads = [
        profile.even_load(group_tokens, experts, k, min(size, draws - done), rng)
        for done in range(0, draws, size)
    ]
    most = np.concatenate(loads).max(1) / (group_tokens * k / experts)
    return declared.TARGET * float(np.quantile(most, 0.95))


def matched(result: dict) -> tuple[pd.DataFrame, np.ndarray, dict]:
    """(table, difference, facts) of one checkpoint.

    table: per strategy that reaches the balance, between which settings, and its cost above the
    native choice, nats per token, on validation and on test clusters.  difference [1 + clusters]:
    the bias above its best rival on the test clusters, without one at a time (NaN where there is no
    rival).  facts: the target, the balance at which it was compared, the rival.
    """
    own = result["decode"]
    rows = pd.DataFrame(own["settings"]).rename(columns={"name": "setting"})
    nats, tokens = np.array(rows.pop("nats").tolist()), np.array(own["tokens"], float)
    chosen = np.arange(len(tokens)) % 2 == 0  # clusters stand in alphabetical order
    native = int(np.flatnonzero(rows.family == "native")[0])
    above = nats - nats[native]
    rows["delta"] = above[:, chosen].sum(1) / tokens[chosen].sum()
    k, experts = _shape(result)
    goal = target(own["group_tokens"], experts, k)
    at = max(goal, float(rows.p95[rows.family == "biased"].min()))
    reach = {}
    for family, part in rows.groupby("family", sort=False):
        if family != "native":
            curve = pd.concat([part, rows.iloc[[native]]])
            found = comparison.at_balance(curve[["setting", "p95", "delta"]], at)
            if found:
                reach[family] = found
    table = []
    number = {name: i for i, name in enumerate(rows.setting)}
    cost = {
        family: (1 - share) * above[number[one]] + share * above[number[two]]
        for family, (one, two, share) in reach.items()
    }
    for family, (one, two, _) in reach.items():
        each = (cost[family][part].sum() / tokens[part].sum() for part in (chosen, ~chosen))
        table.append((family, f"{one} and {two}", *each))
    found = pd.DataFrame(table, columns=["family", "between", "validation", "test"])
    rivals = found[found.family != "biased"]
    facts = {"target": goal, "p95": at, "rival": "", "seed": result["job"]["seed"]}
    if rivals.empty or "biased" not in cost:
        return found, np.full(1 + int((~chosen).sum()), np.nan), facts
    facts["rival"] = str(rivals.loc[rivals.validation.idxmin()].family)
    gap = (cost["biased"] - cost[facts["rival"]])[~chosen]
    return found, per_token(gap, tokens[~chosen], np.arange(len(gap))), facts


def _shape(result: dict) -> tuple[int, int]:
    """(k, experts): each group's assignments under the native choice over its tokens."""
    own = result["decode"]
    counts = np.array(next(row["counts"] for row in own["settings"] if row["family"] == "native"))
    return int(counts[0, 0].sum() // own["group_tokens"]), counts.shape[2]


def bias_over_rival(results: Results, name: str = "none") -> tuple[dict, pd.DataFrame]:
    """H2b: (the mean over checkpoints of the bias above its best rival, with p and verdict; a row
    per checkpoint).
    """
    each, rows = [], []
    for result in of(results, name, "decode"):
        _, difference, facts = matched(result)
        each.append(difference)
        rows.append(facts | {"difference": difference[0]})
    row = mean(each)
    below = {"estimate": -row["estimate"], "error": row["error"], "freedom": row["freedom"]}
    decided = verdict(-row["high_all"], -row["low_all"])
    return row | {"p": p_above(below), "verdict": decided}, pd.DataFrame(rows)
