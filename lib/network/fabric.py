"""Fabrics: stars, nodes on a fat tree, nodes on rails, and published machines.

Each knows the load of its links in closed form; one of one's own is `links.Fabric`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lib.network.links import Array, Fabric, away_from_home, namespace

# Published one-direction rates in bytes per second; sources in data/published/rates.csv.
H100_NVLINK = 450e9
CX7_NIC = 50e9
PRESETS = Path(__file__).parents[2] / "data/published/fabrics.csv"

Along = Callable[[np.ndarray, np.ndarray], np.ndarray]  # as links.Fabric.along
Clusters = Mapping[str, Callable[[int], Fabric]]  # by name, devices → fabric


def _each(along: Along) -> Callable[[int, int], Sequence[int]]:
    """The route of one pair, of the routes of many."""
    return lambda i, j: [int(link) for link in along(np.array(i), np.array(j)) if link >= 0]


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

    def along(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return np.stack([i, devices + j], -1)

    return Fabric(
        capacity_bytes_per_s=np.full(2 * devices, float(bandwidth_bytes_per_s)),
        latency_s=latency_s / 2,
        routes=_each(along),
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.full(2 * devices, float(latency_s)),
        along=along,
        mirrored=True,
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

    oversubscription: a node's NICs together over its links into the tree; up to 1 it never blocks
    and holds nothing up that the NICs do not, so that it needs no links.  latency_s: of a path
    between nodes; paths inside a node have none.  Refused: devices that do not fill whole nodes.
    """
    count = _whole_nodes("nodes", devices, per_node, oversubscription=oversubscription)
    blocks, trees = oversubscription > 1, 2 * count if oversubscription > 1 else 0
    rates = [nvlink_bytes_per_s, nic_bytes_per_s, per_node * nic_bytes_per_s / oversubscription]
    links = [2 * devices, 2 * devices, trees]

    def along(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        a, b = i // per_node, j // per_node
        tree = [4 * devices + a, 4 * devices + count + b] if blocks else []
        across = np.stack([2 * devices + i, *tree, 3 * devices + j], -1)
        inside = np.stack([i, devices + j, *(np.full_like(i, -1) for _ in tree)], -1)
        return np.where((a == b)[..., None], inside, across)

    def loads(traffic: Array) -> Array:
        inside, *across = _split(traffic, per_node, by_position=False)
        whole = [x.reshape(*x.shape[:-1], count, per_node).sum(-1) for x in across if blocks]
        return namespace(traffic).concat([*inside, *across, *whole], -1)

    return Fabric(
        capacity_bytes_per_s=np.repeat(rates, links),
        latency_s=np.repeat([0.0, latency_s / 2, 0.0], links),
        routes=_each(along),
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.repeat([0.0, latency_s, latency_s], links),
        along=along,
        mirrored=True,
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

    def along(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        via, none = i - i % per_node + j % per_node, np.full_like(i, -1)
        rails = 2 * devices + via, 3 * devices + j
        inside = np.stack([i, devices + j, none, none], -1)
        forwarded = np.stack([i, devices + via, *rails], -1)
        direct = np.stack([*rails, none, none], -1)
        home = i // per_node == j // per_node
        return np.where(home[..., None], inside, np.where((via == i)[..., None], direct, forwarded))

    def loads(traffic: Array) -> Array:
        (out, into), rails, arriving = _split(traffic, per_node, by_position=True)
        xp = namespace(traffic)
        number = xp.arange(per_node, device=traffic.device)
        rails = rails.reshape(*rails.shape[:-2], count, per_node, per_node)
        forward = rails * (number[:, None] != number)
        sums = (forward.sum(-1), forward.sum(-2), rails.sum(-2))
        via_out, via_in, sent = (part.reshape(*out.shape[:-1], devices) for part in sums)
        return xp.concat([out + via_out, into + via_in, sent, arriving], -1)

    return Fabric(
        capacity_bytes_per_s=np.repeat([nvlink_bytes_per_s, nic_bytes_per_s], 2 * devices),
        latency_s=np.repeat([0.0, latency_s / 2], 2 * devices),
        routes=_each(along),
        devices=devices,
        name=name,
        loads=loads,
        head_s=np.repeat([0.0, latency_s], 2 * devices),
        along=along,
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


def presets() -> dict[str, tuple[int, float, float]]:
    """Of every published machine: devices of a node, and the rates in bytes per second of its links
    inside a node and of a network card (data/published/fabrics.csv).
    """
    with PRESETS.open(newline="") as file:
        return {
            row["name"]: (
                int(row["devices_per_node"]),
                float(row["inside_bytes_per_s"]),
                float(row["nic_bytes_per_s"]),
            )
            for row in csv.DictReader(file)
        }


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
    known = presets()
    if name not in known or between not in ("tree", "rail"):
        raise ValueError(
            f"fabric.preset: name = {name!r}, between = {between!r}: must be one of "
            f"{', '.join(known)}; tree or rail"
        )
    per_node, inside, nic = known[name]
    if devices <= per_node:
        return star(devices, inside, name=name)
    if between == "rail":
        return rail(devices, per_node, inside, nic, latency_s, name=name)
    return nodes(devices, per_node, inside, nic, oversubscription, latency_s, name=name)


def clusters(
    inside_bytes_per_s: float, nic_bytes_per_s: float = CX7_NIC, per_node: int = 8
) -> Clusters:
    """Fabrics of any number of devices to compare, by name: one of NVLink throughout, and nodes of
    `per_node` on a tree that never blocks, on one three times oversubscribed, and on rails.
    """
    rates = inside_bytes_per_s, nic_bytes_per_s
    return {
        "NVLink throughout": lambda n: star(n, inside_bytes_per_s),
        f"nodes of {per_node}, fat tree": lambda n: nodes(n, min(per_node, n), *rates),
        f"nodes of {per_node}, tree 3 : 1": lambda n: nodes(n, min(per_node, n), *rates, 3),
        f"nodes of {per_node}, rails": lambda n: rail(n, min(per_node, n), *rates),
    }


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
