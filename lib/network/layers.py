"""Layers of published models with synthetic routes: how much longer they take than with even ones
(simulated).

Draws are paired: the same seed gives the same random numbers at every level, fabric and machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import stats
from lib.network import cost, fluid, placement, step, synthetic, threads, traffic
from lib.network.fabric import Clusters
from lib.network.links import Fabric

# bytes [..., devices, devices] of a dispatch in bfloat16, rows [..., devices, experts]
Routes = tuple[np.ndarray, np.ndarray]
CASE = ["shape", "devices", "tokens", "fabric", "level"]


@dataclass(frozen=True)
class Study:
    """Which layers: models, numbers of devices that share a layer, tokens of one device, and levels
    of the routes; `seeds` draws of each, numbered from `seed`.

    The wire is max-min fair up to `exact_up_to` devices, its bound beyond.  overlap: as in
    step.layer.
    """

    models: Sequence[step.Model]
    devices: Sequence[int]
    tokens: Sequence[int]
    levels: Sequence[float]
    seeds: int
    seed: int = 0
    exact_up_to: int = 0
    overlap: bool = False

    def cases(self) -> Iterator[tuple[step.Model, int, int]]:
        """(model, devices, tokens) wherever the devices divide the experts."""
        for model in self.models:
            for devices in self.devices:
                if model.shape.experts % devices == 0:
                    for tokens in self.tokens:
                        yield model, devices, tokens


def check(study: Study) -> None:
    """Refuse numbers of devices none of which divides the experts of one of the models, and levels
    none of which a model's routes can have.
    """
    if next(study.cases(), None) is None:
        names = ", ".join(model.name for model in study.models)
        raise ValueError(
            f"layers.check: devices = {list(study.devices)}: "
            f"one must divide the experts of one of {names}"
        )
    for model in study.models:
        most = synthetic.highest_level(model.shape.experts, model.shape.k)
        if min(study.levels) >= most:
            raise ValueError(
                f"layers.check: levels = {list(study.levels)}: one must be below the highest level "
                f"of {model.name}, {most:g}"
            )


def settings(study: Study) -> pd.Series:
    """What a reader is told of a study: left_out, numbers of devices that divide the experts of
    none of its models, None where there is none; and of the case that `ends` tells: step_shape,
    step_devices, step_level, step_tokens_least and step_tokens_most.
    """
    model, devices, _ = next(study.cases())
    used = {count for _, count, _ in study.cases()}
    most = synthetic.highest_level(model.shape.experts, model.shape.k)
    left = [str(count) for count in study.devices if count not in used]
    known = dict(
        left_out=", ".join(left) or None,
        step_shape=model.name,
        step_devices=devices,
        step_level=max(level for level in study.levels if level < most),
        step_tokens_least=min(study.tokens),
        step_tokens_most=max(study.tokens),
    )
    return pd.Series(known, dtype=object)


def drawn(
    shape: cost.Shape, devices: int, tokens: int, chances: np.ndarray, seeds: int, seed: int = 0
) -> Routes:
    """Synthetic routes of `tokens` tokens on each device with inclusion probabilities `chances`
    [experts], labels permuted per seed, experts in order: what they send and compute, [seeds, …].
    """
    home = placement.contiguous(shape.experts, devices)

    def one(number: int) -> Routes:
        rng = np.random.default_rng([seed, number])
        labels = rng.permutation(shape.experts)
        counts = np.empty((devices, shape.experts), np.int64)
        counts[:, labels] = synthetic.counts(chances, shape.k, devices * tokens, rng, share=tokens)
        return traffic.counted(counts, home, 2.0 * shape.hidden)

    sent, rows = zip(*threads.each(one, range(seeds)), strict=True)
    return np.stack(sent), np.stack(rows)


def rho(rows: np.ndarray) -> np.ndarray:
    """[...] the busiest device over the mean, of rows [..., devices, experts]."""
    held = rows.sum(-1)
    return held.max(-1) / held.mean(-1)


def draws(study: Study, clusters: Clusters, machine: step.Machine) -> pd.DataFrame:
    """A layer's time and its parts over model × devices × tokens of one device × level × fabric, a
    row per draw.

    Columns: shape, devices, tokens, fabric, level, seed, rho, s, even_s (perfectly even routes),
    received_mb and even_received_mb (traffic.received of the dispatch, in MB), the parts of `step`
    in seconds, and excess_… of each part as a share of even_s. Left out: devices that do not divide
    the experts, levels out of range.
    """
    found = []
    for model, devices, tokens in study.cases():
        nets = {name: make(devices) for name, make in clusters.items()}
        even = step.even_layer(devices * tokens, model.shape, devices)
        most = synthetic.highest_level(model.shape.experts, model.shape.k)
        for level in (level for level in study.levels if level < most):
            chances = synthetic.inclusion(model.shape.experts, model.shape.k, level)
            routes = drawn(model.shape, devices, tokens, chances, study.seeds, study.seed)
            for name, net in nets.items():
                case = dict(zip(CASE, (model.name, devices, tokens, name, level), strict=True))
                found.append(_times(study, model, net, machine, routes, even).assign(**case))
    return pd.concat(found, ignore_index=True)


def _times(
    study: Study,
    model: step.Model,
    net: Fabric,
    machine: step.Machine,
    routes: Routes,
    even: Routes,
) -> pd.DataFrame:
    """Of draws, the rows of one case on one fabric."""
    exact = net.devices <= study.exact_up_to
    time_s = fluid.makespan_s if exact else fluid.bottleneck_bound_s
    base, parts = (
        step.of_model(sent, rows, model, net, machine, overlap=study.overlap, time_s=time_s)
        for sent, rows in (even, routes)
    )
    excess = {f"excess_{part}": share for part, share in step.excess(parts, base).items()}
    known = dict(
        seed=np.arange(study.seeds),
        rho=rho(routes[1]),
        s=step.total_s(parts),
        even_s=float(step.total_s(base)),
        received_mb=1e-6 * model.out_share * traffic.received(routes[0]),
        even_received_mb=1e-6 * model.out_share * float(traffic.received(even[0])),
    )
    return pd.DataFrame({**known, **parts, **excess})


def summary(rows: pd.DataFrame, study: Study, machine: step.Machine) -> pd.DataFrame:
    """Of draws of a study, per shape, devices, tokens, fabric and level: mean ρ, the mean time with
    even routes, the mean slowdown over it with its 95 % interval over seeds, its 95th percentile,
    the slowdown `whole_step` of a whole forward step, what the busiest device receives
    (received_mb, the mean, received_p99_mb, and even_received_mb with even routes), and the parts
    of the layer's slowdown, which add up to it.
    """
    found, models = [], {model.name: model for model in study.models}
    for key, own in rows.groupby(CASE, sort=False):
        case, slowdown = dict(zip(CASE, key, strict=True)), own.s / own.even_s - 1
        low, high = stats.mean_interval(slowdown)
        row = dict(rho=own.rho.mean(), even_us=1e6 * own.even_s.iloc[0], slowdown=slowdown.mean())
        row |= dict(slowdown_low=low, slowdown_high=high)
        row |= dict(slowdown_p95=np.quantile(slowdown, 0.95))
        model, layer_s = models[case["shape"]], 1e-6 * row["even_us"]
        even_s, uneven_s = (
            step.step_s(np.full(model.layers, s), case["tokens"], model, machine)
            for s in (layer_s, layer_s * (1 + row["slowdown"]))
        )
        row |= dict(whole_step=float(uneven_s / even_s) - 1, **_received(own))
        parts = {part: own[f"excess_{part}"].mean() for part in step.PARTS}
        found.append(case | row | parts)
    return pd.DataFrame(found)


def _received(own: pd.DataFrame) -> dict[str, float]:
    """Of draws of one case, what the busiest device receives."""
    got = own.received_mb
    most = dict(received_mb=got.mean(), received_p99_mb=got.quantile(0.99))
    return most | dict(even_received_mb=own.even_received_mb.iloc[0])


def sizes(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Of rows with shape, devices, tokens and rho, what the busiest device has to do: devices,
    own_bytes (that it gets, or sends where that is more), rows, and weight_bytes of its experts.
    """
    shapes = {model.name: model.shape for model in study.models}
    own = [shapes[name] for name in table["shape"]]
    rows = table.tokens.to_numpy() * np.array([shape.k for shape in own])
    rho = np.maximum(table.rho.to_numpy(float), 1)
    return pd.DataFrame(
        dict(
            devices=table.devices.to_numpy(),
            own_bytes=rows * rho * np.array([2 * shape.hidden for shape in own]),
            rows=rows * rho,
            weight_bytes=[shape.weight_bytes for shape in own],
        )
    )


