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
    """Of `launches`, the smallest exchange: queued_us, graph_us, call_us and launch_kib; the
    largest, of launch_mib: call_over, a call's time over a queued one's; all NaN where none was
    measured.
    """
    names = ["queued_us", "graph_us", "call_us"]
    lacks = pd.Series(np.nan, index=[*names, "launch_kib", "launch_mib", "call_over"])
    if table.empty:
        return lacks
    least, most = table.loc[table.size_bytes.idxmin()], table.loc[table.size_bytes.idxmax()]
    found = least[names].to_dict() | dict(call_over=most.call_us / most.queued_us)
    sizes = dict(launch_kib=least.size_bytes / 2**10, launch_mib=most.size_bytes / 2**20)
    return pd.Series(found | sizes, dtype=float)


def beside(tables: Mapping[str, pd.DataFrame], launch: str = "queued") -> pd.DataFrame:
    """Layers of two engines under the same routes (native), a row per machine, tokens of one device
    and ρ: columns ours_us, theirs_us, theirs_over_ours, and ours_slowdown, theirs_slowdown,
    over even routes; no row where none was measured.
    """
    keys, columns = ["machine", "tokens", "rho"], ["ours_us", "theirs_us"]
    slow = ["ours_slowdown", "theirs_slowdown"]
    if "native" not in tables:
        return pd.DataFrame(columns=[*keys, *columns, "theirs_over_ours", *slow])
    rows = calibrate.slowest(tables["native"])
    rows = rows[rows.launch == launch].replace({"engine": {"transformers": "theirs"}})
    wide = rows.pivot(index=[*keys, "level"], columns="engine", values="p50_us").add_suffix("_us")
    wide = wide.rename_axis(columns=None).reset_index().sort_values([*keys[:2], "level"])
    even = wide.groupby(keys[:2])[columns].transform("first")
    wide = wide.assign(theirs_over_ours=wide.theirs_us / wide.ours_us)
    wide[slow] = (wide[columns] / even - 1).to_numpy()
    return wide[[*keys, *columns, "theirs_over_ours", *slow]].reset_index(drop=True)


def engines(table: pd.DataFrame) -> pd.Series:
    """Of `beside`: native_few and native_many, theirs over ours with even routes at the fewest and
    the most tokens, native_tokens_few, _many; native_ours and native_theirs, the most slowdown at
    the most tokens; NaN where none was measured.
    """
    names = ["few", "many"]
    ends = [table.tokens.min(), table.tokens.max()]
    found: dict[str, float] = {}
    for name, tokens in zip(names, ends, strict=True):
        own = table[table.tokens == tokens]
        found[f"native_{name}"] = own.theirs_over_ours.iloc[0] if len(own) else np.nan
        found[f"native_tokens_{name}"] = tokens
    last = table[table.tokens == ends[1]]
    found |= dict(native_ours=last.ours_slowdown.max(), native_theirs=last.theirs_slowdown.max())
    return pd.Series(found, dtype=float)


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


def fresh(predictions: pd.DataFrame, judge: str) -> pd.Series:
    """Median errors on the machine that judges, all of its configurations: fresh_layer,
    fresh_large and fresh_small (exchanges), and fresh_layers, how many layers.
    """
    own = predictions[predictions.machine == judge].groupby("experiment").error
    names = dict(layer="layer", large="large exchange", small="small exchange")
    found = {f"fresh_{to}": own.median().get(of, np.nan) for to, of in names.items()}
    return pd.Series(found | dict(fresh_layers=own.size().get("layer", 0)), dtype=object)


def reads(tests: pd.DataFrame, q: float) -> pd.Series:
    """A quantile of the error of each experiment."""
    return tests.groupby("experiment").error.quantile(q)


def worst(tests: pd.DataFrame, each: int) -> pd.DataFrame:
    """The `each` worst predictions of every experiment, the worst first."""
    rows = tests.sort_values("error", ascending=False).groupby("experiment").head(each)
    names = ["experiment", "machine", "case", "measured_us", "predicted_us", "error"]
    return rows[names].sort_values("experiment", kind="stable", ignore_index=True)


def extremes(tests: pd.DataFrame) -> pd.DataFrame:
    """The worst prediction of large exchanges, experts and layers in words: columns name and value,
    "what it is: … µs, predicted … µs"; NaN where nothing is predicted.
    """
    rows = worst(tests[tests.experiment != "small exchange"], 1)
    told = [
        f"{r.case}: {r.measured_us:.0f} µs, predicted {r.predicted_us:.0f} µs"
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


def shares(
    errors: pd.DataFrame, tests: pd.DataFrame, untiled: pd.DataFrame, base: str
) -> pd.DataFrame:
    """Errors by name, with intervals where they have any (name, value, value_low, value_high):
    `errors`; `later`, on machines other than `base`; and `starting`, of untiled, all predictions
    from calibrate.untiled tables.
    """
    bare = untiled[(untiled.part == "held_out") & (untiled.machine == base)]
    own = starting(tests[tests.machine == base], bare)
    return pd.concat([errors, later(tests, base), own], ignore_index=True)


def complete(tests: pd.DataFrame) -> bool:
    """Whether every row that was measured has a prediction."""
    return bool((tests.predicted_us.gt(0) | tests.measured_us.isna()).all())


def adds_up(layers: pd.DataFrame) -> bool:
    """Whether the parts of every layer add up to its time."""
    parts = (layers.compute_s + layers.wire_s).astype(float)
    return bool(np.allclose(parts, layers.s.astype(float)))


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
