"""Placements: which device holds each expert.

Without copies: an array [experts] of device numbers, the same number of experts on each device.
With copies of busy experts: an array [devices, slots] of expert numbers, what each device holds; a
copy serves an equal share of its expert.
"""

from __future__ import annotations

import numba
import numpy as np


def contiguous(experts: int, devices: int) -> np.ndarray:
    """Experts in order of their number: the first E/D on device 0, and so on.  E must be a multiple
    of D.
    """
    if devices < 1 or experts < 1 or experts % devices:
        raise ValueError(
            f"placement: experts = {experts}, devices = {devices}: "
            "experts must be a multiple of devices"
        )
    return np.arange(experts) // (experts // devices)


def random(experts: int, devices: int, rng: np.random.Generator) -> np.ndarray:
    """A random balanced placement: labels of experts carry no meaning across layers and seeds."""
    return rng.permutation(contiguous(experts, devices))


def packed(load: np.ndarray, devices: int) -> np.ndarray:
    """Greedy packing by loads [experts]: from the busiest expert down, each to the least loaded
    device with room.

    [experts] devices.  Graham's longest processing time first (SIAM J. Appl. Math. 17, 1969), with
    equal numbers on the devices. Refused: loads that are negative or not finite, experts that do
    not divide among the devices.
    """
    load = _checked("packed", load)
    room = np.bincount(contiguous(len(load), devices))
    return _filled(load, np.argsort(-load, kind="stable"), room)


@numba.njit(cache=True, nogil=True)
def _filled(load, order, room):
    """[experts] devices: in this order, each to the least loaded device with room."""
    total, home = np.zeros(len(room)), np.empty(len(load), np.int64)
    for expert in order:
        best = -1
        for device in range(len(room)):
            if room[device] > 0 and (best < 0 or total[device] < total[best]):
                best = device
        home[expert] = best
        total[best] += load[expert]
        room[best] -= 1
    return home


def replicated(
    load: np.ndarray, devices: int, redundant: int, *, groups: int = 1, nodes: int = 1
) -> np.ndarray:
    """Copies of the busiest experts, then packing: [devices, (experts + redundant)/devices] expert
    numbers.

    DeepSeek's EPLB (github.com/deepseek-ai/EPLB; DeepSeek-V3, arXiv 2412.19437, section 3.4).  Each
    of the `redundant` slots goes to the expert with the most load per copy; the copies are packed
    as in `packed`.  Flat with one node; hierarchical: `groups` of consecutive experts are packed
    whole onto the nodes first, and each node copies and packs its own, so that routing limited to
    groups stays on few nodes. Refused: numbers that do not divide (experts by groups, groups and
    devices by nodes, slots by devices), bad loads.
    """
    load = _checked("replicated", load)
    experts, slots = len(load), len(load) + redundant
    numbers = (
        f"experts = {experts}, redundant = {redundant}, devices = {devices}, groups = {groups}, "
        f"nodes = {nodes}"
    )
    if min(devices, groups, nodes) < 1 or redundant < 0:
        raise ValueError(f"placement.replicated: {numbers}: must be ≥ 1, redundant ≥ 0")
    if experts % groups or groups % nodes or devices % nodes or slots % devices:
        raise ValueError(
            f"placement.replicated: {numbers}: must divide: experts by groups, groups and devices "
            "by nodes, experts + redundant by devices"
        )
    node = np.repeat(packed(load.reshape(groups, -1).sum(1), nodes), experts // groups)
    return np.concatenate(
        [
            _copied(load, np.flatnonzero(node == n), slots // nodes, devices // nodes)
            for n in range(nodes)
        ]
    )


def _copied(load: np.ndarray, own: np.ndarray, slots: int, devices: int) -> np.ndarray:
    """[devices, slots/devices] the experts `own` in `slots` copies, packed."""
    held, copies = list(range(len(own))), np.ones(len(own), int)
    while len(held) < slots:
        held.append(int(np.argmax(load[own] / copies)))
        copies[held[-1]] += 1
    home = packed((load[own] / copies)[held], devices)
    return own[held][np.argsort(home, kind="stable")].reshape(devices, -1)


def share(placement: np.ndarray, experts: int, devices: int) -> np.ndarray:
    """[experts, devices] the share of each expert's load that each device serves; rows sum to 1.

    Refused: a placement for other numbers, one that leaves an expert out.
    """
    placement = np.asarray(placement)
    expert, device = np.arange(experts), placement
    if placement.ndim == 2:
        expert, device = (
            placement.reshape(-1),
            np.repeat(np.arange(len(placement)), placement.shape[1]),
        )
    if len(expert) != len(device) or expert.max() >= experts or device.max() >= devices:
        raise ValueError(
            f"placement of shape {placement.shape}: must be for {experts} experts and "
            f"{devices} devices"
        )
    holds = np.zeros((experts, devices))
    np.add.at(holds, (expert, device), 1.0)
    if not holds.any(1).all():
        missing = np.flatnonzero(~holds.any(1))[0]
        raise ValueError(f"placement: expert {missing}: must stand on at least one device")
    return holds / holds.sum(1, keepdims=True)


def device_load(load: np.ndarray, placement: np.ndarray, devices: int) -> np.ndarray:
    """[..., devices] assignments arriving at each device, from loads [..., experts]; copies share
    equally.
    """
    return load @ share(placement, np.shape(load)[-1], devices)


def targets(expert_index: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """[tokens, k] the device that each selection goes to: of an expert's copies, token t takes the
    t-th in turn.
    """
    placement = np.asarray(placement)
    if placement.ndim == 1:
        return placement[expert_index]
    order = np.argsort(placement, axis=None, kind="stable")
    copies = np.bincount(placement.reshape(-1), minlength=int(expert_index.max()) + 1)
    if not copies[expert_index].all():
        missing = expert_index[copies[expert_index] == 0][0]
        raise ValueError(f"placement: expert {missing}: must stand on a device")
    turn = np.arange(len(expert_index))[:, None] % copies[expert_index]
    return order[(np.cumsum(copies) - copies)[expert_index] + turn] // placement.shape[1]


def _checked(where: str, load: np.ndarray) -> np.ndarray:
    load = np.asarray(load, dtype=float)
    if load.ndim != 1 or not len(load) or not np.isfinite(load).all() or (load < 0).any():
        raise ValueError(
            f"placement.{where}: load of shape {load.shape}: must be [experts], finite and ≥ 0"
        )
    return load
