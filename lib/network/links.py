"""What a fabric is: links with capacity and latency, and a route for every ordered pair of devices.

One of one's own is `Fabric(capacity_bytes_per_s=…, latency_s=…, routes={(i, j): [link, …]})`; those
of `fabric` know their link loads in closed form, so that sums over the matrix replace its routes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

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
    with itself, whose bytes stay home.

    Where a closed form is known: loads: traffic [..., devices, devices] → bytes per link [...,
    links]; every pair then has a route, and `head_s` [links] is the least latency of the routes
    through each link. along: (sources, destinations) → their routes at once [..., hops], −1 after
    the last link. mirrored: whether transposed traffic takes as long, since every link has a twin
    in the other direction.

    Refused: a capacity that is not positive, a latency below 0, an unknown link, a link passed
    twice.
    """

    capacity_bytes_per_s: np.ndarray
    latency_s: np.ndarray | float = 0.0
    routes: Routes
    devices: int = 0
    name: str = "of one's own"
    loads: Callable[[Array], Array] | None = None
    head_s: np.ndarray | None = None
    along: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    mirrored: bool = False

    def __post_init__(self) -> None:
        where = f"Fabric {self.name}"
        capacity = np.asarray(self.capacity_bytes_per_s, dtype=float)
        if capacity.ndim != 1 or not (np.isfinite(capacity) & (capacity > 0)).all():
            raise ValueError(f"{where}: capacity_bytes_per_s: must be finite and > 0 on every link")
        latency = np.asarray(self.latency_s, dtype=float)
        fits = latency.shape in ((), capacity.shape)
        if not fits or not (np.isfinite(latency) & (latency >= 0)).all():
            raise ValueError(f"{where}: latency_s: must hold {len(capacity)} numbers ≥ 0")
        known = self.devices
        if not known and isinstance(self.routes, Mapping):
            known = 1 + max((max(pair) for pair in self.routes), default=-1)
        if known < 1:
            raise ValueError(
                f"{where}: devices = {known}: must be ≥ 1, and given with a function of routes"
            )
        object.__setattr__(self, "capacity_bytes_per_s", capacity)
        object.__setattr__(self, "latency_s", np.broadcast_to(latency, capacity.shape))
        object.__setattr__(self, "devices", known)
        if isinstance(self.routes, Mapping):
            for (i, j), route in self.routes.items():
                self._check(i, j, route)

    def _check(self, i: int, j: int, route: Sequence[int]) -> None:
        links, where = len(self.capacity_bytes_per_s), f"Fabric {self.name}: route {i} → {j}"
        devices = max(i, j) < self.devices and min(i, j) >= 0
        if not devices or not all(0 <= link < links for link in route):
            raise ValueError(
                f"{where} = {list(route)}: must use known devices and links "
                f"({self.devices} and {links})"
            )
        if len(set(route)) < len(route):
            raise ValueError(f"{where} = {list(route)}: must not pass a link twice")

    @cached_property
    def paths(self) -> np.ndarray:
        """[devices, devices, hops] links of each route in order, then −1; −1 alone where there is
        no route.
        """
        if self.along is not None:
            paths = self.along(*np.indices((self.devices, self.devices))).astype(np.int32)
            paths[np.diag_indices(self.devices)] = -1
            return paths
        if isinstance(self.routes, Mapping):
            found = {(i, j): tuple(route) for (i, j), route in self.routes.items() if i != j}
        else:
            pairs = ((i, j) for i in range(self.devices) for j in range(self.devices) if i != j)
            found = {pair: tuple(self.routes(*pair) or ()) for pair in pairs}
            for (i, j), route in found.items():
                self._check(i, j, route)
        hops = max([1, *map(len, found.values())])
        paths = np.full((self.devices, self.devices, hops), -1, np.int32)
        for (i, j), route in found.items():
            paths[i, j, : len(route)] = route
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
        each = np.broadcast_to(self.latency_s, self.capacity_bytes_per_s.shape)
        return np.where(self.paths >= 0, each[self.paths], 0.0).sum(-1)

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
        load = self.loads(traffic) if self.loads is not None else self._summed(traffic)
        if not bool(xp.isfinite(load).all()):
            raise ValueError("fluid: traffic: must hold finite numbers of bytes ≥ 0")
        return load

    def _summed(self, traffic: Array) -> Array:
        """load_bytes along the routes."""
        xp = namespace(traffic)
        away = xp.concat([part for _, part in away_from_home(traffic)], -2)
        flat = away.reshape(*away.shape[:-2], -1)
        self._refuse_lost(flat)
        if isinstance(flat, np.ndarray):
            load = (self.incidence @ flat.reshape(-1, flat.shape[-1]).T).T
            return load.reshape(*flat.shape[:-1], -1)
        like = dict(dtype=flat.dtype, device=flat.device)
        return flat @ xp.asarray(self.incidence.toarray().T, **like)

    def _refuse_lost(self, flat: Array) -> None:
        """Refuse bytes [..., devices²] between a pair without a route."""
        lost = np.flatnonzero((self.paths[..., 0] < 0).reshape(-1))
        away = [int(pair) for pair in lost if pair % (self.devices + 1)]
        sent = [pair for pair in away if bool((flat[..., pair] > 0).any())]
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
