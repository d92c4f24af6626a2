"""Where the tail of a layer's time comes from: percentiles over the mean, by what varies.

A fluid makespan has no tail of its own.  Batches and placements vary in simulated layers of
recorded routes; what a machine adds was measured, and arrives here as tables of times.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.network import cost, layers, placement, step, traffic
from lib.network.links import Fabric

OVER_MEAN = ["p50_over_mean", "p95_over_mean", "p99_over_mean"]


def routed(
    index: np.ndarray,
    cases: Iterable[tuple[np.ndarray, np.ndarray]],
    shape: cost.Shape,
    devices: int,
) -> layers.Routes:
    """What recorded routes [all tokens, k] send and compute in bfloat16, [cases, …]: of each case
    (token numbers of a batch, placement).
    """
    sent, rows = [], []
    for batch, home in cases:
        sent.append(traffic.matrix(index[batch], home, devices, 2.0 * shape.hidden))
        rows.append(traffic.slots(index[batch], home, devices, shape.experts))
    return np.stack(sent), np.stack(rows)


def simulated(
    index: np.ndarray,
    shape: cost.Shape,
    net: Fabric,
    machine: step.Machine,
    batches: np.ndarray,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentiles over the mean per source and layer, of recorded routes [layers, all tokens, k].

    batches: [batches, tokens] of token numbers.  Sources: batch, over batches under one placement;
    placement, over as many random placements of one batch; both, each batch under its own.
    """
    rngs = [np.random.default_rng([seed, i]) for i in range(len(batches))]
    homes = [placement.random(shape.experts, net.devices, rng) for rng in rngs]
    cases = {
        "batch": [(batch, homes[0]) for batch in batches],
        "placement": [(batches[0], home) for home in homes],
        "both": list(zip(batches, homes, strict=True)),
    }
    found = []
    for layer, routes in enumerate(index):
        for source, pairs in cases.items():
            sent, rows = routed(routes, pairs, shape, net.devices)
            s = step.total_s(step.layer(sent, rows, shape, net, machine))
            over = np.quantile(s, (0.5, 0.95, 0.99)) / s.mean()
            row = dict(layer=layer + 1, source=source, mean_us=1e6 * s.mean())
            found.append(row | dict(zip(OVER_MEAN, over, strict=True)))
    return pd.DataFrame(found)


def sources(rows: pd.DataFrame) -> pd.DataFrame:
    """Of simulated, per arm and source, the mean over layers: columns source, kind, and the
    percentiles over the mean.
    """
    means = rows.groupby(["arm", "source"], sort=False)[OVER_MEAN].mean().reset_index()
    return means.assign(kind="simulated")


def table(*parts: pd.DataFrame) -> pd.DataFrame:
    """Tables of sources below each other: columns source, arm (of simulated ones), kind, and the
    percentiles over the mean.
    """
    columns = ["source", "arm", "kind", *OVER_MEAN]
    return pd.concat([part.reindex(columns=columns) for part in parts], ignore_index=True)


def longest(sources: pd.DataFrame) -> pd.Series:
    """Of table, the largest P99 over the mean of each source, as tail_<source>."""
    return sources.groupby("source").p99_over_mean.max().add_prefix("tail_")


def repetitions(times: pd.DataFrame) -> pd.DataFrame:
    """The same of repetitions of one and the same layer, measured (columns tokens, mean_us, p50_us,
    p95_us, p99_us of each configuration), at the tokens of a device with the largest P99: the mean
    over configurations.
    """
    over = {name: times[name.replace("_over_mean", "_us")] / times.mean_us for name in OVER_MEAN}
    found = pd.DataFrame(over).groupby(times.tokens).mean().nlargest(1, "p99_over_mean")
    return found.assign(source="repetition", kind="measured")


def starts(ratios: pd.Series) -> pd.DataFrame:
    """The same of even exchanges, measured: `ratios` of the slower rank's time to the faster's,
    over sizes.
    """
    over = dict(zip(OVER_MEAN, ratios.quantile([0.5, 0.95, 0.99]), strict=True))
    return pd.DataFrame([dict(source="start, slower rank over faster", kind="measured") | over])
