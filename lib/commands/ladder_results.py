"""What the ladder's results say: estimates per checkpoint, their mean, and its two intervals.

`ladder_queue.read` gives the results.  Here is what hypotheses share, and those on the prefix
protocol (H2a, H5); `ladder_balance` has H2b, `ladder_profile` what counts tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from lib import stats
from lib.commands import declared

Results = Mapping[str, dict]
SERVED = {"gain": ("gain", "profile")}  # which measures tell it; else its own


def of(results: Results, name: str, measure: str) -> list[dict]:
    """The results of one configuration that hold `measure`, or one that tells it, by seed."""
    served = SERVED.get(measure, (measure,))
    own = [
        r for r in results.values() if r["job"]["name"] == name and not r.keys().isdisjoint(served)
    ]
    return sorted(own, key=lambda result: result["job"]["seed"])


def pairs(results: Results, without: str, loss: str, measure: str) -> list[tuple[dict, dict]]:
    """Results of two configurations that have the seed in common, and hold `measure`."""
    other = {r["job"]["seed"]: r for r in of(results, loss, measure)}
    own = of(results, without, measure)
    return [(r, other[r["job"]["seed"]]) for r in own if r["job"]["seed"] in other]


def left_out(clusters: ArrayLike, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    """[1 + clusters] statistic(rows): of all rows, then without one cluster (in order of name) at a
    time; rows is a mask.
    """
    names = np.asarray(clusters)
    masks = [np.ones(len(names), bool), *(names != name for name in np.unique(names))]
    return np.array([statistic(mask) for mask in masks])


def per_token(nats: np.ndarray, tokens: np.ndarray, clusters: ArrayLike) -> np.ndarray:
    """[1 + clusters] nats per token, of all rows and without one cluster at a time."""
    known = np.broadcast_to(tokens, np.shape(nats))
    return left_out(clusters, lambda rows: nats[rows].sum() / known[rows].sum())


def mean(estimates: Sequence[np.ndarray], least: int = declared.LEAST) -> dict[str, float]:
    """The mean over checkpoints of estimates, each [1 + clusters] as `left_out` gives them.

    n, clusters; estimate; low, high: 95 % interval over checkpoints (stats.mean_interval; NaN below
    two); low_all, high_all: over checkpoints and clusters, SE² = s²/n + jackknife variance of the
    mean, Student's t of min(n, clusters) − 1; over clusters alone below `least` checkpoints, NaN
    where there are fewer than 8 clusters too.  error, freedom: that SE and its degrees of freedom.
    Refused: no checkpoint.
    """
    table = np.stack(estimates) if len(estimates) else np.empty((0, 1))
    n, m = len(table), table.shape[1] - 1
    if not n:
        raise ValueError("ladder: 0 checkpoints: must be at least 1")
    jackknife = table[:, 1:].mean(0)
    squared = (m - 1) / m * ((jackknife - jackknife.mean()) ** 2).sum() if m else np.nan
    freedom = m - 1
    if n >= least:
        squared, freedom = squared + table[:, 0].var(ddof=1) / n, min(n, m) - 1
    error = float(np.sqrt(squared)) if m >= stats.CLUSTERS else np.nan
    half = scipy.stats.t.ppf(0.975, max(freedom, 1)) * error
    low, high = stats.mean_interval(table[:, 0]) if n > 1 else (np.nan, np.nan)
    estimate = float(table[:, 0].mean())
    return {
        "n": n,
        "clusters": m,
        "estimate": estimate,
        "low": low,
        "high": high,
        "low_all": float(estimate - half),
        "high_all": float(estimate + half),
        "error": error,
        "freedom": max(freedom, 1),
    }


def p_above(row: Mapping[str, float], margin: float = 0.0) -> float:
    """One-sided p-value of the mean being at most `margin`."""
    return float(scipy.stats.t.sf((row["estimate"] - margin) / row["error"], row["freedom"]))


def p_equivalent(row: Mapping[str, float], margin: float) -> float:
    """p-value of two one-sided tests that the mean lies within ± `margin`."""
    return float(scipy.stats.t.sf((margin - abs(row["estimate"])) / row["error"], row["freedom"]))


def verdict(low: float, high: float, margin: float = 0.0) -> str:
    """Of "the mean lies above the margin", by its interval."""
    if low > margin:
        return "supported"
    return "not supported" if high < margin else "undecided"


def together(verdicts: Sequence[str]) -> str:
    """Of a hypothesis with several parts."""
    if all(part == "supported" for part in verdicts) and verdicts:
        return "supported"
    return "not supported" if "not supported" in verdicts else "undecided"


def setting(result: dict, measure: str, **about) -> dict:
    """The one setting of result[measure] with these fields, e.g. family="drop", gamma=1.25."""
    found = [
        row
        for row in result[measure]["settings"]
        if all(row.get(name) == value for name, value in about.items())
    ]
    if len(found) != 1:
        raise ValueError(f"ladder: {len(found)} settings with {about}: must be one")
    return found[0]


def _cost(result: dict, one: dict, other: dict) -> np.ndarray:
    """[1 + clusters] nats per token of one setting over another, prefix protocol."""
    own = result["prefix"]
    gap = np.array(one["nats"]) - np.array(other["nats"])
    return per_token(gap, np.asarray(float(own["tokens"])), own["cluster"])


def drop_over_reroute(results: Results, name: str = "none") -> tuple[pd.DataFrame, pd.DataFrame]:
    """H2a, what dropping costs above re-routing: (a row per policy of weights and γ, `mean` with p
    and the verdict of that part; a row per checkpoint too, with its own difference).
    """
    rows, each = [], []
    known = of(results, name, "prefix")
    for one in known[0]["prefix"]["settings"] if known else []:
        if one["family"] != "drop":
            continue
        key = dict(policy=one["policy"], gamma=one["gamma"])
        found = [
            _cost(
                r,
                setting(r, "prefix", family="drop", **key),
                setting(r, "prefix", family="reroute", **key),
            )
            for r in known
        ]
        row = key | mean(found)
        row |= {"p": p_above(row), "verdict": verdict(row["low_all"], row["high_all"])}
        rows.append(row)
        each += [
            key | {"seed": r["job"]["seed"], "difference": gap[0]}
            for r, gap in zip(known, found, strict=True)
        ]
    return pd.DataFrame(rows), pd.DataFrame(each)


def price(result: dict, gamma: float = declared.PRICE_GAMMA) -> np.ndarray:
    """[1 + clusters] what re-routing at γ costs one model above its own choice, nats per token,
    under the primary policy.
    """
    native = setting(result, "prefix", family="native")
    key = dict(family="reroute", gamma=gamma, policy=declared.POLICIES[0])
    return _cost(result, setting(result, "prefix", **key), native)


def prices(results: Results, without: str = "none", loss: str = "switch") -> pd.DataFrame:
    """H5: a row per pair: the prices of both models, their difference with its interval over
    clusters, and both native losses (nats per token).
    """
    rows = []
    for one, two in pairs(results, without, loss, "prefix"):
        row = mean([price(one) - price(two)])
        rows.append(
            {
                "seed": one["job"]["seed"],
                "without": price(one)[0],
                "with": price(two)[0],
                "difference": row["estimate"],
                "low_all": row["low_all"],
                "high_all": row["high_all"],
                "nats_without": _native(one),
                "nats_with": _native(two),
            }
        )
    return pd.DataFrame(rows)


def _native(result: dict) -> float:
    nats = setting(result, "prefix", family="native")["nats"]
    return float(np.mean(nats) / result["prefix"]["tokens"])


def price_difference(results: Results, without: str = "none", loss: str = "switch") -> dict:
    """H5: the mean of that difference over pairs (`mean`), and its p."""
    row = mean([price(one) - price(two) for one, two in pairs(results, without, loss, "prefix")])
    return row | {"p": p_above(row)}


def transfer(results: Results) -> pd.DataFrame:
    """H5: per other router shape the difference of prices, beside the share that the declaration
    asks of the embedded pair's.
    """
    embedded = {
        r["job"]["start"]: price(r)[0]
        for name in ("embedded-without", "embedded-with")
        for r in of(results, name, "prefix")
    }
    asked = declared.TRANSFER_SHARE * (
        embedded.get("without", np.nan) - embedded.get("with", np.nan)
    )
    rows = []
    for experts, k in declared.TRANSFER_SHAPES:
        name = f"shape-{experts}-{k}"
        known = pairs(results, f"{name}-none", f"{name}-switch", "prefix")
        row = mean([price(one) - price(two) for one, two in known]) if known else {"n": 0}
        found = row.get("estimate", np.nan)
        rows.append(
            {"experts": experts, "k": k, "asked": asked} | row | {"reached": bool(found >= asked)}
        )
    return pd.DataFrame(rows)


def held_out(results: Results, one: str, other: str) -> dict:
    """Nats per token of configuration `one` above `other` on the same held-out documents, over
    pairs of one seed (`mean`).
    """
    return mean([gain(*pair) for pair in pairs(results, one, other, "gain")])


def gain(one: dict, other: dict) -> np.ndarray:
    """[1 + clusters] nats per token of one model above another on the same held-out documents."""
    own, rival = compared(one), compared(other)
    gap = np.array(own["nats"]) - np.array(rival["nats"])
    return per_token(gap, np.array(own["tokens"]), own["cluster"])


def compared(result: dict) -> dict:
    """The measure by which a model is compared with another."""
    return next(result[name] for name in SERVED["gain"] if name in result)
