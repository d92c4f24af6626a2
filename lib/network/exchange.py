"""What one exchange costs: routes drawn at levels, or recorded, sent over fabrics (simulated).

Draws are paired: the same seed gives the same random numbers at every level and on every fabric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from lib import stats
from lib.network import fluid, placement, synthetic, threads, traffic
from lib.network.links import Fabric

Fabrics = Mapping[str, Fabric]  # by name
AT_ONCE = 1 << 20  # selections that are counted together


@dataclass(frozen=True)
class Study:
    """Synthetic routes of one exchange: a batch of `tokens` over all devices, experts placed in
    order; `seeds` draws, numbered from `seed`.  family: shape of the imbalance, one of
    synthetic.FAMILIES.
    """

    experts: int
    k: int
    tokens: int
    devices: int
    bytes_per_token: float
    seeds: int
    seed: int = 0
    family: str = "power"

    @property
    def highest_level(self) -> float:
        """The level that its family approaches but does not reach."""
        return synthetic.highest_level(self.experts, self.k, self.family)

    @property
    def bytes_sent(self) -> float:
        """What one dispatch sends in all, the copies that stay home included."""
        return self.tokens * self.k * self.bytes_per_token


def check(study: Study, levels: Iterable[float]) -> None:
    """Refuse levels out of the family's range, and experts that do not divide among the devices."""
    placement.contiguous(study.experts, study.devices)
    for level in levels:
        synthetic.inclusion(study.experts, study.k, level, study.family)


def settings(study: Study) -> pd.Series:
    """What a reader is told of a study: experts, k, devices and highest_level."""
    known = dict(experts=study.experts, k=study.k, devices=study.devices)
    return pd.Series(known | dict(highest_level=study.highest_level), dtype=object)


def matrices(study: Study, level: float, permute: bool = True) -> np.ndarray:
    """Dispatch matrices [seeds, devices, devices] in bytes of synthetic routes at a level; drawn
    once, not to be written to.

    permute: expert labels are drawn anew per seed, as they would be per layer; without it the hot
    experts lie side by side on the first devices, the worst case.
    """
    family = study.family if level else synthetic.FAMILIES[0]  # even routes are of no family
    return _matrices(replace(study, family=family), level, permute)


@lru_cache(maxsize=32)
def _matrices(study: Study, level: float, permute: bool) -> np.ndarray:
    chances = synthetic.inclusion(study.experts, study.k, level, study.family)
    home = placement.contiguous(study.experts, study.devices)

    def drawn(number: int) -> np.ndarray:
        rng = np.random.default_rng([study.seed, number])
        labels = rng.permutation(study.experts) if permute else np.arange(study.experts)
        index = labels[synthetic.sample(chances, study.k, study.tokens, rng)]
        return traffic.matrix(index, home, study.devices, study.bytes_per_token)

    found = np.stack(threads.each(drawn, range(study.seeds)))
    found.flags.writeable = False
    return found


def at_levels(study: Study, levels: Iterable[float], fabrics: Fabrics) -> pd.DataFrame:
    """An exchange (dispatch and combine, by the bound) at every level: a row per fabric, level and
    seed with its time `us`, that of perfectly even routes, `even_us`, the bytes that were sent, and
    received_mb, what the busiest device receives of the dispatch (traffic.received).
    """
    even = traffic.even(study.tokens, study.k, study.devices, study.bytes_per_token)
    found = []
    for name, net in fabrics.items():
        for level in levels:
            sent = matrices(study, level)
            row = dict(
                fabric=name,
                level=level,
                seed=np.arange(study.seeds),
                us=1e6 * fluid.exchange_s(sent, net),
                even_us=1e6 * float(fluid.exchange_s(even, net)),
                bytes_sent=sent.sum((1, 2)),
                received_mb=1e-6 * traffic.received(sent),
            )
            found.append(pd.DataFrame(row))
    return pd.concat(found, ignore_index=True)


