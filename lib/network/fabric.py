"""Fabrics: links with capacity and latency, and a route for every ordered pair of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Published one-direction rates in bytes per second; sources in data/published/rates.csv.
H100_NVLINK = 450e9
CX7_NIC = 50e9


@dataclass(frozen=True)
class Fabric:
    """A network of devices.

    capacity_bytes_per_s, latency_s: [links], per direction of use (a cable is two links).
    routes: (source, destination) → the links that a byte between them passes, in order; no entry for a device with
    itself, whose bytes stay home.  Refused: a capacity that is not positive, a latency below 0, an unknown link.
    """

    name: str
    devices: int
    capacity_bytes_per_s: np.ndarray
    latency_s: np.ndarray
    routes: Mapping[tuple[int, int], Sequence[int]]

    def __post_init__(self) -> None:
        links = len(self.capacity_bytes_per_s)
        if not (np.isfinite(self.capacity_bytes_per_s).all() and (self.capacity_bytes_per_s > 0).all()):
            raise ValueError(f"Fabric {self.name}: capacity_bytes_per_s: must be finite and > 0 on every link")
        if len(self.latency_s) != links or (self.latency_s < 0).any():
            raise ValueError(f"Fabric {self.name}: latency_s: must hold {links} numbers ≥ 0")
        for (i, j), route in self.routes.items():
            if not (0 <= i < self.devices and 0 <= j < self.devices) or any(not 0 <= link < links for link in route):
                raise ValueError(
                    f"Fabric {self.name}: route {i} → {j} = {list(route)}: must use known devices and links"
                )

    @cached_property
    def incidence(self) -> np.ndarray:
        """[devices², links] 1 where the pair's route uses the link; a row of zeros for pairs without a route."""
        matrix = np.zeros((self.devices**2, len(self.capacity_bytes_per_s)))
        for (i, j), route in self.routes.items():
            matrix[i * self.devices + j, list(route)] = 1
        return matrix

    @cached_property
    def path_latency_s(self) -> np.ndarray:
        """[devices, devices] sum of the latencies on each route; 0 at home."""
        return (self.incidence @ self.latency_s).reshape(self.devices, self.devices)


def star(
    devices: int, bandwidth_bytes_per_s: float = H100_NVLINK, latency_s: float = 0.0, name: str = "star"
) -> Fabric:
    """Every device has one link out of it and one into it, through a switch that never blocks (an NVLink node)."""
    _positive("star", devices=devices)
    routes = {(i, j): (i, devices + j) for i in range(devices) for j in range(devices) if i != j}
    return Fabric(name, devices, np.full(2 * devices, float(bandwidth_bytes_per_s)), np.full(2 * devices, latency_s / 2),
                  routes)  # fmt: skip


def nodes(
    devices: int,
    per_node: int,
    nvlink_bytes_per_s: float = H100_NVLINK,
    nic_bytes_per_s: float = CX7_NIC,
    oversubscription: float = 1.0,
    latency_s: float = 0.0,
    name: str = "nodes",
) -> Fabric:
    """Nodes of `per_node` devices: NVLink inside, one NIC per device into a fat tree between nodes.

    oversubscription: a node's NICs together over its links into the tree; 1 never blocks.  latency_s: of a path
    between nodes; paths inside a node have none.  Refused: devices that do not fill whole nodes.
    """
    _positive("nodes", devices=devices, per_node=per_node, oversubscription=oversubscription)
    if devices % per_node:
        raise ValueError(f"fabric.nodes: devices = {devices}: must be a multiple of per_node = {per_node}")
    count = devices // per_node
    rates = [nvlink_bytes_per_s, nvlink_bytes_per_s, nic_bytes_per_s, nic_bytes_per_s]
    tree = per_node * nic_bytes_per_s / oversubscription
    capacity = np.concatenate([np.repeat(rates, devices), np.full(2 * count, tree)]).astype(float)
    latency = np.zeros(len(capacity))
    latency[2 * devices : 4 * devices] = latency_s / 2
    routes: dict[tuple[int, int], Sequence[int]] = {}
    for i in range(devices):
        for j in range(devices):
            a, b = i // per_node, j // per_node
            if i != j:
                between = (2 * devices + i, 4 * devices + a, 4 * devices + count + b, 3 * devices + j)
                routes[i, j] = (i, devices + j) if a == b else between
    return Fabric(name, devices, capacity, latency, routes)


def _positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"fabric.{where}: {name} = {value}: must be > 0")
