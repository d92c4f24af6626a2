"""Losses against imbalance compared where they are equally even: no coefficient of one means the
same as that of another.

Each loss is a curve over its coefficients, nats per token against max_violation_p95; at one level
of balance, what two losses cost is compared seed by seed, since runs of one seed see the same text
in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from lib import stats
from lib.balance.finetune import Job


def runs(results: dict[Job, dict]) -> pd.DataFrame:
    """A row per finished run: loss, coefficient, seed, nats (per token, held out), the means over
    layers of what `finetune.worth` gives per layer, and tokens_per_s (median of its curve).
    """
    return pd.DataFrame(
        [
            asdict(job)
            | {"nats": result["held_out"]["nats_per_token"]}
            | {
                name: float(np.mean(per_layer))
                for name, per_layer in result["held_out"]["layers"].items()
            }
            | {
                "tokens_per_s": float(
                    np.median([row["tokens_per_s"] for row in result["curve"]] or [np.nan])
                )
            }
            for job, result in results.items()
        ]
    )


def averaged(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Per group of `by`: seeds (rows), and of each of `columns` the mean with its 95 % interval,
    <column>_low and <column>_high, which both are the mean where there is one row.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False, observed=True):
        row = dict(zip(by, key, strict=True)) | {"seeds": len(part)}
        for name in columns:
            low, high = (
                stats.mean_interval(part[name]) if len(part) > 1 else (part[name].mean(),) * 2
            )
            row |= {name: part[name].mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def complete(table: pd.DataFrame, jobs: Iterable[Job]) -> list[int]:
    """The seeds of which every one of `jobs` is in `table`."""
    done = set(zip(table.loss, table.coefficient, table.seed, strict=True))
    lacking = {job.seed for job in jobs if (job.loss, job.coefficient, job.seed) not in done}
    return sorted({job.seed for job in jobs} - lacking)


def compared(
    table: pd.DataFrame, seeds: Sequence[int], margin: float, equal: Sequence[str]
) -> tuple[float, pd.DataFrame]:
    """(target, rows of loss, seeds, difference, low, high, p_equivalent): nats per token above
    Switch at matched balance.

    A loss's curve runs on straight lines through its coefficients of one seed, from the run without
    a loss.  target: the lowest max_violation_p95 that Switch and the losses `equal` all reach in
    each of `seeds`.  A seed whose curve does not reach it is missing, never extrapolated.  low,
    high: 95 % interval over paired seeds; p_equivalent: of two one-sided tests within ± margin
    (`stats.equivalence_p`); both NaN below two seeds.
    """
    own = table[table.seed.isin(seeds)]
    losses = [loss for loss in dict.fromkeys(own.loss) if loss not in ("start", "none")]
    curves = {
        (loss, seed): own[(own.seed == seed) & own.loss.isin([loss, "none"])]
        for loss in losses
        for seed in seeds
    }
    reached = [
        curve.max_violation_p95.min()
        for (loss, _), curve in curves.items()
        if loss in ("switch", *equal)
    ]
    target = max(reached, default=np.nan)
    nats = {
        key: stats.crossing(curve.max_violation_p95, curve.nats, target)
        for key, curve in curves.items()
    }
    rows = []
    for loss in (loss for loss in losses if loss != "switch"):
        gaps = np.array([nats[loss, seed] - nats["switch", seed] for seed in seeds])
        gaps = gaps[np.isfinite(gaps)]
        low, high = stats.mean_interval(gaps) if len(gaps) > 1 else (np.nan, np.nan)
        tost = stats.equivalence_p(gaps, margin) if len(gaps) > 1 else np.nan
        rows.append((loss, len(gaps), gaps.mean() if len(gaps) else np.nan, low, high, tost))
    return target, pd.DataFrame(
        rows, columns=["loss", "seeds", "difference", "low", "high", "p_equivalent"]
    )
