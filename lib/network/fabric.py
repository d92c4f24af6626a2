"""Fabrics: links with capacity and latency, and a route for every ordered pair of devices.

The builders here know their link loads in closed form, so that sums over the matrix replace its
routes; a fabric of one's own, `Fabric(capacity_bytes_per_s=…, latency_s=…, routes={(i, j): [link,
…]})`, needs none.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

# Published one-direction rates in bytes per second; sources in data/published/rates.csv.
H100_NVLINK = 450e9
CX7_NIC = 50e9
PRESETS = Path(__file__).parents[2] / "data/published/fabrics.csv"
BLOCK = 1 << 16  # numbers of a matrix that are summed while they lie in the cache

Array = Any  # NumPy's, or another library's with the same methods (torch, CuPy)
Routes = Mapping[tuple[int, int], Sequence[int]] | Callable[[int, int], Sequence[int]]


def namespace(array: Array) -> Any:
    """The library that an array belongs to: it answers itself (NumPy, CuPy) or is the top package
    of its type (torch).
    """
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Fabric:
    """A network of devices.

    capacity_bytes_per_s, latency_s: [links] (latency: or one number), per direction of use (a cable
    is two links). routes: (source, destination) → the links that a byte between them passes, in
    order: a mapping, or a function (then `devices` must be given).  No entry is needed for a device
    with itself, whose bytes stay home. loads: traffic [..., devices, devices] → bytes per link
    [..., links], where a closed form is known; every pair then has a route, and `head_s` [links] is
    the least latency of the routes through each link. Refused: a capacity that is not positive, a
    latency below 0, an unknown link, a link passed twice.
    """

    capacity_bytes_per_s: np.ndarray
    latency_s: np.ndarray | float = 0.0
    routes: Routes
    devices: int = 0
    name: str = "of one's own"
    loads: Callable[[Array], Array] | None = None
    head_s: np.ndarray | None = None

    def __post_init__(self) -> None:
        capacity = np.asarray(self.capacity_bytes_per_s, dtype=float)
        if capacity.ndim != 1 or not (np.isfinite(capacity) & (capacity > 0)).all():
            raise ValueError(
                f"Fabric {self.name}: capacity_bytes_per_s: must be finite and > 0 on every link"
            )
        latency = np.asarray(self.latency_s, dtype=float)
        if (
            latency.shape not in ((), capacity.shape)
            or not (np.isfinite(latency) & (latency >= 0)).all()
        ):
            raise ValueError(
                f"Fabric {self.name}: latency_s: must hold {len(capacity)} numbers ≥ 0"
            )
        known = self.devices
        if not known and isinstance(self.routes, Mapping):
            known = 1 + max((max(pair) for pair in self.routes), default=-1)
        if known < 1:
            raise ValueError(
                f"Fabric {self.name}: devices = {known}: must be ≥ 1, and given with a function of routes"
            )
        for field, value in dict(
            capacity_bytes_per_s=capacity,
            latency_s=np.broadcast_to(latency, capacity.shape),
            devices=known,
        ).items():
            object.__setattr__(self, field, value)
        if isinstance(self.routes, Mapping):
            for pair, route in self.routes.items():
                self._check(*pair, route)

    def _check(self, i: int, j: int, route: Sequence[int]) -> None:
        links = len(self.capacity_bytes_per_s)
        if not (
            0 <= i < self.devices
            and 0 <= j < self.devices
            and all(0 <= link < links for link in route)
        ):
            raise ValueError(
                f"Fabric {self.name}: route {i} → {j} = {list(route)}: must use known devices and links "
                f"({self.devices} and {links})"
            )
        if len(set(route)) < len(route):
            raise ValueError(
                f"Fabric {self.name}: route {i} → {j} = {list(route)}: must not pass a link twice"
            )

    @cached_property
    def paths(self) -> np.ndarray:
        """[devices, devices, hops] links of each route in order, then −1; −1 alone where there is
        no route.
        """
        found = {}
        if isinstance(self.routes, Mapping):
            found = {
                pair: tuple(route) for pair, route in self.routes.items() if pair[0] != pair[1]
            }
        else:
            pairs = ((i, j) for i in range(self.devices) for j in range(self.devices) if i != j)
            found = {pair: tuple(self.routes(*pair) or ()) for pair in pairs}
            for pair, route in found.items():
                self._check(*pair, route)
        paths = np.full(
            (self.devices, self.devices, max([1, *map(len, found.values())])), -1, np.int32
        )
        for pair, route in found.items():
            paths[*pair, : len(route)] = route
        return paths

    @cached_property
    def incidence(self) -> sparse.csr_array:
        """[links, devices²] 1 where the pair's route uses the link."""
        flat = self.paths.reshape(self.devices**2, -1)
        pair, hop = np.nonzero(flat >= 0)
        shape = len(self.capacity_bytes_per_s), self.devices**2
        return sparse.csr_array((np.ones(len(pair)), (flat[pair, hop], pair)), shape)

    @cached_property
    def path_latency_s(self) -> np.ndarray:
        """[devices, devices] sum of the latencies on each route; 0 at home."""
        return np.where(self.paths >= 0, self.latency_s[self.paths], 0.0).sum(-1)

    @cached_property
    def least_latency_s(self) -> np.ndarray:
        """[links] the least latency of the routes through each link; 0 on a link that none uses."""
        if self.head_s is not None:
            return self.head_s
        least = np.full(len(self.capacity_bytes_per_s), np.inf)
        i, j, hop = np.nonzero(self.paths >= 0)
        np.minimum.at(least, self.paths[i, j, hop], self.path_latency_s[i, j])
        return np.where(np.isfinite(least), least, 0.0)

    def load_bytes(self, traffic: Array) -> Array:
        """Bytes [..., links] that traffic [..., devices, devices] puts on each link; any array
        library's.

        Refused: what is not ≥ 0 (NaN included), a sum that is not finite, bytes between a pair
        without a route.
        """
        xp = namespace(traffic)
        if self.loads is not None:
            load = self.loads(traffic)
        else:
            away = xp.concat([part for _, part in away_from_home(traffic)], -2)
            flat = away.reshape(*away.shape[:-2], -1)
            self._refuse_lost(flat)
            if isinstance(flat, np.ndarray):
                load = (self.incidence @ flat.reshape(-1, flat.shape[-1]).T).T.reshape(
                    *flat.shape[:-1], -1
                )
            else:
                load = flat @ xp.asarray(
                    self.incidence.toarray().T, dtype=flat.dtype, device=flat.device
                )
        if not bool(xp.isfinite(load).all()):
            raise ValueError("fluid: traffic: must hold finite numbers of bytes ≥ 0")
        return load

    def _refuse_lost(self, flat: Array) -> None:
        """Refuse bytes [..., devices²] between a pair without a route."""
        lost = np.flatnonzero((self.paths[..., 0] < 0).reshape(-1))
        sent = [
            pair
            for pair in lost
            if pair % (self.devices + 1) and bool((flat[..., int(pair)] > 0).any())
        ]
        if sent:
            raise ValueError(
                f"fluid: traffic from {sent[0] // self.devices} to {sent[0] % self.devices}: "
                f"must have a route in fabric {self.name}"
            )