def parts_us(rows: pd.DataFrame) -> pd.DataFrame:
    """Of draws, the mean of each part in µs, and ρ, per case."""
    means = rows.groupby(CASE, sort=False)[[*step.PARTS, "rho"]].mean()
    return means.mul({name: 1e6 for name in step.PARTS} | dict(rho=1)).reset_index()


def outer(table: pd.DataFrame, fabric: str) -> pd.DataFrame:
    """Of summary, the rows of one fabric with the fewest and with the most devices."""
    own = table[table.fabric == fabric]
    return own[own.devices.isin([own.devices.min(), own.devices.max()])]


def highest(table: pd.DataFrame, fabric: str, tokens: Sequence[int] | None = None) -> pd.DataFrame:
    """Of summary, on one fabric, each shape's rows at its highest level on its most devices, with
    `wire_share`, what part of the slowdown the wire is; tokens: of these batches alone.
    """
    own = table[table.fabric == fabric]
    own = own if tokens is None else own[own.tokens.isin(tokens)]
    most = own.groupby("shape")[["devices", "level"]].transform("max")
    rows = own[(own.devices == most.devices) & (own.level == most.level)].reset_index(drop=True)
    return rows.assign(wire_share=rows.wire / rows.slowdown)


def listed(table: pd.DataFrame) -> pd.DataFrame:
    """Of highest, what a table for readers shows."""
    hidden = ["fabric", "level", "wire_share", "received_p99_mb", *step.PARTS]
    return table.drop(columns=hidden)


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Of summary, the first shape on its first devices and fabric at its highest level, with the
    fewest and with the most tokens: columns end (least, most) and step_slow with its interval.
    """
    first = table.iloc[0]
    known = [table[name] == first[name] for name in ("shape", "devices", "fabric")]
    own = table[np.logical_and.reduce(known)]
    own = own[own.level == own.level.max()].sort_values("tokens").iloc[[0, -1]]
    slow = own[["slowdown", "slowdown_low", "slowdown_high"]].to_numpy()
    names = ["step_slow", "step_slow_low", "step_slow_high"]
    return pd.DataFrame(slow, columns=names).assign(end=["least", "most"])


def fastest(table: pd.DataFrame) -> pd.Series:
    """Of summary, the case that gains most on even routes: even_loses, the share of their time,
    with its interval, and even_loses_where, in words; NaN where none gains.
    """
    row = table.loc[table.slowdown.idxmin()].copy()
    if row.slowdown >= 0:
        row[["slowdown", "slowdown_high", "slowdown_low"]] = np.nan
    where = (
        f"{row['shape']} on {row.devices} devices with {row.tokens} tokens each, "
        f"level {row.level:g}"
    )
    sizes = -row[["slowdown", "slowdown_high", "slowdown_low"]].to_numpy(float)
    names = ["even_loses", "even_loses_low", "even_loses_high"]
    return pd.Series([*sizes, where], index=[*names, "even_loses_where"])


def carried(
    study: Study, loads: np.ndarray, recorded_k: int, clusters: Clusters, machine: step.Machine
) -> pd.DataFrame:
    """The imbalance of recorded loads [layers, experts], top-recorded_k, carried to the study's
    models (synthetic.fitted): per shape, devices and tokens the mean slowdown over even routes with
    its 95 % interval over seeds, and mean ρ, each the mean over layers (synthetic); on the fewest
    of its devices and the first of the fabrics, by the bound.
    """
    fewest, found = min(devices for _, devices, _ in study.cases()), []
    net = next(iter(clusters.values()))(fewest)
    for model, devices, tokens in study.cases():
        shape = model.shape
        if devices != fewest:
            continue
        even = step.even_layer(devices * tokens, shape, devices)
        even_s = step.total_s(step.of_model(*even, model, net, machine))
        slow, rhos = [], []
        for load in loads:
            chances = synthetic.fitted(load, shape.experts, shape.k, recorded_k)
            sent, rows = drawn(shape, devices, tokens, chances, study.seeds, study.seed)
            s = step.total_s(step.of_model(sent, rows, model, net, machine))
            slow.append(s / even_s - 1)
            rhos.append(rho(rows))
        mean = np.mean(slow, 0)
        low, high = stats.mean_interval(mean)
        case = dict(shape=model.name, devices=devices, tokens=tokens, rho=np.mean(rhos))
        found.append(case | dict(slowdown=mean.mean(), slowdown_low=low, slowdown_high=high))
    return pd.DataFrame(found)


def span(table: pd.DataFrame, column: str, by: str) -> pd.DataFrame:
    """The least (end "low") and the largest (end "high") of a column per group: columns by, end,
    column.
    """
    edges = table.groupby(by)[column].agg(low="min", high="max").reset_index()
    return edges.melt(by, var_name="end", value_name=column)
