"""Tables of finished fine-tuning runs: a row per run, or means over seeds with their intervals.

What diverged is in none of them.  "Middle" is each loss's middle coefficient, of four the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from lib import stats
from lib.balance import worth
from lib.balance.study import Job, Study
from lib.model import load, texts

WORDS = {"switch": "Switch", "gini": "Gini"}  # of losses that are called by a name
ENDS = ("", "_low", "_high")  # of a column with its interval


def evaluated(results: Mapping[Job, dict]) -> dict[Job, dict]:
    """The results of runs that did not diverge."""
    return {job: result for job, result in results.items() if not result["diverged"]}


def table(results: Mapping[Job, dict]) -> pd.DataFrame:
    """A row per run: loss, coefficient, seed, nats (per token, held out), the means over layers of
    what `worth.of` gives per layer (max_violation: its 95th percentile over batches), drawn, the
    standard deviation of max_violation over draws of the serving batches (NaN where a run's record
    holds one draw only), and tokens_per_s (median of its curve, NaN of the start).
    """
    rows = []
    for job, result in evaluated(results).items():
        layers = result["held_out"]["layers"]
        speeds = [row["tokens_per_s"] for row in result["curve"]] or [np.nan]
        rows.append(
            dict(loss=job.loss, coefficient=job.coefficient, seed=job.seed)
            | {"nats": result["held_out"]["nats_per_token"]}
            | {name: float(np.mean(values)) for name, values in layers.items()}
            | {"drawn": _deviation(result["held_out"].get("draws", []))}
            | {"tokens_per_s": float(np.median(speeds))}
        )
    return pd.DataFrame(rows).rename(columns={"max_violation_p95": "max_violation"})


def _deviation(draws: Sequence[float]) -> float:
    return float(np.std(draws, ddof=1)) if len(draws) > 1 else np.nan


def with_draws(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """`averaged` rows whose intervals of max_violation also cover the draw of serving batches,
    where the runs `rows` tell it: it is the same in all runs, so that seeds do not average it out.
    """
    drawn = rows.groupby(["loss", "coefficient"], sort=False).drawn.mean().to_numpy()
    half = (found.max_violation_high - found.max_violation_low) / 2
    wide = np.hypot(half, scipy.stats.t.ppf(0.975, worth.AGAIN) * np.nan_to_num(drawn))
    middle = found.max_violation
    return found.assign(max_violation_low=middle - wide, max_violation_high=middle + wide)


def complete(table: pd.DataFrame, jobs: Iterable[Job]) -> list[int]:
    """The seeds of which every one of `jobs`, but the checkpoint itself, is in `table`."""
    done = set(zip(table.loss, table.coefficient, table.seed, strict=True))
    asked = [job for job in jobs if job.loss != "start"]
    lacking = {job.seed for job in asked if (job.loss, job.coefficient, job.seed) not in done}
    return sorted({job.seed for job in asked} - lacking)


def of(rows: pd.DataFrame, *losses: str) -> pd.DataFrame:
    """The rows of these losses of a table with one row per loss, in this order; a loss that is not
    there is a row of NaN.
    """
    return rows.set_index("loss").reindex(list(losses)).reset_index()


def without(rows: pd.DataFrame, loss: str) -> pd.DataFrame:
    """The rows of a table but those of this loss."""
    return rows[rows.loss != loss]


def told(*tables: pd.DataFrame, tag: str = "", **asked: Sequence[str]) -> pd.DataFrame:
    """Numbers that are told, a row each: thing, loss, tag, value with value_low and value_high.

    asked: per column (thing) the losses whose number is told, from the first of the tables, which
    have one row per loss, that has the column.  What is not there is NaN.  Refused: a column that
    none has.
    """
    found = []
    for thing, names in asked.items():
        known = next((table for table in tables if thing in table), None)
        if known is None:
            raise ValueError(f"runs.told: {thing}: must be a column of a table")
        rows = known.set_index("loss").to_dict("index")
        for loss in names:
            own = rows.get(loss, {})
            ends = {f"value{end}": own.get(thing + end, np.nan) for end in ENDS}
            found.append(dict(thing=thing, loss=loss, tag=tag) | ends)
    return pd.DataFrame(found)


def named(row: Mapping | pd.Series, *things: str, tag: str = "") -> pd.DataFrame:
    """These numbers of a row, or all, as `told` has them: of no loss."""
    known = {str(name): value for name, value in row.items()}
    names = things or [name for name in known if not name.endswith(ENDS[1:])]
    found = []
    for thing in names:
        ends = {f"value{end}": known.get(thing + end, np.nan) for end in ENDS}
        found.append(dict(thing=thing, loss="", tag=tag) | ends)
    return pd.DataFrame(found)


def mean(samples: ArrayLike, name: str) -> dict[str, float]:
    """{name: mean of samples [n], <name>_low and <name>_high: its 95 % interval}; no interval below
    two samples, and no mean of none.
    """
    known = np.asarray(samples, dtype=float)
    low, high = stats.mean_interval(known) if len(known) > 1 else (np.nan, np.nan)
    middle = float(known.mean()) if len(known) else np.nan
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def averaged(rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Per group of `by`, in the order of appearance: seeds (rows), and `mean` of each of
    `columns`.
    """
    found: list[dict] = []
    if rows.empty:
        ends = [name + end for name in columns for end in ENDS]
        return pd.DataFrame(columns=[*by, "seeds", *ends])
    for key, part in rows.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True)) | {"seeds": len(part)}
        for name in columns:
            row |= mean(part[name], name)
        found.append(row)
    return pd.DataFrame(found)


