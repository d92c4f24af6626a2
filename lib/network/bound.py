"""What no placement of so many slots can do better: lower bounds on the busiest device's load."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

CLOSE = 1e-4  # of the mean: how far below the programme's own answer the bound may stay
Test = Callable[[np.ndarray, int, int, float], bool]


def busiest(load: np.ndarray, devices: int, slots: int, *, equal: bool = True) -> float:
    """A lower bound on the load of the busiest device, in the unit of load [experts], of every
    placement of the experts in `slots` slots on each of `devices` devices.

    It is the least T at which a linear programme still has a point: z[e, r] is the share in which
    expert e has r copies of size load/r ≤ T; Σ_r z = 1, Σ r z ≤ all slots, and for every j < slots
    at most j copies above T/(j + 1) stand on one device, so Σ r z over those is at most j times
    the devices. T is at least the mean. With equal=False copies may share their expert's load in
    any way, even anew for every batch; what holds then is the mean, and that an expert needs at
    least load/T devices: Σ ⌈load/T⌉ ≤ all slots.

    Refused: fewer slots than experts, loads that are negative or not finite.
    """
    load = np.asarray(load, dtype=float)
    if load.ndim != 1 or not np.isfinite(load).all() or (load < 0).any():
        raise ValueError(f"bound: load of shape {load.shape}: must be [experts], finite and ≥ 0")
    if devices < 1 or devices * slots < len(load):
        raise ValueError(
            f"bound: {devices} devices × {slots} slots: must hold {len(load)} experts at least"
        )
    mean = load.sum() / devices
    if not mean:
        return 0.0
    share = load / mean
    low = _least(_enough, share, devices, slots, 1.0)
    return mean * (_least(_fits, share, devices, slots, low) if equal else low)


def _least(fits: Test, share: np.ndarray, devices: int, slots: int, low: float) -> float:
    """From below, the least T from `low` on at which the test holds; it holds for the largest."""
    high = max(low, share.max())
    if fits(share, devices, slots, low):
        return low
    while high - low > CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(share, devices, slots, middle) else (middle, high)
    return low


def _enough(share: np.ndarray, devices: int, slots: int, most: float) -> bool:
    needed = np.maximum(np.ceil(share / most - 1e-9), 1)
    return bool(needed.max() <= devices and needed.sum() <= devices * slots)


def _fits(share: np.ndarray, devices: int, slots: int, most: float) -> bool:
    """Whether the linear programme has a point at T = most, loads in means of a device.

    An expert of at most T/slots counts in none of its rows but that of the slots: one copy.
    """
    if not _enough(share, devices, slots, most):
        return False
    hot = share[share > most / slots * (1 + 1e-9)]
    if not len(hot):
        return True
    spare = devices * slots - (len(share) - len(hot))
    least = np.maximum(np.ceil(hot / most - 1e-9), 1).astype(int)
    largest = np.minimum(np.ceil(slots * hot / most), spare).astype(int)
    number = np.maximum(largest, least) - least + 1
    expert = np.repeat(np.arange(len(hot)), number)
    copies = np.concatenate([first + np.arange(n) for first, n in zip(least, number, strict=True)])
    size = hot[expert] / copies
    steps = np.arange(1, slots)
    large = size > most / (steps[:, None] + 1) * (1 + 1e-9)
    rows = sparse.csr_array(np.vstack([np.where(large, copies, 0), copies]).astype(float))
    each = sparse.csr_array((np.ones(len(expert)), (expert, np.arange(len(expert)))))
    found = linprog(
        np.zeros(len(expert)),
        A_ub=rows,
        b_ub=[*(steps * devices), spare],
        A_eq=each,
        b_eq=np.ones(len(hot)),
        bounds=(0, 1),
        method="highs",
    )
    return found.status != 2  # 2: proved to have none; in doubt the bound stays low
