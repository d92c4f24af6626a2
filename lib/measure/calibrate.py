"""From measured tables to predictions: of an exchange, of expert compute, of a layer.

What is fitted on is declared by the measurement (`part`), never chosen here; exchanges and layers
are fitted on one machine, `base`, and all others are predicted from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib.measure import grid
from lib.measure.fitting import START, Fit, fit, summed_s
from lib.network import cost
from lib.network.cost import Features

Tables = Mapping[str, pd.DataFrame]  # by experiment, as records.load gives them
CARDS = Path(__file__).parents[2] / "data/published/cards.csv"
LIMITED = ("memory_bytes_per_s", "flop_per_s", "wire_bytes_per_s", "small_bytes_per_s")
MOVED = ("source_bytes_per_s", "order_bytes_per_s", "copy_bytes_per_s")  # read and written
EXPERIMENTS = ("small exchange", "large exchange", "experts", "layer")
PREDICTED = ["experiment", "machine", "case", "group", "part", "measured_us", "predicted_us"]
PREDICTED += ["summed_us", "error"]
LAYERS = ["machine", "shape", "tokens", "routes", "level", "seed", "part", "rho", "gini"]
LAYERS += ["s", "predicted_s", "compute_s", "wire_s", "placement"]

# ---- the measured tables: what is predicted from, and what is predicted ----


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
    of_ranks = table[(table.phase == "total") & (table["rank"] >= 0)]
    even = of_ranks[(of_ranks["skew"] == "even") & (of_ranks.aligned == 1)]
    even = even[even.launch == "queued"]
    ends = even.groupby(["machine", "size_bytes", "call"]).p50_us.agg(["min", "max"])
    found = pd.DataFrame(
        dict(s=1e-6 * (ends["max"] - ends["min"]), ratio=ends["max"] / ends["min"])
    )
    return found.reset_index()


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


def sent(table: pd.DataFrame) -> Features:
    """Features of an exchange from a measured table; see cost.features."""
    names = "wire_bytes", "back_bytes", "own_bytes", "messages"
    return {name: table[name].to_numpy() for name in names}


def limits(machine: str) -> dict[str, float]:
    """What the datasheet of a machine's card lets parameters be at most, by name (CARDS): memory,
    arithmetic, one direction of NVLink; a row put in order or copied is read and written.  None of
    a card that is not listed.
    """
    cards = pd.read_csv(CARDS).set_index("name")
    for name, card in cards.iterrows():
        if machine.startswith(str(name)):
            known = {key: float(card[key]) for key in LIMITED}
            twice = dict.fromkeys(MOVED, known["memory_bytes_per_s"] / 2)
            return {**known, **twice, "back_share": 1.0}
    return {"back_share": 1.0}


def base(tables: Tables) -> str:
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


def misaligned(tables: Tables) -> pd.DataFrame:
    """Time of splits off 16-byte boundaries over that of aligned ones: machine, size_bytes, skew,
    ratio; no row where none was measured.
    """
    keys = ["machine", "size_bytes", "skew"]
    rows = slowest(tables["exchange"]) if "exchange" in tables else pd.DataFrame()
    if not len(rows) or rows.aligned.nunique() < 2:
        return pd.DataFrame(columns=[*keys, "ratio"], dtype=float)
    split = rows[(rows.call == "split") & (rows.launch == "queued")]
    pair = split.pivot_table(index=keys, columns="aligned", values="s").dropna()
    return (pair[0] / pair[1]).rename("ratio").reset_index()


def untiled(tables: Tables) -> dict[str, pd.DataFrame]:
    """The tables with rows as they are where whole tiles were: from these the starting form of
    expert compute, which knew no tiles, is fitted.
    """
    rows = {"compute": ("tile_rows", "rows"), "layer": ("rank_tile_rows", "rank_rows")}
    return {
        name: table.assign(**{rows[name][0]: table[rows[name][1]]}) if name in rows else table
        for name, table in tables.items()
    }


# ---- the parts, each predicted from its fit ----


def exchanges(table: pd.DataFrame, base: str, **options) -> tuple[pd.DataFrame, dict[str, Fit]]:
    """Aligned exchanges with their prediction from the machine `base`'s fit part, one fit per kind
    of call, "split" and "single"; and the fits, with "summed", the starting form of a split one,
    whose predictions are summed_s.

    Of other machines every row is a test; calls that are not queued are left out, and misaligned
    splits are an experiment of their own, left to `misaligned`.
    """
    rows = slowest(table)
    rows = rows[(rows.aligned == 1) & (rows.launch == "queued")].assign(
        predicted_s=np.nan, summed_s=np.nan
    )
    fits = {}
    for name, call, column, model, start in (
        ("split", "split", "predicted_s", cost.exchange_s, START["exchange"]),
        ("summed", "split", "summed_s", summed_s, START["summed"]),
        ("single", "single", "predicted_s", cost.even_s, START["even"]),
    ):
        own = rows[rows.call == call]
        known = own[(own.part == "fit") & (own.machine == base)]
        fits[name] = fit(model, sent(known), known.s, start, most=limits(base), **options)
        rows.loc[own.index, column] = fits[name](sent(own))
    rows.loc[rows.machine != base, "part"] = "held_out"
    return rows, fits


def computes(table: pd.DataFrame, **options) -> tuple[pd.DataFrame, dict[tuple[str, str], Fit]]:
    """Expert compute with its prediction from its fit part, one fit per machine and shape; and the
    fits.
    """
    rows, fits = slowest(table), {}
    rows["predicted_s"] = np.nan
    for key, own in rows.groupby(["machine", "shape"]):
        known = own[own.part == "fit"]
        fits[key] = fit(
            cost.expert_s, shaped(known), known.s, START["expert"], most=limits(key[0]), **options
        )
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
    whose = table["shape"].replace("trace", "olmoe")
    table = table.assign(experts_of=whose)[whose.isin(list(expert))]
    keys = ["machine", "shape", "tokens", "routes", "level", "rho_wanted", "seed", "placement"]
    compute = slowest(table, "compute")[[*keys, "s"]].rename(columns={"s": "compute_s"})
    rows = slowest(table).reset_index(drop=True).merge(compute, on=keys)
    ranks = table[(table["rank"] >= 0) & (table.phase == "total")].copy()
    for name, own in ranks.groupby("experts_of"):
        ranks.loc[own.index, "expert_s"] = expert[name](shaped(own, "rank_"))
    longest = ranks.groupby(keys, dropna=False).expert_s.max().reset_index()
    rows = rows.merge(longest, on=keys)
    rows = rows.assign(wire_s=rows.s - rows.compute_s, exchange_s=exchange(sent(rows)))
    names = "exchange_s", "expert_s", "source_bytes", "own_bytes"
    parts = {name: rows[name].to_numpy() for name in names}
    known = ((rows.part == "fit") & (rows.machine == base)).to_numpy()
    seen = {name: values[known] for name, values in parts.items()}
    made = fit(cost.layer_s, seen, rows.s[known], START["layer"], most=limits(base), **options)
    rows = rows.assign(predicted_s=made(parts))
    rows.loc[rows.machine != base, "part"] = "held_out"
    return rows, made


# ---- all of them ----


def everything(
    tables: Tables, large_bytes: int, **options
) -> tuple[pd.DataFrame, dict[str, Fit], pd.DataFrame]:
    """All measured configurations with their predictions (`predictions`); the fits by name; and the
    layers with their parts (`layers`).

    Where no machine has all tables (`base`): a row of NaN per experiment, no fit, no layer.
    """
    machine = base(tables)
    if not machine:
        absent = pd.DataFrame(dict(experiment=EXPERIMENTS, machine="", part="held_out"))
        return absent.reindex(columns=PREDICTED), {}, pd.DataFrame(columns=LAYERS)
    wire, of_calls = exchanges(tables["exchange"], machine, **options)
    work, of_experts = computes(tables["compute"], **options)
    own = {shape: made for (name, shape), made in of_experts.items() if name == machine}
    whole, step = layers(tables["layer"], of_calls["split"], own, machine, **options)
    known = work[(work.part == "fit") & (work.machine == machine)]
    fits = {
        "exchange": of_calls["split"],
        "exchange, all added": of_calls["summed"],
        "exchange without split sizes": of_calls["single"],
        "layer": step,
        **{f"experts of {shape} ({name})": made for (name, shape), made in of_experts.items()},
        "experts of any shape": fit(
            cost.expert_s,
            shaped(known),
            known.s,
            START["expert"],
            most=limits(machine),
            **options,
        ),
    }
    return predictions(wire, work, whole, large_bytes), fits, whole


def predictions(
    wire: pd.DataFrame, work: pd.DataFrame, whole: pd.DataFrame, large_bytes: int
) -> pd.DataFrame:
    """Exchanges, expert compute and layers as one table, each with its prediction.

    Columns: experiment (an exchange is large from `large_bytes` per device on), machine, case (in
    words), group (a size, or shape and batch: what errs together), part, measured_us, predicted_us,
    summed_us (an exchange in the starting form), error = |predicted / measured − 1|.
    """
    large = wire.size_bytes >= large_bytes
    wire = wire.assign(
        experiment=np.where(large, "large exchange", "small exchange"),
        group=wire.size_bytes.astype(str),
        case=[f"{r.skew}, {r.size_bytes // 1024} KiB, {r.call}" for r in wire.itertuples()],
    )
    work = work.assign(
        experiment="experts",
        group=work["shape"] + work.rows.astype(str),
        case=[
            f"{r.shape}, {r.rows} rows, {r.active} experts, {r.spread}" for r in work.itertuples()
        ],
    )
    whole = whole.assign(
        experiment="layer",
        group=whole["shape"] + whole.tokens.astype(str),
        case=[
            f"{r.shape}, {r.tokens} tokens, ρ {round(r.rho, 2)}, Gini {round(r.gini, 2)}"
            for r in whole.itertuples()
        ],
    )
    rows = pd.concat([wire, work, whole], ignore_index=True)
    times = {f"{name}_us": 1e6 * rows[f"{name}_s"] for name in ("predicted", "summed")}
    rows = rows.assign(measured_us=1e6 * rows.s, **times, error=errors(rows))
    return rows[PREDICTED]


def errors(rows: pd.DataFrame) -> np.ndarray:
    """|predicted / measured − 1| of rows with s and predicted_s."""
    return np.abs(rows.predicted_s / rows.s - 1).to_numpy()


# ---- the fits as tables ----


def parameters(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """Calibrated parameters in SI units: columns model, parameter, value with value_low and
    value_high, points of the fit and in_sample, the median error on them.
    """
    names = ["model", "parameter", "value", "value_low", "value_high", "points", "in_sample"]
    rows = [
        (
            name,
            key,
            value,
            *made.intervals[key],
            len(made.residuals),
            np.median(np.abs(np.expm1(made.residuals))),
        )
        for name, made in fits.items()
        for key, value in made.parameters.items()
    ]
    return pd.DataFrame(rows, columns=names)


def wires(fits: Mapping[str, Fit]) -> pd.Series:
    """What an exchange takes: start_us, µs before anything moves, and wire_gb_per_s, GB/s of one
    direction in large ones, each with its interval (_low, _high); NaN where nothing was fitted.
    """
    found = {}
    for name, key, scale in (
        ("start_us", "start_s", 1e6),
        ("wire_gb_per_s", "wire_bytes_per_s", 1e-9),
    ):
        made = fits.get("exchange")
        ends = made.intervals[key] if made else (np.nan, np.nan)
        found[name] = scale * made.parameters[key] if made else np.nan
        found |= {f"{name}_low": scale * ends[0], f"{name}_high": scale * ends[1]}
    return pd.Series(found)
