"""Few physical parameters from measured times: of an exchange, of expert compute, of a layer; and
how far they err.

Parameters are positive, fitted by least squares of log(predicted / measured), so that a small time
weighs as much as a long one.  No point is left out of a fit.  What is fitted on is declared by the
measurement (`part`), never chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from lib.measure import grid
from lib.network import cost
from lib.network.cost import Features

Model = Callable[[Mapping[str, float], Features], np.ndarray]


@dataclass(frozen=True)
class Fit:
    """Parameters of a model, their 95 % bootstrap intervals, and log(predicted / measured) of the
    points of the fit.
    """

    model: Model
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    residuals: np.ndarray

    def __call__(self, features: Features) -> np.ndarray:
        """Predicted times in seconds."""
        return self.model(self.parameters, features)


def fit(
    model: Model,
    features: Features,
    seconds: np.ndarray,
    start: Mapping[str, float],
    *,
    draws: int = 200,
    seed: int = 0,
) -> Fit:
    """Fit the parameters named by `start` (their first guesses, > 0) to measured times [n].

    Intervals: percentile bootstrap over points.  Refused: times or guesses that are not positive,
    and no more points than parameters, which would leave nothing to judge the fit by.
    """
    seconds = np.asarray(seconds, dtype=float)
    features = {name: np.asarray(values) for name, values in features.items()}
    if len(seconds) <= len(start):
        raise ValueError(
            f"calibrate.fit: {len(seconds)} points: must be more than {len(start)}, its parameters"
        )
    if not (
        np.isfinite(seconds).all()
        and (seconds > 0).all()
        and all(guess > 0 for guess in start.values())
    ):
        raise ValueError("calibrate.fit: seconds and start: must hold finite numbers > 0")
    first = np.log(list(start.values()))
    best = _solve(model, features, seconds, list(start), first)
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = rng.integers(len(seconds), size=len(seconds))
        drawn = {name: values[chosen] for name, values in features.items()}
        found.append(np.exp(_solve(model, drawn, seconds[chosen], list(start), best, 15)))
    edges = (
        np.quantile(found, [0.025, 0.975], axis=0).T if draws else np.full((len(start), 2), np.nan)
    )
    parameters = dict(zip(start, np.exp(best).tolist(), strict=True))
    intervals = {
        name: (float(low), float(high)) for name, (low, high) in zip(start, edges, strict=True)
    }
    return Fit(model, parameters, intervals, np.log(model(parameters, features) / seconds))


def _solve(
    model: Model,
    features: Features,
    seconds: np.ndarray,
    names: list[str],
    first: np.ndarray,
    most: int = 400,
) -> np.ndarray:
    def error(logs: np.ndarray) -> np.ndarray:
        return np.log(model(dict(zip(names, np.exp(logs), strict=True)), features) / seconds)

    return least_squares(error, first, bounds=(first - 12, first + 12), max_nfev=most).x


# ---- models: (parameters, features) → seconds ----


def summed_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + messages · message + wire / B + own / C: the starting form, in which the copy to
    itself adds up.

    Features: grid.features.
    """
    return (
        p["start_s"]
        + p["message_s"] * f["messages"]
        + f["wire_bytes"] / p["wire_bytes_per_s"]
        + f["own_bytes"] / p["copy_bytes_per_s"]
    )


