"""The cluster that is asked about: a published machine by name, or one's own from a YAML file.

A file has either `nodes` of so many `devices` with their rates, or `links` and a route for every
ordered pair of devices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lib.network import fabric, step
from lib.network.fabric import Clusters
from lib.network.links import Fabric

NODES = ("nodes", "devices", "inside_bytes_per_s", "nic_bytes_per_s")  # must stand in a file
MORE: dict[str, Any] = dict(name="", between="tree", oversubscription=1.0, latency_s=0.0)
LINKS = ("devices", "links", "routes")
LINK = ("bytes_per_s", "latency_s")
LARGEST = 1e18  # bytes a second, or seconds: beyond it times are no longer numbers


@dataclass(frozen=True)
class Cluster:
    """Nodes of `per_node` devices, one network card each, joined by a "tree" or by "rail"s; rates
    of one direction.

    most: devices there are (0: as many as are asked for).  own: links and routes instead.  name:
    what the fabric of several nodes is called where it stands beside others.
    """

    name: str
    per_node: int
    inside_bytes_per_s: float
    nic_bytes_per_s: float
    most: int = 0
    between: str = "tree"
    oversubscription: float = 1.0
    latency_s: float = 0.0
    own: Fabric | None = None

    def sizes(self, asked: Sequence[int]) -> list[int]:
        """Those of the numbers of devices that it has; its own number where it has none of them."""
        if self.own is not None:
            return [self.own.devices]
        return [size for size in asked if not self.most or size <= self.most] or [self.most]

    def size(self, asked: int) -> int:
        """One number of devices: that asked for, if it has so many, else its own."""
        return self.sizes([asked])[0]

    def fabric(self, devices: int, inside_bytes_per_s: float) -> Fabric:
        """So many of its devices, one node while they fit in one; links inside nodes have the rate
        given.
        """
        if self.own is not None:
            return self.own
        rates = inside_bytes_per_s, self.nic_bytes_per_s
        if self.between == "rail":
            return fabric.rail(devices, min(self.per_node, devices), *rates, self.latency_s)
        per_node = min(self.per_node, devices)
        return fabric.nodes(devices, per_node, *rates, self.oversubscription, self.latency_s)


def fabrics(place: Cluster, devices: int) -> dict[str, Fabric]:
    """What one exchange of so many devices is compared on: one node of them, and nodes on the
    network, at least two, if there are any; links and routes of one's own stand alone.
    """
    if place.own is not None:
        return {place.name: place.own}
    if 0 < place.most <= place.per_node:
        return {"one NVLink node": fabric.star(devices, place.inside_bytes_per_s)}
    spread = replace(place, per_node=min(place.per_node, max(devices // 2, 1)))
    return {
        "one NVLink node": fabric.star(devices, place.inside_bytes_per_s),
        "nodes on a network": spread.fabric(devices, place.inside_bytes_per_s),
    }


def clusters(place: Cluster, machine: step.Machine) -> Clusters:
    """What layers are compared on, by name: fabric.clusters with these nodes and rates, the second
    of them this cluster itself; or links and routes of one's own alone.

    Links inside a node reach the share of their published rate that those of the machine do.
    """
    if place.own is not None:
        only = place.own
        return {place.name: lambda devices: only}
    share = machine.exchange["wire_bytes_per_s"] / step.published().exchange["wire_bytes_per_s"]
    inside = share * place.inside_bytes_per_s
    rates = inside, place.nic_bytes_per_s
    first, _, *others = fabric.clusters(*rates, place.per_node).items()
    itself = place.name, partial(place.fabric, inside_bytes_per_s=inside)
    return dict([first, itself, *others])


def told(made: Clusters) -> tuple[str, str, str]:
    """The names, of clusters, of the one without nodes, of the cluster itself, and of the one whose
    links are shared; of a single one its name three times.
    """
    names = list(made)
    return (names[0], names[1], names[2]) if len(names) > 2 else (names[0],) * 3


def check(place: Cluster, devices: Sequence[int]) -> None:
    """Refuse numbers of devices that do not fill whole nodes."""
    for number in place.sizes(devices):
        place.fabric(number, place.inside_bytes_per_s)


def named(
    name: str,
    *,
    per_node: int = 0,
    inside_bytes_per_s: float = 0.0,
    nic_bytes_per_s: float = 0.0,
) -> Cluster:
    """The cluster of a published machine (data/published/fabrics.csv) or of a YAML file, with those
    of the numbers that are not 0 in the place of its own.

    Refused in one line: a name that is neither, and a file that is not as described above.
    """
    known = fabric.presets()
    path = Path(name).expanduser()
    if name in known:
        found = Cluster("", *known[name])
    elif path.suffix in (".yml", ".yaml"):
        found = read(path)
    else:
        options = f"{', '.join(known)}, or a .yml file"
        raise ValueError(f"fabric = {name!r}: must be one of {options}")
    if found.own is not None and (per_node or inside_bytes_per_s or nic_bytes_per_s):
        rule = "numbers of devices in a node and rates of its own must not be given"
        raise ValueError(f"fabric = {name!r}: has links and routes: {rule}")
    made = replace(
        found,
        per_node=per_node or found.per_node,
        inside_bytes_per_s=inside_bytes_per_s or found.inside_bytes_per_s,
        nic_bytes_per_s=nic_bytes_per_s or found.nic_bytes_per_s,
    )
    return replace(made, name=made.name or f"nodes of {made.per_node}, fat tree")


class _Once(yaml.SafeLoader):
    """Refuses a name that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [str(self.construct_object(key)) for key, _ in node.value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice}: stands twice: each name once")
        return super().construct_mapping(node, deep)


