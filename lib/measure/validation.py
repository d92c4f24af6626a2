"""How far predictions err: of configurations that took no part in a fit, by experiment and machine.

Predictions are those of calibrate.everything; `tests` are their rows of part "held_out".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from lib import stats
from lib.measure import calibrate, grid

SCATTER = ("p10", "p90", "p99")  # quantiles of repetitions


def jitter(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Scatter of the slowest rank, median over configurations, per machine and experiment: the
    quantiles <p>_over_p50 of repetitions over their median, and between_visits, the distance
    between the medians of visits over the median.
    """
    names = [f"{name}_over_p50" for name in SCATTER]
    found = [pd.DataFrame(columns=["machine", "experiment", *names, "between_visits"])]
    for experiment, table in tables.items():
        rows = calibrate.slowest(table)
        scatter = {f"{name}_over_p50": rows[f"{name}_us"] / rows.p50_us for name in SCATTER}
        own = rows.assign(experiment=experiment, **scatter).groupby(["machine", "experiment"])
        found.append(own[[*names, "between_visits"]].median().reset_index())
    return pd.concat(found[1:] or found).sort_values(["machine", "experiment"], ignore_index=True)


def launches(table: pd.DataFrame) -> pd.DataFrame:
    """Even exchanges by how they were launched (grid.LAUNCHES), a row per machine and size of those
    that were measured in every way: columns queued_us, graph_us and call_us, medians of the slowest
    rank.
    """
    rows = calibrate.slowest(table)
    rows = rows[(rows["skew"] == "even") & (rows.call == "split") & (rows.aligned == 1)]
    wide = rows.pivot_table(index=["machine", "size_bytes"], columns="launch", values="p50_us")
    wide = wide.reindex(columns=list(grid.LAUNCHES)).dropna()
    return wide.add_suffix("_us").rename_axis(columns=None).reset_index()


def launched(table: pd.DataFrame) -> pd.Series:
    """Of `launches`, the smallest exchange: graph_us, call_us and launch_kib; and same_mib, from
    which size on a call takes at most a tenth longer than a graph; NaN where none was measured.
    """
    lacks = pd.Series(np.nan, index=["graph_us", "call_us", "launch_kib", "same_mib"])
    if table.empty:
        return lacks
    least = table.loc[table.size_bytes.idxmin()]
    apart = table[table.call_us > 1.1 * table.graph_us].size_bytes.max()
    same = table.size_bytes[table.size_bytes > (apart if apart == apart else 0)].min() / 2**20
    found = dict(graph_us=least.graph_us, call_us=least.call_us)
    return pd.Series(found | dict(launch_kib=least.size_bytes / 1024, same_mib=same))


def errors(tests: pd.DataFrame, draws: int = 2000) -> pd.DataFrame:
    """Median and 95th percentile of the errors of each experiment: columns name
    ("exchange_large_p95" of a large exchange), value, and value_low and value_high, the 95 %
    interval (bootstrap over `group`, what errs together; NaN below 8 groups).
    """
    rows = []
    for experiment, own in tests.groupby("experiment", sort=False):
        for of, q in (("median", 0.5), ("p95", 0.95)):
            statistic, groups = partial(np.quantile, q=q), own.group.astype(str)
            edges = stats.bootstrap_interval(own.error, statistic, groups, draws=draws)
            name = "_".join([*reversed(str(experiment).split()), of])
            rows.append((name, own.error.astype(float).quantile(q), *(edges or (np.nan, np.nan))))
    return pd.DataFrame(rows, columns=["name", "value", "value_low", "value_high"])


def machines(tests: pd.DataFrame) -> pd.DataFrame:
    """Errors per machine and experiment: how many configurations, and the median, 95th percentile
    and most of their errors.
    """
    of = tests.groupby(["machine", "experiment"]).error
    found = dict(
        configurations=of.count(),
        error_median=of.median(),
        error_p95=of.quantile(0.95),
        error_most=of.max(),
    )
    return pd.DataFrame(found).reset_index()


def worst(tests: pd.DataFrame, each: int) -> pd.DataFrame:
    """The `each` worst predictions of every experiment, the worst first."""
    rows = tests.sort_values("error", ascending=False).groupby("experiment").head(each)
    names = ["experiment", "machine", "case", "measured_us", "predicted_us", "error"]
    return rows[names].sort_values("experiment", kind="stable", ignore_index=True)


def extremes(tests: pd.DataFrame) -> pd.DataFrame:
    """The worst prediction of large exchanges, experts and layers in words: columns name and value,
    "what it is: measured µs, predicted µs"; NaN where nothing is predicted.
    """
    rows = worst(tests[tests.experiment != "small exchange"], 1)
    told = [
        f"{r.case}: {r.measured_us:.0f} µs, predicted {r.predicted_us:.0f}"
        for r in rows.itertuples()
    ]
    names = "worst_" + rows.experiment.str.split().str[-1]
    return pd.DataFrame(dict(name=names, value=pd.Series(told).where(rows.error.notna())))


def largest_fitted(predictions: pd.DataFrame) -> float:
    """Size in MiB of the largest exchange that a fit saw; NaN where none did."""
    seen = predictions[(predictions.experiment == "large exchange") & (predictions.part == "fit")]
    return seen.group.astype(float).max() / 2**20


def starting(tests: pd.DataFrame, untiled: pd.DataFrame) -> pd.DataFrame:
    """Errors of the starting forms, by name: of large exchanges whose copy adds up, and of layers
    without tiles, the held-out ones of predictions from calibrate.untiled tables.
    """
    own = tests[tests.experiment == "large exchange"]
    summed = (own.summed_us / own.measured_us - 1).abs()
    layer = untiled[untiled.experiment == "layer"].error.astype(float)
    rows = [
        ("exchange_large_summed", summed.median()),
        ("layer_untiled", layer.median()),
        ("layer_untiled_p95", layer.quantile(0.95)),
    ]
    return pd.DataFrame(rows, columns=["name", "value"])


def others(tests: pd.DataFrame, base: str) -> str:
    """The machines that were predicted from `base` alone, as words."""
    own = tests[(tests.machine != base) & (tests.experiment != "experts")]
    return ", ".join(sorted(set(own.machine))) or "none yet"


def later(tests: pd.DataFrame, base: str) -> pd.DataFrame:
    """Median error on those machines, by name: later_large of large exchanges, later_layer of whole
    layers; NaN where there is none.
    """
    medians = tests[tests.machine != base].groupby("experiment").error.median()
    names = {"later_large": "large exchange", "later_layer": "layer"}
    rows = [(name, medians.get(experiment, np.nan)) for name, experiment in names.items()]
    return pd.DataFrame(rows, columns=["name", "value"])
