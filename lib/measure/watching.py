"""Which number tells a layer's time: what was declared, judged on the run that nobody had seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy

from lib import stats
from lib.measure import calibrate, elasticity, grid

WORDS = {
    "by_rho": "the busiest device's load over the mean",
    "by_gini": "the Gini over experts",
    "by_active": "the active experts of the busiest device",
    "by_tiles": "the rows, in whole tiles, of the busiest device",
}
PARTS = ["part", "configurations", "clusters", "error", "error_rival", "error_gain"]
PARTS += ["error_gain_low", "error_gain_high", "p", "verdict"]


def parted(tested: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """At most FEW and at least MANY_TOKENS tokens of one device apart."""
    few, many = elasticity.FEW, elasticity.MANY_TOKENS
    return dict(few=tested[tested.tokens <= few], many=tested[tested.tokens >= many])


def judged(tested: pd.DataFrame, own: str, rival: str, draws: int, seed: int = 0) -> pd.DataFrame:
    """Whether the number `own` errs less than its `rival`, a row per part (`parted`): how many
    configurations, clusters of shape and tokens, both mean errors, their difference error_gain with
    its 95 % interval (bootstrap over clusters; of fewer than 8 the jackknife, Student's t), p
    (Student's t over clusters, one-sided) and the verdict: "supported" below zero, "not supported"
    above, else "undecided".
    """
    rows = []
    for part, found in parted(tested).items():
        clusters = found["shape"].astype(str) + found.tokens.astype(str)
        gain = (found[own] - found[rival]).astype(float)
        means, of = gain.groupby(clusters).mean(), clusters.to_numpy()
        edges = stats.bootstrap_interval(gain, np.mean, of, draws=draws, seed=seed)
        if edges is None and len(means) >= elasticity.FEWEST:
            edges = stats.jackknife_interval(gain.to_numpy(), of, np.mean, least=elasticity.FEWEST)
        low, high = edges or (np.nan, np.nan)
        p = scipy.stats.ttest_1samp(means, 0, alternative="less").pvalue if len(means) > 1 else 1.0
        verdict = "supported" if high < 0 else "not supported" if low > 0 else "undecided"
        errors = found[own].mean(), found[rival].mean(), gain.mean()
        rows.append((part, len(found), len(means), *errors, low, high, p, verdict))
    return pd.DataFrame(rows, columns=PARTS)


def activated(work: pd.DataFrame) -> pd.DataFrame:
    """Held-out relative errors of straight lines in the rows alone (by_rows) and in rows and active
    experts (by_both) of expert products, fitted per shape on their declared part, few and many
    tokens apart: columns shape, rows, tokens (of one device, rows / k), active, by_rows, by_both.

    work: experts.  s of each configuration, as calibrate.computes gives them.
    """
    names = ["shape", "rows", "tokens", "active", "by_rows", "by_both"]
    found = []
    for name, every in work.groupby("shape"):
        every = every.assign(tokens=every.rows / grid.SHAPES[str(name)].k)
        for own in parted(every).values():
            known, test = own[own.part == "fit"], own[own.part == "held_out"]
            if len(known) < 4 or test.empty:
                continue
            missed = {}
            for column, numbers in dict(by_rows=["rows"], by_both=["rows", "active"]).items():
                line, *_ = np.linalg.lstsq(_with_one(known[numbers]), known.s, rcond=None)
                missed[column] = np.abs(_with_one(test[numbers]) @ line / test.s - 1)
            found.append(test.assign(**missed)[names])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=names)


def _with_one(numbers: pd.DataFrame) -> np.ndarray:
    return np.column_stack([np.ones(len(numbers)), numbers.to_numpy(float)])


def declared(
    layers: pd.DataFrame, tables: Mapping[str, pd.DataFrame], machine: str, draws: int, seed: int
) -> pd.DataFrame:
    """H4 and H6b on one machine, each by part: columns hypothesis and those of `judged`; H6b with
    many tokens is told without a verdict.
    """
    rivals = elasticity.rivals(layers[layers.machine == machine])
    found = [judged(rivals, "by_rho", "by_gini", draws, seed).assign(hypothesis="h4")]
    work = calibrate.slowest(tables["compute"]) if "compute" in tables else pd.DataFrame()
    if len(work):
        tested = activated(work[work.machine == machine])
        rows = judged(tested, "by_both", "by_rows", draws, seed).assign(hypothesis="h6b")
        rows.loc[rows.part == "many", "verdict"] = "told only"  # as declared
        found.append(rows)
    return pd.concat(found, ignore_index=True)[["hypothesis", *PARTS]]


def verdicts(parts: pd.DataFrame) -> pd.Series:
    """Of `declared` what decides: h4, of both parts (supported where both are, not supported where
    one is not), and h6b, of few tokens alone; in words, with their p, the largest of what decides.
    """
    deciding = parts[(parts.hypothesis == "h4") | (parts.part == "few")]
    found: dict[str, object] = {}
    for name in ("h4", "h6b"):
        own = deciding[deciding.hypothesis == name]
        seen = set(own.verdict)
        word = "not supported" if "not supported" in seen else "undecided"
        found[name] = "supported" if seen == {"supported"} else word if seen else "not measured"
        found[f"{name}_p"] = own.p.max()
    return pd.Series(found)


def dashboard(errors: pd.DataFrame) -> pd.Series:
    """Of elasticity.watched, in words: watch_few, watch_many and watch_all, the number whose line
    errs least, and watch, the sentence: that of all batches, and where another is better.
    """
    known = errors.set_index("when")[list(elasticity.WATCHED)].astype(float)
    if known.isna().to_numpy().any():
        return pd.Series(dict.fromkeys(["watch_few", "watch_many", "watch_all", "watch"]))
    best = known.idxmin(axis=1)
    one = best["all"]
    best[known[one] <= known.min(axis=1)] = one  # of equals the one of all batches
    told = {f"watch_{when}": WORDS[best[when]] for when in ("few", "many", "all")}
    places = dict(few="with few tokens", many="with many tokens")
    others = [
        f"{words} {WORDS[best[when]]} tells more"
        for when, words in places.items()
        if known.loc[when, one] > known.loc[when].min()
    ]
    told["watch"] = "; ".join([WORDS[one], *(others or ["no other tells more"])])
    return pd.Series(told)


def summary(parts: pd.DataFrame, latest: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """In rows of, which and value, with value_low and value_high: of `declared` error_gain of a
    hypothesis and a part (h4_few); of elasticity.watched each number's error at few, many and all
    tokens, of the run that judges and of an earlier one (many_earlier).
    """
    gains = {"error_gain": "value", "error_gain_low": "value_low", "error_gain_high": "value_high"}
    own = parts[list(gains)].rename(columns=gains)
    own = own.assign(of="error_gain", which=parts.hypothesis + "_" + parts.part)
    tables = [latest, earlier.assign(when=earlier.when + "_earlier")]
    lines = pd.concat(tables).rename(columns={"when": "which"}).melt("which", var_name="of")
    return pd.concat([own, lines], ignore_index=True)
