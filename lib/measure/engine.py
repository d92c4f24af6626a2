"""The network engine beside SimGrid, as recorded: how well they agree, and what each costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

DRAWN = "drawn routes"  # what the family "moe" of matrices is
ERRORS = ["makespan_error", "flow_error", "approximate_error"]


def agreement(judged: pd.DataFrame) -> pd.DataFrame:
    """Largest differences to SimGrid, relative, per fabric and number of devices: of makespans, of
    single flows, and of the makespans of the approximate mode; flows: the most of a matrix.

    judged: data/published/simgrid.csv, a row per matrix.
    """
    return judged.groupby(["fabric", "devices"])[["flows", *ERRORS]].max().reset_index()


def furthest(agreed: pd.DataFrame) -> pd.Series:
    """The largest differences of `agreement` over all fabrics, by name: simgrid_makespan_error and
    the like.
    """
    return agreed[ERRORS].max().add_prefix("simgrid_")


def settings(judged: pd.DataFrame, timed: pd.DataFrame) -> pd.Series:
    """How many matrices were judged (simgrid_matrices), the devices of a matrix that is timed
    (engine_devices), and those, and the device, of `fastest` (bounds_devices, bounds_device).
    """
    many = fastest(timed)
    found = dict(simgrid_matrices=len(judged), engine_devices=costs(timed).devices.max())
    found |= dict(bounds_devices=many.devices, bounds_device=many.on)
    return pd.Series(found, dtype=object)


def costs(timed: pd.DataFrame) -> pd.DataFrame:
    """Seconds for one matrix of SimGrid and of the exact engine and its approximate mode, on as
    many devices as SimGrid was given at most, per fabric and family of matrices, and how many times
    as long SimGrid takes: exact_ratio, approximate_ratio.

    timed: data/measured/engine/cost.csv, a row per engine and matrix.
    """
    most = timed[timed.engine == "SimGrid"].devices.max()
    both = timed[timed.devices == most].pivot_table(
        index=["fabric", "family"], columns="engine", values="seconds"
    )
    both = both.dropna(subset="SimGrid")[["SimGrid", "exact", "approximate"]]
    ratios = {f"{name}_ratio": both.SimGrid / both[name] for name in ("exact", "approximate")}
    both = both.assign(devices=most, **ratios).rename(index={"moe": DRAWN}, level="family")
    return both.reset_index().rename_axis(columns=None)


def scaling(drawn: pd.DataFrame) -> pd.DataFrame:
    """What drawn routes over a star cost by the number of devices: draws and flows of one (median),
    median CPU seconds of SimGrid (judge_s) and of ours (exact_s, approximate_s), and how many times
    as long SimGrid takes as the exact engine: exact_ratio, the median over draws with the least and
    the most of them as its ends.

    drawn: data/measured/engine/scaling.csv, a row per draw.
    """
    known = drawn.assign(exact_ratio=drawn.judge_s / drawn.exact_s)
    by = known.groupby("devices")
    seconds = by[["flows", "judge_s", "exact_s", "approximate_s"]].median()
    ends = by.exact_ratio.agg(["median", "min", "max"]).set_axis(
        ["exact_ratio", "exact_ratio_low", "exact_ratio_high"], axis=1
    )
    return pd.concat([by.size().rename("draws"), seconds, ends], axis=1).reset_index()


def least(scaled: pd.DataFrame, devices: int) -> pd.Series:
    """Of `scaling`, the least and the median ratio on so many devices: judge_ratio_least,
    judge_ratio, and on the most devices judge_ratio_most, with their number, judge_devices; NaN of
    what was not timed.
    """
    own = scaled[scaled.devices == devices]
    last = scaled.loc[scaled.devices.idxmax()]
    return pd.Series(
        dict(
            judge_ratio_least=own.exact_ratio_low.min(),
            judge_ratio=own.exact_ratio.min(),
            judge_ratio_most=last.exact_ratio,
            judge_devices=last.devices,
        )
    )


def fastest(timed: pd.DataFrame) -> pd.Series:
    """The row of what bounds many matrices fastest and is no CPU: on (the device), devices of a
    matrix and seconds for one; NaN where none was timed.
    """
    rows = timed[(timed.engine == "many bounds") & (timed.on != "CPU")].sort_values("seconds")
    none = pd.Series(dict(on="no device yet", devices=np.nan, seconds=np.nan))
    return rows.iloc[0] if len(rows) else none


def ratios(timed: pd.DataFrame) -> pd.Series:
    """What the costs come to, by name.

    exact_ratio, approximate_ratio: SimGrid's seconds over ours, of drawn routes over a star;
    exact_ratio_least: of any family and fabric; bound_ratio: the bound of the most devices over two
    sums over their matrix; bounds_millions: millions of matrices that `fastest` bounds in a second.
    """
    both = costs(timed)
    drawn = both[(both.fabric == "star") & (both.family == DRAWN)]
    most = timed[timed.devices == timed.devices.max()]
    sums = most.pivot_table(index="fabric", columns="engine", values="seconds")
    found = dict(
        exact_ratio=drawn.exact_ratio.mean(),
        exact_ratio_least=both.exact_ratio.min(),
        approximate_ratio=drawn.approximate_ratio.mean(),
        bound_ratio=(sums["bound"] / sums["two sums"]).max(),
        bounds_millions=1e-6 / fastest(timed).seconds,
    )
    return pd.Series(found)
