"""One dispatch on more and more devices: its time (simulated), and what computing that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import stats
from lib.network import fluid, placement, synthetic, threads, traffic
from lib.network.fabric import Clusters
from lib.network.links import Fabric


@dataclass(frozen=True)
class Study:
    """Synthetic routes at a level of `tokens` tokens on each device, with `experts_per_device`
    experts; fair times up to `exact_up_to` devices; `seeds` draws, numbered from `seed`.
    """

    devices: Sequence[int]
    level: float
    hidden: int
    exact_up_to: int
    experts_per_device: int = 4
    k: int = 8
    tokens: int = 64
    seeds: int = 5
    seed: int = 0


def settings(study: Study) -> pd.Series:
    """What a reader is told of a study: scale_level; scale_most, the most devices; exact_devices,
    the most of those whose exact times are computed, 0 for none.
    """
    exact = max((count for count in study.devices if count <= study.exact_up_to), default=0)
    known = dict(scale_level=study.level, scale_most=max(study.devices), exact_devices=exact)
    return pd.Series(known, dtype=object)


def drawn(study: Study, devices: int) -> list[np.ndarray]:
    """Dispatch matrices [devices, devices] in bytes, one per seed."""
    experts, row_bytes = study.experts_per_device * devices, 2.0 * study.hidden
    chances = synthetic.inclusion(experts, study.k, study.level)
    home = placement.contiguous(experts, devices)

    def one(number: int) -> np.ndarray:
        rng, tokens = np.random.default_rng([study.seed, number]), devices * study.tokens
        labels = rng.permutation(experts)
        index = labels[synthetic.sample(chances, study.k, tokens, rng, share=study.tokens)]
        return traffic.matrix(index, home, devices, row_bytes)

    return threads.each(one, range(study.seeds))


def table(study: Study, clusters: Clusters) -> pd.DataFrame:
    """A row per number of devices and fabric.

    Columns: slowdown of a dispatch over even routes by the bound, with its 95 % interval over
    seeds; fair, the max-min fair time of the first draw over its bound; bound_s and
    exact_s, seconds of computing one (measured, the least of its calls); NaN beyond exact_up_to.
    """
    compile_once()
    found = []
    for devices in study.devices:
        sent = drawn(study, devices)
        even = traffic.even(devices * study.tokens, study.k, devices, 2.0 * study.hidden)
        for name, make in clusters.items():
            net, fair, exact_s = make(devices), np.nan, np.nan
            bounds, bound_s = _timed(fluid.bottleneck_bound_s, sent, net)
            slow = bounds / float(fluid.bottleneck_bound_s(even, net)) - 1
            low, high = stats.mean_interval(slow)
            if devices <= study.exact_up_to:
                _ = net.path_latency_s  # listing routes is no part of the time
                spans, exact_s = _timed(fluid.makespan_s, sent[:1], net)
                fair = float(spans[0] / bounds[0])
            row = dict(devices=devices, fabric=name, level=study.level, slowdown=slow.mean())
            row |= dict(slowdown_low=low, slowdown_high=high, fair=fair)
            found.append(row | dict(bound_s=bound_s, exact_s=exact_s))
    return pd.DataFrame(found)


def compile_once() -> None:
    """Have the exact time compiled, so that no measured call does it."""
    lone = Fabric(capacity_bytes_per_s=np.ones(1), routes={(0, 0): []})
    fluid.makespan_s(np.zeros((1, 1)), lone)


def _timed(function: Callable, cases: list, net: Fabric) -> tuple[np.ndarray, float]:
    """Answers [cases], and the least seconds of a call."""
    answers, seconds = [], []
    for case in cases:
        began = time.perf_counter()
        answers.append(float(function(case, net)))
        seconds.append(time.perf_counter() - began)
    return np.array(answers), min(seconds)


def largest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of table, the rows with the most devices, by fabric."""
    return rows[rows.devices == rows.devices.max()].set_index("fabric")


def ends(rows: pd.DataFrame, fabric: str, shared: str) -> pd.Series:
    """Of table: scale_few and scale_many, time over that of even routes on `fabric` on the fewest
    and the most devices; fair_free and fair_most, the largest `fair` over fabrics but `shared` and
    over all, and fair_where, that one's fabric; bound_ms, the slowest bound on the most devices,
    and exact_ms, the slowest exact time.
    """
    own = rows[rows.fabric == fabric].sort_values("devices").slowdown
    exact, most = rows.dropna(subset=["fair"]), largest(rows)
    where = exact.fabric[exact.fair.idxmax()] if len(exact) else "none"
    return pd.Series(
        dict(
            scale_few=1 + own.iloc[0],
            scale_many=1 + own.iloc[-1],
            fair_free=exact.fair[exact.fabric != shared].max(),
            fair_most=exact.fair.max(),
            fair_where=where,
            bound_ms=1e3 * most.bound_s.max(),
            exact_ms=1e3 * exact.exact_s.max(),
        )
    )