def away_from_home(traffic: Array) -> Iterator[tuple[Array, Array]]:
    """Stretches of rows of traffic [..., devices, devices]: their numbers and a copy with 0 on the
    diagonal.
    """
    xp, devices = namespace(traffic), traffic.shape[-1]
    number = xp.arange(devices, device=traffic.device)
    step = max(1, BLOCK // devices)
    for first in range(0, devices, step):
        rows = number[first : first + step]
        part = traffic[..., first : first + step, :] + 0  # a copy
        home = ..., rows - first, rows
        if not (bool(xp.amin(part) >= 0) and bool(xp.isfinite(part[home]).all())):
            raise ValueError("fluid: traffic: must hold finite numbers of bytes ≥ 0")
        part[home] = 0
        yield rows, part


def star(
    devices: int,
    bandwidth_bytes_per_s: float = H100_NVLINK,
    latency_s: float = 0.0,
    name: str = "star",
) -> Fabric:
    """Every device has one link out of it and one into it, through a switch that never blocks (an
    NVLink node).
    """
    _positive("star", devices=devices)

    def loads(traffic: Array) -> Array:
        out, into = [], 0.0
        for _, part in away_from_home(traffic):
            out.append(part.sum(-1))
            into = into + part.sum(-2)
        return namespace(traffic).concat([*out, into], -1)

    return Fabric(
        capacity_bytes_per_s=np.full(2 * devices, float(bandwidth_bytes_per_s)),
        latency_s=latency_s / 2,
        routes=lambda i, j: (i, devices + j),
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.full(2 * devices, float(latency_s)),
    )


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

    oversubscription: a node's NICs together over its links into the tree; 1 never blocks.
    latency_s: of a path between nodes; paths inside a node have none.  Refused: devices that do not
    fill whole nodes.
    """
    count = _whole_nodes("nodes", devices, per_node, oversubscription=oversubscription)
    tree = np.full(2 * count, per_node * nic_bytes_per_s / oversubscription)
    rates = np.repeat(
        [nvlink_bytes_per_s, nvlink_bytes_per_s, nic_bytes_per_s, nic_bytes_per_s], devices
    )
    latency = np.repeat([0.0, latency_s / 2, 0.0], [2 * devices, 2 * devices, 2 * count])

    def route(i: int, j: int) -> Sequence[int]:
        a, b = i // per_node, j // per_node
        if a == b:
            return i, devices + j
        return 2 * devices + i, 4 * devices + a, 4 * devices + count + b, 3 * devices + j

    def loads(traffic: Array) -> Array:
        inside, *across = _split(traffic, per_node, by_position=False)
        whole = [x.reshape(*x.shape[:-1], count, per_node).sum(-1) for x in across]
        return namespace(traffic).concat([*inside, *across, *whole], -1)

    return Fabric(
        capacity_bytes_per_s=np.concatenate([rates, tree]),
        latency_s=latency,
        routes=route,
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.repeat([0.0, latency_s], [2 * devices, 2 * devices + 2 * count]),
    )


def rail(
    devices: int,
    per_node: int,
    nvlink_bytes_per_s: float = H100_NVLINK,
    nic_bytes_per_s: float = CX7_NIC,
    latency_s: float = 0.0,
    name: str = "rail",
) -> Fabric:
    """Rail-optimised nodes: the NICs of equal position in their nodes share a switch that never
    blocks, a rail.

    A byte for position q of another node goes over NVLink to position q of its own node, then along
    rail q (as NCCL's PXN does); no byte changes rails between nodes.  latency_s: of a path between
    nodes.
    """
    count = _whole_nodes("rail", devices, per_node)
    rates = np.repeat(
        [nvlink_bytes_per_s, nvlink_bytes_per_s, nic_bytes_per_s, nic_bytes_per_s], devices
    )
    latency = np.repeat([0.0, latency_s / 2], 2 * devices)

    def route(i: int, j: int) -> Sequence[int]:
        if i // per_node == j // per_node:
            return i, devices + j
        via = i - i % per_node + j % per_node
        return (i, devices + via, 2 * devices + via, 3 * devices + j)[0 if via != i else 2 :]

    def loads(traffic: Array) -> Array:
        (out, into), rails, arriving = _split(traffic, per_node, by_position=True)
        xp = namespace(traffic)
        number = xp.arange(per_node, device=traffic.device)
        rails = rails.reshape(*rails.shape[:-2], count, per_node, per_node)
        forward = rails * (number[:, None] != number)
        flat = (*out.shape[:-1], devices)
        return xp.concat(
            [
                out + forward.sum(-1).reshape(flat),
                into + forward.sum(-2).reshape(flat),
                rails.sum(-2).reshape(flat),
                arriving,
            ],
            -1,
        )

    return Fabric(
        capacity_bytes_per_s=rates,
        latency_s=latency,
        routes=route,
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.repeat([0.0, latency_s], 2 * devices),
    )


def _split(traffic: Array, per_node: int, by_position: bool) -> tuple[list[Array], Array, Array]:
    """Bytes out of and into each device inside its node, a list of two [..., devices]; bytes that
    leave its node [..., devices], or by their position in the other node [..., devices, per_node];
    bytes from other nodes [..., devices].
    """
    xp = namespace(traffic)
    inside, leaving, arriving = [], [], 0.0
    ones = xp.ones((1, traffic.shape[-1] // per_node), dtype=traffic.dtype, device=traffic.device)
    for rows, part in away_from_home(traffic):
        nodewise = part.reshape(*part.shape[:-1], -1, per_node)
        own = ..., xp.arange(len(rows), device=traffic.device), rows // per_node, slice(None)
        inside.append(nodewise[own] + 0)
        nodewise[own] *= 0
        across = nodewise.reshape(part.shape)
        leaving.append(
            (ones @ nodewise)[..., 0, :] if by_position else across.sum(-1)
        )  # ten times as fast as its sum
        arriving = arriving + across.sum(-2)
    within = xp.concat(inside, -2)
    into = (
        within.reshape(*within.shape[:-2], -1, per_node, per_node)
        .sum(-2)
        .reshape(*within.shape[:-1])
    )
    return [within.sum(-1), into], xp.concat(leaving, -2 if by_position else -1), arriving


def preset(
    name: str,
    devices: int,
    *,
    between: str = "tree",
    oversubscription: float = 1.0,
    latency_s: float = 0.0,
) -> Fabric:
    """A published machine: one node of it while the devices fit in one, else nodes joined by a
    "tree" or by "rail"s.

    Rates and sources: data/published/fabrics.csv.  latency_s: of a path between nodes.
    """
    with PRESETS.open(newline="") as file:
        known = {row["name"]: row for row in csv.DictReader(file)}
    if name not in known or between not in ("tree", "rail"):
        raise ValueError(
            f"fabric.preset: name = {name!r}, between = {between!r}: must be one of {', '.join(known)}; tree or rail"
        )
    inside, nic = float(known[name]["inside_bytes_per_s"]), float(known[name]["nic_bytes_per_s"])
    per_node = int(known[name]["devices_per_node"])
    if devices <= per_node:
        return star(devices, inside, name=name)
    if between == "rail":
        return rail(devices, per_node, inside, nic, latency_s, name=name)
    return nodes(devices, per_node, inside, nic, oversubscription, latency_s, name=name)


def _whole_nodes(where: str, devices: int, per_node: int, **more: float) -> int:
    _positive(where, devices=devices, per_node=per_node, **more)
    if devices % per_node:
        raise ValueError(
            f"fabric.{where}: devices = {devices}: must be a multiple of per_node = {per_node}"
        )
    return devices // per_node


def _positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"fabric.{where}: {name} = {value}: must be > 0")
