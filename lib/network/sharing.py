"""How the copies of an expert share a batch: equally, or by what each batch has.

A share is an array [experts, devices] with rows that sum to 1; the equal one, placement.share, also
says which devices hold an expert.  What a batch needs to be solved costs time of its own, in every
layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numba
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import linprog

from lib.network import placement

SWEEPS = 4  # rounds of water-filling
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (load [experts], equal share) → share


def solved(load: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """The shares with the least busy busiest device, by linear programming (HiGHS): min T with
    Σ_d y[e, d] = load[e] and Σ_e y[e, d] ≤ T over the devices d that hold e.

    Split in whole tokens the busiest device is at most one token an expert above it.
    """
    load = np.asarray(load, dtype=float)
    expert, device = np.nonzero(equal)
    number = len(expert)
    ones, at = np.ones(number), np.arange(number)
    each = sparse.csr_array((ones, (expert, at)), (len(load), number + 1))
    most = sparse.csr_array((ones, (device, at)), (equal.shape[1], number + 1)).tolil()
    most[:, number] = -1.0
    goal = np.zeros(number + 1)
    goal[number] = 1.0
    found = linprog(
        goal,
        A_ub=most.tocsr(),
        b_ub=np.zeros(equal.shape[1]),
        A_eq=each,
        b_eq=load,
        bounds=(0, None),
        method="highs",
    )
    if found.status:
        raise ValueError(f"sharing.solved: {found.message}")
    share = equal.copy()
    share[expert, device] = np.maximum(found.x[:number], 0) / np.maximum(load, 1e-300)[expert]
    return np.where((load > 0)[:, None], share, equal)


def filled(load: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """The shares of water-filling, from equal ones: from the busiest expert down, each is taken off
    its devices and raises the lowest of them to one level; `SWEEPS` rounds.
    """
    load = np.asarray(load, dtype=float)
    served = _filled(load, load[:, None] * equal, equal > 0, np.argsort(-load), SWEEPS)
    share = served / np.maximum(load, 1e-300)[:, None]
    return np.where((load > 0)[:, None], share, equal)


@numba.njit(cache=True, nogil=True)
def _filled(load, served, holds, order, sweeps):
    """[experts, devices] load served, by water-filling."""
    total = served.sum(0)
    for _ in range(sweeps):
        for e in order:
            own = np.flatnonzero(holds[e])
            total[own] -= served[e][own]
            levels = np.sort(total[own])
            left, level, wide = load[e], levels[0], 1
            while wide < len(levels) and left > (levels[wide] - level) * wide:
                left -= (levels[wide] - level) * wide
                level, wide = levels[wide], wide + 1
            level += left / wide
            for d in own:
                served[e, d] = max(level - total[d], 0.0)
                total[d] += served[e, d]
    return served


RULES: dict[str, Rule] = {
    "equal": lambda load, equal: equal,
    "water-filling": filled,
    "linear programme": solved,
}


def rivals(
    homes: Mapping[str, np.ndarray],
    batches: Mapping[str, np.ndarray],
    layer_s: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> pd.DataFrame:
    """A row per placement [devices, slots], rule of sharing, text and batch: rho (busiest device
    over the mean), own_s (seconds that the rule took here, on this machine's processor) and layer_s
    (seconds of the layer, own_s not in it).

    batches: by text, counts [batches, devices, experts]: how often the tokens of each device chose
    each expert. layer_s: time [batches] of such counts and shares [batches, experts, devices].
    """
    found = []
    for name, home in homes.items():
        equal = placement.share(home, next(iter(batches.values())).shape[-1], len(home))
        for rule, shared in RULES.items():
            for where, counts in batches.items():
                loads = counts.sum(1)
                shared(loads[0], equal)  # compiled before the clock starts
                shares, seconds = [], []
                for load in loads:
                    start = time.perf_counter()
                    shares.append(shared(load, equal))
                    seconds.append(time.perf_counter() - start)
                held = (loads[:, :, None] * np.stack(shares)).sum(1)
                own = [0.0] * len(seconds) if rule == "equal" else seconds  # known beforehand
                values = dict(rho=held.max(-1) / held.mean(-1), own_s=own)
                values["layer_s"] = layer_s(counts, np.stack(shares))
                about = dict(placement=name, rule=rule, text=where)
                found.append(pd.DataFrame(about | values))
    return pd.concat(found, ignore_index=True)


def summary(rows: pd.DataFrame, even_s: float) -> pd.DataFrame:
    """Of `rivals`, means per placement, rule and text: rho, own_us, slowdown over even routes, and
    slowdown_own with the rule's own time in it.
    """
    keys = ["placement", "rule", "text"]
    means = rows.groupby(keys, sort=False)[["rho", "own_s", "layer_s"]].mean().reset_index()
    means["slowdown"] = means.layer_s / even_s - 1
    means["slowdown_own"] = (means.layer_s + means.own_s) / even_s - 1
    means["own_us"] = 1e6 * means.own_s
    return means[[*keys, "rho", "own_us", "slowdown", "slowdown_own"]]