def all_sent(rows: pd.DataFrame, study: Study) -> bool:
    """Of at_levels, whether every dispatch sent each of the study's selections once."""
    return bool(np.allclose(rows.bytes_sent, study.bytes_sent))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Of at_levels, per fabric and level from the lowest: the mean time with its 95 % interval over
    seeds, its 50th, 95th and 99th percentile (the last with its interval) in µs, and how they
    compare.

    slowdown: over the lowest level, seed by seed, with its interval; over_even: mean over the time
    of even routes; received_mb: what the busiest device receives, the mean over seeds.
    """
    found = []
    for name, own in rows.groupby("fabric", sort=False):
        times = own.pivot(index="seed", columns="level", values="us")
        lowest = times[own.level.min()].to_numpy()
        for level in times:
            t, even_us = times[level].to_numpy(), own.even_us.iloc[0]
            ends = dict(
                mean_us=stats.mean_interval(t),
                p99_us=stats.quantile_interval(t, 0.99),
                slowdown=stats.mean_interval(t / lowest - 1),
            )
            row = dict(fabric=name, level=level, mean_us=t.mean())
            row |= {f"p{q}_us": np.quantile(t, q / 100) for q in (50, 95, 99)}
            row |= dict(slowdown=(t / lowest - 1).mean(), even_us=even_us)
            row |= dict(received_mb=own.received_mb[own.level == level].mean())
            row |= {f"{c}_{end}": edge for c, pair in ends.items() for end, edge in _ends(pair)}
            found.append(row)
    table = pd.DataFrame(found)
    return table.assign(
        over_even=table.mean_us / table.even_us, p99_over_mean=table.p99_us / table.mean_us
    )


def told(table: pd.DataFrame, fabric: str) -> pd.Series:
    """Of summary, on one fabric: base_over_even, by how much the lowest level is slower than even
    routes; slowdown_top with its interval, and p99_over_mean_top, of the highest.
    """
    own = table[table.fabric == fabric].sort_values("level")
    names = ["slowdown", "slowdown_low", "slowdown_high", "p99_over_mean"]
    top = own.iloc[-1][names].rename(
        dict(
            slowdown="slowdown_top",
            slowdown_low="slowdown_top_low",
            slowdown_high="slowdown_top_high",
            p99_over_mean="p99_over_mean_top",
        )
    )
    return pd.concat([pd.Series(dict(base_over_even=own.over_even.iloc[0] - 1)), top])


def _ends(interval: tuple[float, float]) -> Iterable[tuple[str, float]]:
    return zip(("low", "high"), interval, strict=True)


def batch_matrices(
    index: np.ndarray, batches: np.ndarray, homes: np.ndarray, devices: int, bytes_per_token: float
) -> np.ndarray:
    """Dispatch matrices [batches, devices, devices] of recorded routes [all tokens, k] for batches
    [batches, tokens] of token numbers, each under a placement of its own, homes [batches, experts].
    """
    number, tokens = batches.shape
    source, found = np.arange(tokens) * devices // tokens, []
    for part in np.array_split(np.arange(number), -(-batches.size * index.shape[1] // AT_ONCE)):
        chosen = index[batches[part]].reshape(len(part), -1)
        target = np.take_along_axis(homes[part], chosen, 1).reshape(len(part), tokens, -1)
        pair = source[:, None] * devices + target
        key = np.arange(len(part))[:, None, None] * devices**2 + pair
        counts = np.bincount(key.reshape(-1), minlength=len(part) * devices**2)
        found.append(counts.reshape(len(part), devices, devices) * float(bytes_per_token))
    return np.concatenate(found)


def recorded(
    index: np.ndarray,
    batches: np.ndarray,
    experts: int,
    devices: int,
    fabrics: Fabrics,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """An exchange of recorded routes [layers, all tokens, k]: a row per layer, fabric and batch
    with `over_even`, its time over that of perfectly even routes.

    batches: [batches, tokens] of token numbers; each meets its own random balanced placement.
    """
    homes = np.stack(
        [
            placement.random(experts, devices, np.random.default_rng([seed, i]))
            for i in range(len(batches))
        ]
    )
    even = traffic.even(batches.shape[1], index.shape[2], devices, 1.0)
    found = []
    for layer, routes in enumerate(index):
        sent = batch_matrices(routes, batches, homes, devices, 1.0)
        for name, net in fabrics.items():
            ratio = fluid.exchange_s(sent, net) / fluid.exchange_s(even, net)
            row = dict(layer=layer + 1, fabric=name, batch=np.arange(len(batches)), over_even=ratio)
            found.append(pd.DataFrame(row))
    return pd.concat(found, ignore_index=True)


def traffics(cases: Mapping[str, pd.DataFrame], fabric: str) -> pd.DataFrame:
    """Of recorded, by kind of traffic, on one fabric: columns arm, traffic, over_even with the band
    that holds nine in ten layers and batches, and over_even_p99; even routes, which take the time
    itself, in the first row.
    """
    found = [dict(arm="", traffic="even", over_even=1.0)]
    for name, rows in cases.items():
        for arm, own in rows[rows.fabric == fabric].groupby("arm", sort=False).over_even:
            band = dict(over_even_low=own.quantile(0.05), over_even_high=own.quantile(0.95))
            row = dict(
                arm=arm, traffic=name, over_even=own.mean(), over_even_p99=own.quantile(0.99)
            )
            found.append(row | band)
    return pd.DataFrame(found)


def prompts(table: pd.DataFrame, traffic: str) -> pd.DataFrame:
    """Of traffics, what one kind takes over even routes: columns arm, prompt (mean), prompt_p99."""
    own = table[table.traffic == traffic]
    names = dict(over_even="prompt", over_even_p99="prompt_p99")
    return own[["arm", *names]].rename(columns=names)


def by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Of recorded, per arm, fabric and layer: the mean of over_even and the band, over_even_low to
    over_even_high, that holds nine in ten batches and placements.
    """
    groups = rows.groupby(["arm", "fabric", "layer"], sort=False).over_even
    band = dict(over_even_low=groups.quantile(0.05), over_even_high=groups.quantile(0.95))
    return pd.DataFrame(dict(over_even=groups.mean()) | band).reset_index()


def spread(rows: pd.DataFrame, fabric: str, statistics: Sequence[str]) -> pd.DataFrame:
    """Of recorded, on one fabric per arm: the "mean" and percentiles ("p50") of over_even over
    layers and batches (columns arm, statistic, slowdown_trace).
    """
    found = []
    for arm, own in rows[rows.fabric == fabric].groupby("arm", sort=False).over_even:
        for name in statistics:
            value = own.mean() if name == "mean" else own.quantile(int(name[1:]) / 100)
            found.append(dict(arm=arm, statistic=name, slowdown_trace=value))
    return pd.DataFrame(found)


def largest_ratio(table: pd.DataFrame, fabric: str, arm: str, other: str) -> float:
    """Of by_layer, on one fabric: the largest ratio over layers of over_even with `arm` to that
    with `other`; NaN where a run has not both.
    """
    pair = table[table.fabric == fabric].pivot(index="layer", columns="arm", values="over_even")
    pair = pair.reindex(columns=[arm, other])
    return float((pair[arm] / pair[other]).max())
