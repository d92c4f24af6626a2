"""Fitting few physical parameters to measured times, and judging the fit by what it has not seen.

Parameters are positive, fitted by least squares of log(predicted / measured), so that a small time
weighs as much as a long one.  No point is left out of a fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, least_squares

from lib.network.cost import Features

Model = Callable[[Mapping[str, float], Features], np.ndarray]

STARTS = 8  # solutions of a fit, from guesses that differ by a factor of e
START = {  # first guesses, in SI units
    "summed": dict(start_s=2e-5, message_s=2e-6, wire_bytes_per_s=3e11, copy_bytes_per_s=1e12),
    "exchange": dict(
        start_s=1e-5,
        first_s=2e-6,
        back_share=0.3,
        small_bytes_per_s=2e11,
        large_s=2e-5,
        wire_bytes_per_s=3e11,
        copy_bytes_per_s=8e11,
    ),
    "even": dict(start_s=1e-5, small_bytes_per_s=2e11, large_s=2e-5, wire_bytes_per_s=3e11),
    "expert": dict(start_s=2e-5, memory_bytes_per_s=3e12, flop_per_s=5e14, join=1.0),
    "layer": dict(start_s=2e-5, source_bytes_per_s=6e11, order_bytes_per_s=1e12),
    "alltoall": dict(start_s=6e-6, message_s=3e-7, small_bytes_per_s=5e10),
    "nodes": dict(start_s=2e-5, away_s=1e-5, nic_bytes_per_s=45e9, nvlink_bytes_per_s=160e9),
    "normal": dict(start_s=2e-5, away_s=2e-5, nic_bytes_per_s=45e9, nvlink_bytes_per_s=160e9),
    "published": dict(start_s=3e-5, nic_bytes_per_s=45e9, nvlink_bytes_per_s=160e9),
}


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
    seconds: ArrayLike,
    start: Mapping[str, float],
    *,
    draws: int = 200,
    seed: int = 0,
    most: Mapping[str, float] | None = None,
    starts: int = STARTS,
) -> Fit:
    """Fit the parameters named by `start` (their first guesses, > 0) to measured times [n].

    most: what physics lets a parameter be at most, by name.  The best of `starts` solutions, from
    the guesses and from others around them, counts.  Intervals: percentile bootstrap over points;
    NaN without draws.  Refused: times or guesses that are not positive, and no more points than
    parameters, which would leave nothing to judge by.
    """
    times = np.asarray(seconds, dtype=float)
    features = {name: np.asarray(values) for name, values in features.items()}
    if len(times) <= len(start):
        raise ValueError(
            f"fitting.fit: {len(times)} points: must be more than {len(start)}, its parameters"
        )
    if not (np.isfinite(times).all() and (times > 0).all() and min(start.values()) > 0):
        raise ValueError("fitting.fit: seconds and start: must hold finite numbers > 0")
    names, first = list(start), np.log(list(start.values()))
    rng, found = np.random.default_rng(seed), []
    limits = np.log([(most or {}).get(name, np.inf) for name in names])
    tried = [
        _solve(model, features, times, names, first + away, limits)
        for away in [np.zeros(len(names)), *rng.normal(0, 1, (starts - 1, len(names)))]
    ]
    chosen = tried[0]  # a parameter that the points do not touch keeps its guess
    for other in tried[1:]:
        chosen = other if other.cost < (1 - 1e-6) * chosen.cost - 1e-9 else chosen
    best = chosen.x
    for _ in range(draws):
        points = rng.integers(len(times), size=len(times))
        drawn = {name: values[points] for name, values in features.items()}
        found.append(np.exp(_solve(model, drawn, times[points], names, best, limits, 15).x))
    edges = np.full((len(start), 2), np.nan)
    if draws:
        edges = np.quantile(found, [0.025, 0.975], axis=0).T
    parameters = dict(zip(names, np.exp(best).tolist(), strict=True))
    intervals = {n: (float(low), float(high)) for n, (low, high) in zip(names, edges, strict=True)}
    return Fit(model, parameters, intervals, np.log(model(parameters, features) / times))


def _solve(
    model: Model,
    features: Features,
    seconds: np.ndarray,
    names: list[str],
    first: np.ndarray,
    limits: np.ndarray,
    most: int = 400,
) -> OptimizeResult:
    """The least squares over logarithms of the parameters, within e^±12 of the first guesses and at
    most `limits`.
    """

    def error(logs: np.ndarray) -> np.ndarray:
        return np.log(model(dict(zip(names, np.exp(logs), strict=True)), features) / seconds)

    first = np.minimum(first, limits - 1e-6)
    ends = first - 12, np.minimum(first + 12, limits)
    return least_squares(error, first, bounds=ends, max_nfev=most)


def leave_one_out(
    model: Model, features: Features, seconds: ArrayLike, start: Mapping[str, float]
) -> np.ndarray:
    """Predicted times [n], each from a fit on the other points; a parameter that those do not touch
    keeps its guess.
    """
    times = np.asarray(seconds, dtype=float)
    features = {name: np.asarray(values) for name, values in features.items()}
    found = np.empty(len(times))
    for i in range(len(times)):
        others = np.arange(len(times)) != i
        known = {name: values[others] for name, values in features.items()}
        made = fit(model, known, times[others], start, draws=0)
        found[i] = made({name: values[i : i + 1] for name, values in features.items()})[0]
    return found


# ---- forms that are fitted beside those of network.cost: (parameters, features) → seconds ----


def summed_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + messages · message + wire / B + own / C: the starting form of an exchange, in
    which the copy to itself adds up.  Features: those of cost.features.
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


def nodes_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + remote share · (away + bytes / NIC) or, where it is longer, local / NVLink: what
    leaves the node, 1 − 8/N of all, costs by its share, its start too.  Features: those of
    published_s.
    """
    devices = np.asarray(f["devices"], dtype=float)
    share = 1 - np.minimum(8, devices) / devices
    inside = f["bytes"] * (np.minimum(8, devices) - 1) / devices / p["nvlink_bytes_per_s"]
    return p["start_s"] + np.maximum(
        share * (p["away_s"] + f["bytes"] / p["nic_bytes_per_s"]), inside
    )


def alltoall_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + (N − 1) · message + bytes (1 − 1/N) / B: small even all-to-alls on N devices of
    one node.  Features: devices, and bytes of one device, its own share included.
    """
    devices = np.asarray(f["devices"], dtype=float)
    wire = f["bytes"] * (1 - 1 / devices) / p["small_bytes_per_s"]
    return p["start_s"] + (devices - 1) * p["message_s"] + wire


def normal_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start, away where there is a second node, and max(remote / NIC, copies / NVLink): kernels
    that send a token once to every node that has experts of it, and there once to every device.
    Features: devices, remote and copies, bytes that leave a device for other nodes, and for other
    devices.
    """
    away = p["away_s"] * (np.asarray(f["devices"]) > 8)
    longer = np.maximum(f["remote"] / p["nic_bytes_per_s"], f["copies"] / p["nvlink_bytes_per_s"])
    return p["start_s"] + away + longer