def published_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + max(remote / NIC, local / NVLink): tables that give times by number of devices,
    nodes of 8.

    Experts are spread evenly: of a device's bytes the share 1 − 8/N leaves its node and 7/N stays
    on NVLink.
    """
    devices = np.asarray(f["devices"], dtype=float)
    inside = np.minimum(8, devices)
    remote, local = f["bytes"] * (1 - inside / devices), f["bytes"] * (inside - 1) / devices
    return p["start_s"] + np.maximum(remote / p["nic_bytes_per_s"], local / p["nvlink_bytes_per_s"])


START = {
    "summed": dict(start_s=2e-5, message_s=2e-6, wire_bytes_per_s=3e11, copy_bytes_per_s=1e12),
    "exchange": dict(
        start_s=1e-5,
        message_s=2e-6,
        small_bytes_per_s=2e11,
        large_s=2e-5,
        wire_bytes_per_s=3e11,
        copy_bytes_per_s=8e11,
    ),
    "even": dict(start_s=1e-5, small_bytes_per_s=2e11, large_s=2e-5, wire_bytes_per_s=3e11),
    "expert": dict(start_s=2e-5, memory_bytes_per_s=3e12, flop_per_s=5e14, join=1.0),
    "layer": dict(start_s=2e-5, order_bytes_per_s=5e11),
    "published": dict(start_s=3e-5, nic_bytes_per_s=45e9, nvlink_bytes_per_s=160e9),
}  # first guesses

# ---- the measured tables (records.load): what is predicted from, and what is predicted ----


def slowest(table: pd.DataFrame, phase: str = "total") -> pd.DataFrame:
    """The rows of a measured table of the slowest rank of each repetition, one phase, with the
    median time `s`.
    """
    rows = table[(table["rank"] == -1) & (table.phase == phase)].copy()
    return rows.assign(s=1e-6 * rows.p50_us)


def skew(table: pd.DataFrame) -> pd.DataFrame:
    """How far apart ranks are in even exchanges, per machine, size and call: columns machine,
    size_bytes, call, s, the slowest rank's median over the others' least, in seconds, and ratio.

    Ranks of an even exchange end together, so the one that began last takes least: what is seen of
    a skewed start.
    """
    even = table[
        (table.phase == "total")
        & (table["rank"] >= 0)
        & (table["skew"] == "even")
        & (table.aligned == 1)
    ]
    ends = even.groupby(["machine", "size_bytes", "call"]).p50_us.agg(["min", "max"]).reset_index()
    return ends.assign(s=1e-6 * (ends["max"] - ends["min"]), ratio=ends["max"] / ends["min"]).drop(
        columns=["min", "max"]
    )


def shaped(table: pd.DataFrame, of: str = "") -> Features:
    """Features of expert compute from a table's shape, rows in whole tiles and active experts; of:
    "rank_" for a rank's own.
    """
    shapes = [grid.SHAPES[name] for name in table["shape"]]
    return dict(
        tile_rows=table[of + "tile_rows"].to_numpy(),
        active=table[of + "active"].to_numpy(),
        expert_bytes=np.array([s.expert_bytes for s in shapes]),
        row_flop=np.array([s.row_flop for s in shapes]),
    )


def exchanges(table: pd.DataFrame, base: str, **options) -> tuple[pd.DataFrame, dict[str, Fit]]:
    """Aligned exchanges with their prediction from the machine `base`'s fit part, one fit per kind
    of call; and the fits.

    Of other machines every row is a test; misaligned splits are an experiment of their own and left
    to `misaligned`.
    """
    rows, fits = slowest(table), {}
    rows = rows[rows.aligned == 1]
    rows["predicted_s"] = np.nan
    for call, own in rows.groupby("call"):
        known = own[(own.part == "fit") & (own.machine == base)]
        model = cost.exchange_s if call == "split" else cost.even_s
        fits[call] = fit(
            model,
            _columns(known),
            known.s,
            START["exchange" if call == "split" else "even"],
            **options,
        )
        rows.loc[own.index, "predicted_s"] = fits[call](_columns(own))
        if call == "split":
            fits["summed"] = fit(summed_s, _columns(known), known.s, START["summed"], **options)
            rows.loc[own.index, "summed_s"] = fits["summed"](_columns(own))
    rows.loc[rows.machine != base, "part"] = "held_out"
    return rows, fits


def _columns(table: pd.DataFrame) -> Features:
    return {name: table[name].to_numpy() for name in ("wire_bytes", "own_bytes", "messages")}


def misaligned(table: pd.DataFrame) -> pd.DataFrame:
    """Time of splits off 16-byte boundaries over that of aligned ones: machine, size_bytes, skew,
    ratio.
    """
    rows = slowest(table)
    keys = ["machine", "size_bytes", "skew"]
    pair = (
        rows[rows.call == "split"].pivot_table(index=keys, columns="aligned", values="s").dropna()
    )
    return (
        (pair[0] / pair[1]).rename("ratio").reset_index()
        if {0, 1} <= set(pair)
        else pd.DataFrame(columns=[*keys, "ratio"])
    )


def computes(table: pd.DataFrame, **options) -> tuple[pd.DataFrame, dict[tuple[str, str], Fit]]:
    """Expert compute with its prediction from its fit part, one fit per machine and shape; and the
    fits.
    """
    rows, fits = slowest(table), {}
    rows["predicted_s"] = np.nan
    for key, own in rows.groupby(["machine", "shape"]):
        known = own[own.part == "fit"]
        fits[key] = fit(cost.expert_s, shaped(known), known.s, START["expert"], **options)
        rows.loc[own.index, "predicted_s"] = fits[key](shaped(own))
    return rows, fits


def layers(
    table: pd.DataFrame, exchange: Fit, expert: Mapping[str, Fit], base: str, **options
) -> tuple[pd.DataFrame, Fit]:
    """Whole layers with their prediction, from calibrated parts and the fit part of the machine
    `base`; and the fit.

    expert: by shape; the recorded routes' layer uses olmoe's, which has the same matrices.
    Columns: s, predicted_s, compute_s (measured, of the slowest rank) and wire_s, the rest.
    """
    rows = slowest(table).reset_index(drop=True)
    keys = ["machine", "shape", "tokens", "routes", "level", "rho_wanted", "seed"]
    rows = rows.merge(
        slowest(table, "compute")[[*keys, "s"]].rename(columns={"s": "compute_s"}), on=keys
    )
    rows["wire_s"] = rows.s - rows.compute_s
    rows = rows[rows["shape"].replace("trace", "olmoe").isin(list(expert))].reset_index(drop=True)
    ranks = table[(table["rank"] >= 0) & (table.phase == "total")].copy()
    ranks = ranks[ranks["shape"].replace("trace", "olmoe").isin(list(expert))]
    for name, own in ranks.groupby("shape"):
        ranks.loc[own.index, "expert_s"] = expert["olmoe" if name == "trace" else name](
            shaped(own, "rank_")
        )
    longest = ranks.groupby(keys, dropna=False).expert_s.max().reset_index()
    rows = rows.merge(longest, on=keys).assign(exchange_s=lambda t: exchange(_columns(t)))
    names = ("exchange_s", "expert_s", "own_bytes")
    known = rows[(rows.part == "fit") & (rows.machine == base)]
    made = fit(
        cost.layer_s, {n: known[n].to_numpy() for n in names}, known.s, START["layer"], **options
    )
    rows["predicted_s"] = made({n: rows[n].to_numpy() for n in names})
    rows.loc[rows.machine != base, "part"] = "held_out"
    return rows, made


def leave_one_out(
    model: Model, features: Features, seconds: np.ndarray, start: Mapping[str, float]
) -> np.ndarray:
    """Predicted times [n], each from a fit on the other points; a parameter that those do not touch
    keeps its guess.
    """
    seconds, features = (
        np.asarray(seconds, dtype=float),
        {name: np.asarray(v) for name, v in features.items()},
    )
    found = np.empty(len(seconds))
    for i in range(len(seconds)):
        others = np.arange(len(seconds)) != i
        made = fit(
            model,
            {name: v[others] for name, v in features.items()},
            seconds[others],
            start,
            draws=0,
        )
        found[i] = made({name: v[i : i + 1] for name, v in features.items()})[0]
    return found


def errors(rows: pd.DataFrame) -> np.ndarray:
    """|predicted / measured − 1| of rows with s and predicted_s."""
    return np.abs(rows.predicted_s / rows.s - 1).to_numpy()


def base(tables: Mapping[str, pd.DataFrame]) -> str:
    """The machine that is fitted on: the first measured of those with whole layers and the fewest
    devices; "" if there is none.
    """
    if not {"exchange", "compute", "layer"} <= set(tables):
        return ""
    whole = set.intersection(
        *(set(tables[name].machine) for name in ("exchange", "compute", "layer"))
    )
    known = tables["layer"][tables["layer"].machine.isin(whole)]
    return known.machine.iloc[known.devices.argmin()] if len(known) else ""


def everything(
    tables: Mapping[str, pd.DataFrame], large_bytes: int, **options
) -> tuple[pd.DataFrame, dict, pd.DataFrame]:
    """All measured configurations with their predictions; the fits by name; and the layers with
    their parts.

    Columns: experiment, machine, case (in words), group (a size, or shape and batch: what errs
    together), part, s, predicted_s, error, summed_s (an exchange in the starting form).  The
    experiments are the exchange from `large_bytes` per device on and below, expert compute, and the
    layer.
    """
    machine = base(tables)
    rows, wire = exchanges(tables["exchange"], machine, **options)
    work, expert = computes(tables["compute"], **options)
    whole, step = layers(
        tables["layer"],
        wire["split"],
        {s: f for (m, s), f in expert.items() if m == machine},
        machine,
        **options,
    )
    rows["experiment"] = np.where(
        rows.size_bytes >= large_bytes, "large exchange", "small exchange"
    )
    rows["case"] = (
        rows["skew"] + ", " + (rows.size_bytes // 1024).astype(str) + " KiB, " + rows.call
    )
    work["case"] = (
        work["shape"]
        + ", "
        + work.rows.astype(str)
        + " rows, "
        + work.active.astype(str)
        + " experts, "
        + work.spread
    )
    whole["case"] = (
        whole["shape"]
        + ", "
        + whole.tokens.astype(str)
        + " tokens, ρ "
        + whole.rho.round(2).astype(str)
        + ", Gini "
        + whole.gini.round(2).astype(str)
    )
    groups = [
        rows.size_bytes.astype(str),
        work["shape"] + work.rows.astype(str),
        whole["shape"] + whole.tokens.astype(str),
    ]
    columns = ["experiment", "machine", "case", "group", "part", "s", "predicted_s", "summed_s"]
    parts = [rows, work.assign(experiment="experts"), whole.assign(experiment="layer")]
    parts = [
        part.assign(group=group).reindex(columns=columns)
        for part, group in zip(parts, groups, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    fits = {
        "exchange": wire["split"],
        "exchange, all added": wire["summed"],
        "exchange without split sizes": wire["single"],
        "layer": step,
    }
    fits |= {f"experts of {shape} ({m})": made for (m, shape), made in expert.items()}
    known = work[(work.part == "fit") & (work.machine == machine)]
    fits["experts of any shape"] = fit(
        cost.expert_s, shaped(known), known.s, START["expert"], **options
    )
    return table.assign(error=errors(table)), fits, whole
