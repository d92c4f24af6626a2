"""The network engine beside SimGrid, as recorded: how well they agree, and what each costs."""

from __future__ import annotations

import numpy as np
import pandas as pd


def agreement(judged: pd.DataFrame) -> pd.DataFrame:
    """Largest differences to SimGrid, relative, per fabric and number of devices: of makespans, of
    single flows, and of the makespans of the approximate mode; flows: the most of a matrix.

    judged: data/published/simgrid.csv, a row per matrix.
    """
    columns = ["flows", "makespan_error", "flow_error", "approximate_error"]
    return judged.groupby(["fabric", "devices"])[columns].max().reset_index()


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
    return both.assign(devices=most, **ratios).reset_index().rename_axis(columns=None)


def rates(timed: pd.DataFrame) -> pd.Series:
    """What the costs come to.

    exact_ratio, approximate_ratio: SimGrid's seconds over ours, of drawn routes over a star;
    exact_ratio_least: of any family and fabric; bound_ratio: the bound of the most devices over two
    sums over their matrix; bounds_millions: matrices of bounds_devices devices that bounds_device,
    the fastest that is no CPU, bounds in a second, in millions.
    """
    both = costs(timed)
    drawn = both[(both.fabric == "star") & (both.family == "moe")]
    most = timed[timed.devices == timed.devices.max()]
    sums = most.pivot_table(index="fabric", columns="engine", values="seconds")
    many = timed[(timed.engine == "many bounds") & (timed.on != "CPU")].nsmallest(1, "seconds")
    return pd.Series(
        dict(
            exact_ratio=drawn.exact_ratio.mean(),
            exact_ratio_least=both.exact_ratio.min(),
            approximate_ratio=drawn.approximate_ratio.mean(),
            bound_ratio=(sums["bound"] / sums["two sums"]).max(),
            bounds_millions=1e-6 / many.seconds.mean(),
            bounds_devices=many.devices.mean(),
            bounds_device=", ".join(many.on) or "no device yet",
            engine_devices=both.devices.max() if len(both) else np.nan,
        )
    )
