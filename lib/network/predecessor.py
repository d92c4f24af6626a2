"""The table of an earlier simulation, one run a level, beside what single runs of ours can show.

Its number of tokens and experts is unknown, so that only ratios to its lowest level are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import stats
from lib.network import exchange, fluid, placement, synthetic, threads, traffic
from lib.network.links import Fabric

FILE = Path(__file__).parents[2] / "data/published/predecessor.csv"
# by name: the family of routes, and whether expert labels are permuted
FAMILIES = {
    "power": ("power", True),
    "lognormal": ("lognormal", True),
    "one_hot": ("one_hot", True),
    "sorted": ("power", False),
}
# parameters that say where, or are of the layers and placements alone
ELSEWHERE = (
    *("run_dir", "device", "trace", "model", "revision", "dtype", "remote_code"),
    *("counts", "counts_experts", "counts_top_k"),
)
Weights = Callable[[float, int, np.random.Generator], np.ndarray]
# what "level" may have meant without being a Gini: weights of the experts, drawn anew per run
READINGS: dict[str, Weights] = {
    "log-normal with σ = level": lambda x, n, rng: np.exp(x * rng.standard_normal(n)),
    "Zipf with exponent = level": lambda x, n, rng: np.arange(1.0, n + 1) ** -x,
    "mixed with an uneven draw": lambda x, n, rng: (1 - x) / n + x * rng.dirichlet(np.ones(n)),
    "the level's share on a fifth": lambda x, n, rng: _more_on(n // 5, x, n),
    "all that the level is on one expert": lambda x, n, rng: _more_on(1, x, n),
    "even within 1 ± the level": lambda x, n, rng: rng.uniform(1 - x, 1 + x, n),
    "exponential with rate = level": lambda x, n, rng: np.exp(-x * np.arange(n)),
}
MOST_RUNS = 200
# What it claimed beside its table: slowdowns at its highest level, and what balance takes off there
CLAIMED = pd.Series(dict(claimed_least=0.58, claimed_most=1.04, claimed_gain=0.40))
MARGIN = 0.05  # within which a claim of "about" is held to be met


def table() -> pd.DataFrame:
    """Its table: level, max_time_us, and the slowdown over its lowest level."""
    known = pd.read_csv(FILE)
    return known.assign(slowdown=known.max_time_us / known.max_time_us.iloc[0] - 1)


def _times(study: exchange.Study, level: float, net: Fabric, permute: bool) -> np.ndarray:
    return fluid.exchange_s(exchange.matrices(study, level, permute), net)


def results(levels: pd.DataFrame, parameters: Mapping[str, object]) -> str:
    """Its result file, simulation_results.json, of exchange.summary: the parameters that the times
    depend on, and a row per fabric and level.
    """
    known = {name: value for name, value in parameters.items() if name not in ELSEWHERE}
    rows = json.loads(levels.to_json(orient="records", double_precision=12))
    return json.dumps({"parameters": known, "levels": rows}, indent=1)


def _more_on(hot: int, share: float, experts: int) -> np.ndarray:
    """An even load of which `share` goes to the first `hot` experts instead, one at least."""
    more = np.arange(experts) < max(hot, 1)
    return (1 - share) / experts + share * more / more.sum()


def families(study: exchange.Study, net: Fabric, known: pd.DataFrame) -> pd.DataFrame:
    """Slowdowns that two unpaired single runs show, per family of routes and level of the table
    that the family reaches: mean and the band, slowdown_low to slowdown_high, of nine in ten, the
    predecessor's slowdown, and whether it lies `inside` the central 95 %.
    """
    rng, found = np.random.default_rng(study.seed), []
    for name, (family, permute) in FAMILIES.items():
        own = replace(study, family=family)
        even = _times(own, 0.0, net, permute)
        for row in known[known.level < own.highest_level].itertuples():
            s = rng.permutation(_times(own, row.level, net, permute)) / even - 1
            found.append(_band(name, row.level, s, row.slowdown))
    return pd.DataFrame(found)


def _band(name: str, level: float, slowdowns: np.ndarray, seen: float) -> dict[str, object]:
    """Slowdowns of single runs beside the one that was `seen`; see `families`."""
    low, least, most, high = np.quantile(slowdowns, (0.025, 0.05, 0.95, 0.975))
    band = dict(slowdown_low=least, slowdown_high=most, predecessor=seen)
    inside = bool(low <= seen <= high)
    return dict(family=name, level=level, slowdown=slowdowns.mean(), **band, inside=inside)


def readings(study: exchange.Study, net: Fabric, known: pd.DataFrame) -> pd.DataFrame:
    """The same of READINGS, whose levels are no Gini: rows as in `families`, and reversal, the
    share of pairs of single runs in which the table's second level is slower than its third.  Of
    each at most MOST_RUNS runs.
    """
    study = replace(study, seeds=min(study.seeds, MOST_RUNS))
    rng, found = np.random.default_rng(study.seed), []
    for number, (name, weights) in enumerate(READINGS.items()):
        runs = [rng.permutation(_read(study, level, weights, net, number)) for level in known.level]
        reversal = float((runs[1][:, None] > runs[2]).mean())
        own = [
            _band(name, row.level, run / runs[0] - 1, row.slowdown)
            for row, run in zip(known.itertuples(), runs, strict=True)
        ]
        found += [row | dict(reversal=reversal) for row in own]
    return pd.DataFrame(found)


def _read(
    study: exchange.Study, level: float, weights: Weights, net: Fabric, number: int
) -> np.ndarray:
    """Times [seeds] of an exchange whose experts have these weights at a level, labels permuted."""
    home = placement.contiguous(study.experts, study.devices)

    def drawn(run: int) -> np.ndarray:
        rng = np.random.default_rng([study.seed, number, run])
        chances = synthetic.capped(weights(level, study.experts, rng), study.k)
        labels = rng.permutation(study.experts)
        index = labels[synthetic.sample(chances, study.k, study.tokens, rng)]
        return traffic.matrix(index, home, study.devices, study.bytes_per_token)

    return fluid.exchange_s(np.stack(threads.each(drawn, range(study.seeds))), net)


def fits(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Of families, per family: its slowdown at the highest level that it reaches, beside the
    predecessor's there; how many of the table's levels above its lowest lie `inside`; and whether
    all do (`able`), so that single runs of it can show the whole table.
    """
    above = rows[rows.level > known.level.min()]
    groups = above.groupby("family", sort=False)
    last = groups[["level", "slowdown", "slowdown_low", "slowdown_high", "predecessor"]].last()
    inside, levels = groups.inside.sum(), int((known.level > known.level.min()).sum())
    more = dict(reversal=groups.reversal.last()) if "reversal" in rows else {}
    return last.assign(inside=inside, able=inside == levels, **more).reset_index()