def middle(coefficients: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Per loss its middle coefficient, of four the second; 0 for the start."""
    half = {loss: sorted(values)[(len(values) - 1) // 2] for loss, values in coefficients.items()}
    return half | {"start": 0.0}


def at_middle(study: Study, results: Mapping[Job, dict]) -> list[tuple[Job, dict]]:
    """The runs at middle coefficients, losses in the order of the study."""
    at = middle(study.coefficients)
    order = ["start", *study.coefficients]
    own = [pair for pair in evaluated(results).items() if pair[0].coefficient == at[pair[0].loss]]
    return sorted(own, key=lambda pair: order.index(pair[0].loss))


def by_loss(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss at its middle coefficient: loss, coefficient, seeds, of gini, max_violation, nats,
    router_entropy (nats) and specialisation (bits) the mean with its interval, and rate (median,
    thousand tokens per second).
    """
    rows = table(dict(at_middle(study, results)))
    names = ["gini", "max_violation", "nats", "router_entropy", "specialisation"]
    found = with_draws(averaged(rows, ["loss", "coefficient"], names), rows)
    return found.assign(rate=found.loss.map(rows.groupby("loss").tokens_per_s.median() / 1e3))


def by_coefficient(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss and coefficient: seeds, and of max_violation, nats, gini and tokens_per_s the mean
    with its interval.
    """
    rows = table(results)
    order = {loss: place for place, loss in enumerate(["start", *study.coefficients])}
    rows = rows.assign(place=rows.loss.map(order)).sort_values(["place", "coefficient"])
    names = ["max_violation", "nats", "gini", "tokens_per_s"]
    return with_draws(averaged(rows, ["loss", "coefficient"], names), rows)


def curves(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss at its middle coefficient, step and layer (from 1): gini of the training load since
    the step before, mean over seeds with its interval.
    """
    rows = [
        dict(loss=job.loss, step=row["step"], layer=layer + 1, gini=row[f"gini_{layer}"])
        for job, result in at_middle(study, results)
        for row in result["curve"]
        for layer in range(len(result["held_out"]["load"]))
    ]
    return averaged(pd.DataFrame(rows), ["loss", "step", "layer"], ["gini"])


def balancing(*names: str) -> list[tuple[str, str, str]]:
    """The claims that training with these losses evens out the load: name, text, predicate."""
    return [
        (
            f"balances_{name}",
            f"Training with the {WORDS.get(name, name)} loss ends more even than without a loss.",
            f"gini_{name} < gini_none",
        )
        for name in names
    ]


def ends(table_of_curves: pd.DataFrame) -> pd.DataFrame:
    """Per loss: loss, train_gini, the mean over layers at the last step of `curves`."""
    last = table_of_curves[table_of_curves.step == table_of_curves.step.max()]
    return last.groupby("loss", sort=False).gini.mean().rename("train_gini").reset_index()


def layers(study: Study, results: Mapping[Job, dict]) -> pd.DataFrame:
    """Per loss at its middle coefficient and layer (from 1): gini of the held-out load, mean over
    seeds with its interval.
    """
    rows = [
        dict(loss=job.loss, layer=layer + 1, gini=gini)
        for job, result in at_middle(study, results)
        for layer, gini in enumerate(result["held_out"]["layers"]["gini"])
    ]
    return averaged(pd.DataFrame(rows), ["loss", "layer"], ["gini"])


def checked(results: Mapping[Job, dict], jobs: Sequence[Job]) -> Mapping[Job, dict]:
    """The results as they are.  Refused: those without the start, and runs that were not all
    evaluated on the same documents.
    """
    found = evaluated(results)
    if jobs[0] not in found:
        raise ValueError("runs: the start was not evaluated: time_budget_s must allow one run")
    if len({one["held_out"]["documents"]["names_sha256"] for one in found.values()}) > 1:
        raise ValueError("runs: held-out documents differ: must be the same ones in all runs")
    return results


def counted(results: Mapping[Job, dict], jobs: Sequence[Job]) -> pd.Series:
    """How much was done on a text: runs finished, runs_diverged, complete seeds, documents held
    out, million tokens of the text (unique_tokens_m).
    """
    known = evaluated(results)
    start = known[jobs[0]]["held_out"]
    row = dict(
        runs=len(known) - 1,
        runs_diverged=len(results) - len(known),
        seeds=len(complete(table(known), jobs)),
        documents=start["documents"]["count"],
        unique_tokens_m=start["training_tokens"] / 1e6,
    )
    return pd.Series(row, dtype=object)


def settings(
    study: Study, jobs: Sequence[Job], results: Mapping[Job, dict], **others: object
) -> pd.Series:
    """Under what the runs of a text stand: runs_asked, million tokens of a run (tokens_m), thousand
    tokens of a batch (batch_kilotokens), what was trained, on what (training_device), on which
    text, and whether the model knew it (seen), in words; the model in words, `load.own`, and the
    `others`.
    """
    known = evaluated(results).items()
    devices = {one["provenance"]["device"] for job, one in known if job.loss != "start"}
    book = study.text == texts.HELD_OUT
    row = dict(
        model=load.described("without" if study.model == "embedded" else study.model),
        own=load.own(study.model),
        runs_asked=len(jobs) - 1,
        tokens_m=study.tokens / 1e6,
        batch_kilotokens=study.batch / 1e3,
        trained="all of the model" if study.trained == "all" else "its routers' weights alone",
        text=f"one in {study.strides[0]} documents of this book's training text"
        if book
        else "the training part of the text given",
        seen="was seen before in pre-training"
        if book and study.model == "embedded"
        else "may have been seen before in pre-training",
        training_device=" and ".join(sorted(devices)) or "none",
    )
    return pd.Series(row | others, dtype=object)
