"""Placements better than the greedy one: a local search over what every slot holds.

From the greedy placement (`placement.replicated`) and from others whose copies are shared out by
other rules, single steps off the busiest device: two slots trade experts, or a slot that holds a
copy takes a copy of a busy expert instead.
"""

from __future__ import annotations

import numba
import numpy as np

from lib.network import placement

TASTES = (0.0, -0.25, -0.5)  # after r copies, the next goes to the largest load / (r + taste)
NEAR = 1.001  # busiest device over the mean that is left alone
LEAST = 1e-9  # gain of a step over the busiest device's part: below it, rounding goes in circles
_jit = numba.njit(cache=True, nogil=True)


def better(load: np.ndarray, devices: int, redundant: int) -> np.ndarray:
    """[devices, slots] what each device holds: never a busier busiest device than the greedy
    `placement.replicated` (flat) of the same arguments has; refused is what it refuses.

    The copies of an expert serve equal shares.  Starts: copies by load / (r + taste) after r copies
    (0: the greedy rule; below it small experts get their second copy earlier), packed from the
    busiest copy down.  Steps: the one that lowers Σ (device load / mean)¹² most, until none does or
    the busiest device is within a thousandth of the mean.
    """
    greedy = placement.replicated(load, devices, redundant)
    load = np.asarray(load, dtype=float)
    if not load.any():
        return greedy
    share = load * (devices / load.sum())
    best = min(
        greedy,
        _stepped(share, greedy.astype(np.int64), NEAR),
        key=lambda home: _held(share, home).max(),
    )
    for taste in TASTES[1:]:
        if _held(share, best).max() > NEAR:
            other = _stepped(share, _packed(share, devices, redundant, taste), NEAR)
            best = min(best, other, key=lambda home: _held(share, home).max())
    return best


def _held(load: np.ndarray, home: np.ndarray) -> np.ndarray:
    """[devices] load of each device of a placement [devices, slots]."""
    return (load / np.bincount(home.ravel(), minlength=len(load)))[home].sum(1)


def _packed(load: np.ndarray, devices: int, redundant: int, taste: float) -> np.ndarray:
    """[devices, slots]: copies by load / (r + taste), packed."""
    copies = np.ones(len(load), int)
    for _ in range(redundant):
        copies[np.argmax(load / (copies + taste))] += 1
    held = np.repeat(np.arange(len(load)), copies)
    home = placement.packed((load / copies)[held], devices)
    return held[np.argsort(home, kind="stable")].reshape(devices, -1)


@_jit
def _power(x):
    return x**3 * x**3 * x**3 * x**3


@_jit
def _traded(total, unit, slots, busy):
    """(gain, slot, device, slot) of the best trade of a slot of device `busy` with another's."""
    best, own, other, its = LEAST * _power(total[busy]), -1, -1, -1
    for i in range(slots.shape[1]):
        for d in range(slots.shape[0]):
            for j in range(slots.shape[1] if d != busy else 0):
                moved = unit[slots[busy, i]] - unit[slots[d, j]]
                if moved <= 0 or total[d] + moved >= total[busy]:
                    continue
                gain = _power(total[busy]) + _power(total[d])
                gain -= _power(total[busy] - moved) + _power(total[d] + moved)
                if gain > best:
                    best, own, other, its = gain, i, d, j
    return best, own, other, its


@_jit
def _recopied(total, load, copies, counts, slots, busy):
    """(gain, slot of the busy device, device, slot) of the best copy of one of its experts made
    where another expert has a copy to spare; counts [experts, devices] copies.
    """
    best, own, other, its = LEAST * _power(total[busy]), -1, -1, -1
    for i in range(slots.shape[1]):
        e = slots[busy, i]
        less = load[e] / (copies[e] + 1) - load[e] / copies[e]
        for d in range(slots.shape[0]):
            for j in range(slots.shape[1]):
                f = slots[d, j]
                if f == e or copies[f] == 1:
                    continue
                more = load[f] / (copies[f] - 1) - load[f] / copies[f]
                gain = 0.0
                for at in range(slots.shape[0]):
                    if at != d and counts[e, at] == 0 and counts[f, at] == 0:
                        continue
                    new = total[at] + counts[e, at] * less + counts[f, at] * more
                    if at == d:
                        new += load[e] / (copies[e] + 1) - load[f] / (copies[f] - 1)
                    gain += _power(total[at]) - _power(new)
                if gain > best:
                    best, own, other, its = gain, i, d, j
    return best, own, other, its


@_jit
def _stepped(load, slots, near):
    """The placement `slots` [devices, slots] after all steps that help; loads of mean 1 a
    device.
    """
    devices, width = slots.shape
    counts = np.zeros((len(load), devices))
    for d in range(devices):
        for j in range(width):
            counts[slots[d, j], d] += 1
    while True:
        copies = counts.sum(1)
        unit = load / copies
        total = np.zeros(devices)
        for d in range(devices):
            for j in range(width):
                total[d] += unit[slots[d, j]]
        busy = int(np.argmax(total))
        if total[busy] <= near:
            return slots
        swap = _traded(total, unit, slots, busy)
        copy = _recopied(total, load, copies, counts, slots, busy)
        if swap[1] < 0 and copy[1] < 0:
            return slots
        _, i, d, j = swap if swap[0] >= copy[0] else copy
        e, f = slots[busy, i], slots[d, j]
        if swap[0] >= copy[0]:
            slots[busy, i] = f
            counts[f, busy] += 1
            counts[e, busy] -= 1
        slots[d, j] = e
        counts[e, d] += 1
        counts[f, d] -= 1