def able(fitting: pd.DataFrame) -> str:
    """Of fits, the families that can show the whole table, in words."""
    return ", ".join(fitting.family[fitting.able]) or "none of those tried"


def claims(study: exchange.Study, net: Fabric, known: pd.DataFrame) -> pd.Series:
    """What its claims are judged by, of power-law routes at its levels, paired by seed; with 95 %
    intervals, name_low and name_high, where they are means over seeds.

    p99_growth_least, mean_growth_least: least growth from a level to the next; reversal: share of
    pairs of single runs in which its second level is slower than its third; slowdown_claimed: at
    the highest level; gain_balanced: what balance takes off there.  NaN where the study does not
    reach its highest level.
    """
    ends = "p99_growth_least", "mean_growth_least", "slowdown_claimed", "gain_balanced"
    names = [*(f"{name}{end}" for name in ends for end in ("", "_low", "_high")), "reversal"]
    own = replace(study, family="power")
    if known.level.max() >= own.highest_level:
        return pd.Series(np.nan, index=names)
    runs = np.stack([_times(own, level, net, True) for level in known.level], 1)
    even, second, third, top = runs[:, 0], runs[:, 1], runs[:, 2], runs[:, -1]
    found = dict(reversal=float((second[:, None] > third).mean()))
    for name, least in {ends[0]: _p99_growth, ends[1]: _mean_growth}.items():
        found |= _with(name, least(runs), stats.bootstrap_interval(runs, least))
    for name, sample in {ends[2]: top / even - 1, ends[3]: 1 - even / top}.items():
        found |= _with(name, sample.mean(), stats.mean_interval(sample))
    return pd.Series(found, index=names)


def _with(name: str, value: float, interval: tuple[float, float] | None) -> dict[str, float]:
    low, high = interval or (np.nan, np.nan)
    return {name: float(value), f"{name}_low": low, f"{name}_high": high}


def _growth(statistic: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
    """The least growth of a statistic [levels] of runs [seeds, levels] from a level to the next."""
    return lambda runs: _least(statistic(runs))


def _least(levels: np.ndarray) -> float:
    return float((levels[1:] / levels[:-1] - 1).min())


_p99_growth = _growth(lambda runs: np.quantile(runs, 0.99, axis=0))
_mean_growth = _growth(lambda runs: runs.mean(0))
