"""What repairs cost by what is trained, and what a loss from the start gains by size, as tables of
the synthesis.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy

from lib import stats
from lib.commands import declared, ladder_repairs, ladder_results
from lib.commands.ladder_results import Results

REFERENCE = ("all", "switch", 0.1)  # the repair beside whose balance others are told
LAST = ["max_violation", "memory_gb", "checkpoints"]
FRESH = "4m", "113m"
SIZES = {"4m": "size-4m-", "8m": "", "113m": "size-113m-", "715m": "size-715m-"}
BETWEEN = [
    *("part", "smaller_m", "larger_m", "smaller_pairs", "larger_pairs", "gain_least", "gain_most"),
    *("more", "more_low", "more_high", "p"),
]
ENDS = ("low_all", "high_all")
SHOWN = ["trained", "coefficient", "faster", "max_violation", "price"]


def cheaper(results: Results) -> pd.DataFrame:
    """Repairs by what is trained ("all", "routers", "bias"): coefficient, faster (learning rate
    over that of the fine-tuning chapter), max_violation and price of re-routing afterwards,
    above_start and above_none with intervals (nats per token), memory_gb beyond the model,
    checkpoints.
    """
    table = ladder_repairs.cheap(results)
    if table.empty:
        return pd.DataFrame(columns=[*SHOWN, "above_start", "memory_gb", "checkpoints"])
    ends = [f"above_{base}{end}" for base in ("start", "none") for end in ("", "_low", "_high")]
    known = table[table.loss != "none"].rename(columns={"rate": "faster"})
    return known[[*SHOWN, *ends, "memory_gb", "checkpoints"]].reset_index(drop=True)


def matched(table: pd.DataFrame) -> pd.DataFrame:
    """Of `cheaper`, for each thing that is trained the repair whose max_violation is nearest to
    that of `REFERENCE`.
    """
    own = table[(table.trained == REFERENCE[0]) & (table.coefficient == REFERENCE[2])]
    if own.empty:
        return table
    apart = (table.max_violation - own.max_violation.iloc[0]).abs()
    nearest = apart.groupby(table.trained, sort=False).idxmin()
    return table.loc[nearest].reset_index(drop=True)


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Of `cheaper`, what sentences tell: trained, above_start with its interval, max_violation,
    memory_gb and checkpoints.
    """
    ends = [f"above_start{end}" for end in ("", "_low", "_high")]
    return table[[*(name for name in ("trained", *ends) if name in table), *LAST]]


def sizes(results: Results) -> pd.DataFrame:
    """What the Switch loss from the start gains by size: parameters_m, gain with its interval (over
    clusters of documents where there are few pairs), Gini without and with it, checkpoints.
    """
    names = sorted({job["name"].rpartition("-")[0] for job in _jobs(results)} - {""})
    found = []
    for without, loss in [("none", "switch"), *((f"{n}-none", f"{n}-switch") for n in names)]:
        pairs = ladder_results.pairs(results, without, loss, "gain")
        if pairs:
            row = ladder_results.held_out(results, without, loss)
            found.append(
                {
                    "parameters_m": pairs[0][0]["parameters"] / 1e6,
                    "gain": row["estimate"],
                    "gain_low": row["low_all"],
                    "gain_high": row["high_all"],
                    "gini_before": _gini(pairs, 0),
                    "gini_after": _gini(pairs, 1),
                    "checkpoints": int(row["n"]),
                }
            )
    columns = ["parameters_m", "gain", "gini_before", "gini_after", "checkpoints"]
    table = pd.DataFrame(found, columns=None if found else columns)
    return table.sort_values("parameters_m", ignore_index=True)


def between(results: Results) -> pd.DataFrame:
    """By how much pairs of one size gain more from a loss from the start than those of the next
    larger one: part (the larger one's name), both sizes in million parameters and their pairs, what
    the larger ones gain at least and at most, more with its 95 % interval by Welch's t over pairs,
    p of the one-sided test that it is not above 0.  A part of fewer than two pairs of a size is
    missing.  The last, "fresh": of `FRESH` sizes, of the seeds that were declared for it alone.
    """
    rows: list[dict] = []
    steps = [(before, part, part) for before, part in pairwise(SIZES)]
    for before, after, part in [*steps, (*FRESH, "fresh")]:
        own = declared.SEEDS[declared.SIZE_SEEDS :] if part == "fresh" else ()
        smaller, larger = (_gains(results, SIZES[name], own) for name in (before, after))
        if min(len(smaller), len(larger)) < 2:
            continue
        test = scipy.stats.ttest_ind(smaller.gain, larger.gain, equal_var=False)
        one = scipy.stats.ttest_ind(
            smaller.gain, larger.gain, equal_var=False, alternative="greater"
        )
        ends = test.confidence_interval()
        about = dict(smaller_m=smaller.parameters_m[0], larger_m=larger.parameters_m[0])
        about |= dict(smaller_pairs=len(smaller), larger_pairs=len(larger))
        about |= dict(gain_least=larger.gain.min(), gain_most=larger.gain.max())
        more = dict(more=smaller.gain.mean() - larger.gain.mean(), p=one.pvalue)
        more |= dict(more_low=ends.low, more_high=ends.high)
        rows.append({"part": part} | about | more)
    return pd.DataFrame(rows, columns=BETWEEN)


def readable(between: pd.DataFrame) -> pd.DataFrame:
    """The same for readers: sizes stand for the parts, beside which pairs they were taken of."""
    which = np.where(between.part == "fresh", "fresh alone", "all")
    return between.drop(columns="part").assign(pairs=which)


def _gains(results: Results, size: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """Of each pair of a size, or of those of `seeds`, what a Switch loss from the start gains: gain
    (nats per token), parameters_m.
    """
    found = ladder_results.pairs(results, f"{size}none", f"{size}switch", "gain")
    found = [pair for pair in found if not seeds or pair[0]["job"]["seed"] in seeds]
    rows = [(ladder_results.gain(*pair)[0], pair[0]["parameters"] / 1e6) for pair in found]
    return pd.DataFrame(rows, columns=["gain", "parameters_m"])


def every(results: Results) -> pd.DataFrame:
    """Every pair of every size: parameters_m, gain (nats per token)."""
    return pd.concat([_gains(results, size) for size in SIZES.values()], ignore_index=True)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Of `sizes` the smallest and the largest model: end ("smallest", "largest")."""
    return table.iloc[[0, -1]].assign(end=["smallest", "largest"])


def price_without(results: Results) -> pd.DataFrame:
    """One row: what balancing at inference costs models without a balance loss, price with its
    interval over checkpoints and clusters (nats per token at the declared capacity factor).
    """
    own = [ladder_results.price(one) for one in ladder_results.of(results, "none", "prefix")]
    found = ladder_results.mean(own) if own else dict.fromkeys(("estimate", *ENDS), np.nan)
    ends = dict(price_low=found["low_all"], price_high=found["high_all"])
    return pd.DataFrame([{"price": found["estimate"]} | ends])


def _jobs(results: Results) -> list[dict]:
    """The jobs of sizes."""
    jobs = [result["job"] for result in results.values()]
    return [job for job in jobs if job["name"].startswith("size-")]


def _gini(pairs: list, which: int) -> float:
    """Mean Gini over layers and pairs, of the model without (0) or with (1) the loss."""
    found = [ladder_results.compared(pair[which]) for pair in pairs]
    loads = [own["load"] if "load" in own else np.sum(own["counts"], axis=0) for own in found]
    return float(np.mean([stats.gini(np.array(load)).mean() for load in loads]))