def read(path: Path) -> Cluster:
    """The cluster that a YAML file describes; refused in one line."""
    where = f"fabric: {path}"
    if path.exists() and not path.is_file():
        raise ValueError(f"{where}: must be a plain file")
    try:
        content = yaml.load(path.read_text(), _Once)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{where}: cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must hold names with values")
    wanted = LINKS if "links" in content or "routes" in content else NODES
    for name in wanted:
        if name not in content:
            raise ValueError(f"{where}: lacks {name}: must have {', '.join(wanted)}")
    allowed = (*wanted, "name") if wanted is LINKS else (*wanted, *MORE)
    for name in content:
        if name not in allowed:
            raise ValueError(f"{where}: {name}: must be one of {', '.join(allowed)}")
    content["name"] = str(content.get("name") or path.stem)
    return _listed(where, content) if wanted is LINKS else _noded(where, content)


def _noded(where: str, content: Mapping[str, Any]) -> Cluster:
    """The cluster of a file with nodes."""
    known = {**MORE, **content}
    nodes, devices = (_whole(where, name, known[name]) for name in ("nodes", "devices"))
    if known["between"] not in ("tree", "rail"):
        raise ValueError(f"{where}: between = {known['between']!r}: must be tree or rail")
    inside, nic = (_number(where, name, known[name]) for name in NODES[2:])
    shared = _number(where, "oversubscription", known["oversubscription"], least=1)
    if shared > 1 and known["between"] == "rail":
        raise ValueError(f"{where}: oversubscription = {shared:g}: must be 1 on rails")
    latency = _number(where, "latency_s", known["latency_s"], least=0)
    most, between = nodes * devices, known["between"]
    return Cluster(known["name"], devices, inside, nic, most, between, shared, latency)


def _listed(where: str, content: Mapping[str, Any]) -> Cluster:
    """The cluster of a file with links and routes."""
    devices, links = _whole(where, "devices", content["devices"]), content["links"]
    if not (isinstance(links, dict) and links and isinstance(content["routes"], dict)):
        raise ValueError(f"{where}: links and routes: must each hold names with values")
    rates, latencies = [], []
    for name, one in links.items():
        parts = one if isinstance(one, dict) else dict(bytes_per_s=one)
        for key in parts:
            if key not in LINK:
                rule = f"must be one of {', '.join(LINK)}"
                raise ValueError(f"{where}: links: {name}: {key}: {rule}")
        rates.append(_number(where, f"links: {name}", parts.get("bytes_per_s")))
        latency = parts.get("latency_s", 0.0)
        latencies.append(_number(where, f"links: {name}: latency_s", latency, least=0))
    number, found = {str(name): at for at, name in enumerate(links)}, {}
    routes = {str(pair).replace(" ", ""): route for pair, route in content["routes"].items()}
    if len(number) < len(links) or len(routes) < len(content["routes"]):
        raise ValueError(f"{where}: links and routes: must each have a name of their own")
    for i, j in itertools.permutations(range(devices), 2):
        route = routes.pop(f"{i}-{j}", None)
        if not (isinstance(route, list) and route and all(str(link) in number for link in route)):
            rule = "must be a list of links"
            raise ValueError(f"{where}: routes: {i}-{j}: {route}: {rule}")
        found[i, j] = [number[str(link)] for link in route]
    if routes:
        rule = f"must be a pair of different devices from 0 to {devices - 1}"
        raise ValueError(f"{where}: routes: {next(iter(routes))}: {rule}")
    own = Fabric(
        capacity_bytes_per_s=np.array(rates),
        latency_s=np.array(latencies),
        routes=found,
        devices=devices,
        name=content["name"],
    )
    return Cluster(content["name"], devices, min(rates), min(rates), devices, own=own)


def _number(where: str, name: str, value: object, least: float | None = None) -> float:
    """A finite number above 0, or at least `least`; 450e9 is a text to YAML."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number <= LARGEST or (number <= 0 and least is None) or number < (least or 0):
        rule = f"{'> 0' if least is None else f'≥ {least:g}'} and ≤ {LARGEST:g}"
        raise ValueError(f"{where}: {name} = {str(value)[:40]}: must be a finite number {rule}")
    return number


def _whole(where: str, name: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= 4096:
        raise ValueError(f"{where}: {name} = {value}: must be a whole number from 1 to 4096")
    return value
