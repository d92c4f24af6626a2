"""The step: a mixture-of-experts layer is a dispatch, the experts of every device, and a combine; a model is many of them.

Times are of the slowest device and come in parts that add up: `start_up_s` (collectives and messages begin), `wire_s` (bytes
under way), `arithmetic_s` (the slowest device's experts, and its rows put in order).  The forms are those of
`calibrate`; their constants are published ones, or measured ones in their place.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.network import calibrate, fabric, fluid, grid, placement
from lib.network.fabric import Fabric

DATA = Path(__file__).parents[2] / "data/published"
PARTS = ("start_up_s", "wire_s", "arithmetic_s")

Parts = dict[str, np.ndarray]


@dataclass(frozen=True)
class Model(grid.Shape):
    """A published model: its layer (grid.Shape), how many layers of a kind, and all else that every token passes.

    rest_parameters: attention, dense and shared parts, routers and the output matrix.  most_nodes: the most nodes of a
    token, 0 without a limit.  measured_as: the measured layer of the same sizes, or "".
    """

    moe_layers: int
    layers: int
    rest_parameters: int
    most_nodes: int
    measured_as: str


def models() -> dict[str, Model]:
    """The models of data/published/shapes.csv by name, each row with its source."""
    with (DATA / "shapes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = ("measured_as",)
    fields = [name for name in Model.__dataclass_fields__ if name not in texts]
    return {row["name"]: Model(**{f: int(row[f]) for f in fields}, **{t: row[t] for t in texts}) for row in rows}


@dataclass(frozen=True)
class Constants:
    """Parameters of calibrate.exchange_s, expert_s and layer_s, and the rates of the fabrics in bytes per second, one
    direction; kind: "published" or "measured"."""

    exchange: Mapping[str, float]
    expert: Mapping[str, float]
    layer: Mapping[str, float]
    nvlink_bytes_per_s: float
    nic_bytes_per_s: float
    kind: str


def published() -> Constants:
    """The constants of data/published/step.csv: peak rates.  What is published nowhere costs nothing: the starts of kernels,
    the padding of products, ordering rows."""
    with (DATA / "step.csv").open(newline="") as file:
        known = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    wire = known["nvlink_bytes_per_s"]
    exchange = dict(start_s=known["start_s"], message_s=known["message_s"], small_bytes_per_s=wire, large_s=0.0,
                    wire_bytes_per_s=wire, copy_bytes_per_s=math.inf)  # fmt: skip
    expert = dict(start_s=0.0, memory_bytes_per_s=known["memory_bytes_per_s"], flop_per_s=known["flop_per_s"], pad_rows=0.0, join=50.0)
    layer = dict(start_s=0.0, order_bytes_per_s=math.inf)
    return Constants(exchange, expert, layer, wire, known["nic_bytes_per_s"], "published")


def measured(fits: Mapping[str, calibrate.Fit], machine: str, shape: grid.Shape) -> tuple[Constants, str]:
    """The constants that calibrate.everything fitted on a machine, in place of the published ones; and the measured layer
    whose experts were taken, the nearest to `shape` in bytes of one expert.  The network card's rate stays published."""
    known = [name for name in grid.SHAPES if f"experts of {name} ({machine})" in fits]
    if not known or not {"exchange", "layer"} <= set(fits):
        raise ValueError(f"step.measured: machine = {machine!r}: must have fits of exchanges, experts and layers")
    near = min(known, key=lambda name: abs(math.log(grid.SHAPES[name].expert_bytes / shape.expert_bytes)))
    own, wire = published(), fits["exchange"].parameters
    return Constants(wire, fits[f"experts of {near} ({machine})"].parameters, fits["layer"].parameters,
                     wire["wire_bytes_per_s"], own.nic_bytes_per_s, "measured"), near  # fmt: skip


def network(devices: int, per_node: int, constants: Constants) -> Fabric:
    """One NVLink node while the devices fit in one, else nodes with one card a device into a tree that never blocks."""
    if devices <= per_node:
        return fabric.star(devices, constants.nvlink_bytes_per_s)
    return fabric.nodes(devices, per_node, constants.nvlink_bytes_per_s, constants.nic_bytes_per_s)


def _exchange(traffic: np.ndarray, net: Fabric, constants: Constants, time_s: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Start-up and wire time [...] of one exchange of traffic [..., devices, devices].

    calibrate.exchange_s, told the bytes that take on one NVLink as long as this traffic takes on this fabric by `time_s`: on a
    star those are its own `wire_bytes`.
    """
    away = traffic * ~np.eye(net.devices, dtype=bool)
    messages, own = (np.maximum(x.sum(-1).max(-1), x.sum(-2).max(-1)) for x in (away > 0, traffic))
    p = constants.exchange
    wire = np.asarray(time_s(traffic, net)) * p["wire_bytes_per_s"]
    features = dict(messages=messages, wire_bytes=wire, own_bytes=np.maximum(own, wire))
    start = p["start_s"] + p["message_s"] * messages
    return start, calibrate.exchange_s(p, features) - start


def layer(
    traffic: np.ndarray, rows: np.ndarray, active: np.ndarray, net: Fabric, shape: grid.Shape, constants: Constants, *,
    combine_share: float = 1.0, time_s: Callable = fluid.bottleneck_bound_s,
) -> Parts:  # fmt: skip
    """The parts [...] in seconds of a layer: dispatch of traffic [..., devices, devices] in bytes, the experts of every device
    (rows and active experts [..., devices]), the combine (the transposed bytes times `combine_share`).

    time_s: the network model, (traffic, fabric) → seconds.  Refused: rows or active experts of another shape or below 0,
    rows without an active expert.
    """
    traffic, rows, active = (np.asarray(x, dtype=float) for x in (traffic, rows, active))
    if rows.shape != traffic.shape[:-1] or active.shape != rows.shape:
        raise ValueError(f"step.layer: rows {rows.shape}, active {active.shape}: must both be {traffic.shape[:-1]}, as the traffic's devices")
    if (rows < 0).any() or (active < 0).any() or ((rows > 0) & (active <= 0)).any():
        raise ValueError("step.layer: rows, active: must be ≥ 0, and rows need an active expert")
    out, back = _exchange(traffic, net, constants, time_s), _exchange(combine_share * np.swapaxes(traffic, -1, -2), net, constants, time_s)
    work = calibrate.expert_s(constants.expert, dict(rows=rows, active=active, expert_bytes=shape.expert_bytes, row_flop=shape.row_flop))
    own = np.maximum(traffic.sum(-1).max(-1), traffic.sum(-2).max(-1))
    order = calibrate.layer_s(constants.layer | {"start_s": 0.0}, dict(exchange_s=0.0, expert_s=work.max(-1), own_bytes=own))
    return dict(start_up_s=out[0] + back[0] + constants.layer["start_s"], wire_s=out[1] + back[1], arithmetic_s=order)


def even(tokens: int, devices: int, shape: grid.Shape, bytes_per_token: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Traffic, rows and active experts of `tokens` tokens on each device whose selections spread perfectly evenly: the load
    that imbalance is judged against.  With fewer rows than experts on a device, one row each on as many."""
    rows = np.full(devices, float(tokens * shape.k))
    held = shape.experts / devices
    sent = np.full((devices, devices), tokens * shape.k * bytes_per_token / devices)
    return sent, rows, np.minimum(held, rows)


def drawn(counts: np.ndarray, home: np.ndarray, bytes_per_token: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Traffic, rows and active experts of selections [devices, experts] of each source device under a placement."""
    devices, experts = counts.shape
    share = placement.share(home, experts, devices)
    return bytes_per_token * (counts @ share), counts.sum(0) @ share, 1.0 * (counts.sum(0) > 0) @ (share > 0)


def rest_s(tokens: int, model: Model, constants: Constants) -> float:
    """Seconds of all that is not a routed expert, for `tokens` tokens of one device: the same on every device.

    The form of expert_s with one expert of the size of one layer's share, times the layers.  The attention's own
    arithmetic over the context is left out, and the reading of its cache.
    """
    part = model.rest_parameters / model.layers
    features = dict(rows=np.array(float(tokens)), active=1.0, expert_bytes=2 * part, row_flop=2 * part)
    return model.layers * float(calibrate.expert_s(constants.expert, features))


def layer_s(parts: Parts, overlap: bool = False) -> np.ndarray:
    """Seconds of a layer.  Without overlap its parts follow one another.

    overlap: the parts are of one of two equal micro-batches, of which one is on the network while the other computes, as in
    DeepSeek-V3's prefill (arXiv 2412.19437, section 3.4.1); the time is that of both, 2 · max(start-up + wire, arithmetic):
    the longer hides the shorter.  Fill and drain at the ends of the model are left out, and slow-downs of a kernel by the other.
    """
    on_network = parts["start_up_s"] + parts["wire_s"]
    return 2 * np.maximum(on_network, parts["arithmetic_s"]) if overlap else on_network + parts["arithmetic_s"]


def model_s(parts: Parts, rest: float, model: Model, overlap: bool = False) -> np.ndarray:
    """Seconds of a model's forward pass: its MoE layers, each with `parts`, and the rest.  With overlap the rest, which is
    arithmetic of a micro-batch too, hides network time as well."""
    if not overlap:
        return model.moe_layers * layer_s(parts) + rest
    return model.moe_layers * layer_s(parts | {"arithmetic_s": parts["arithmetic_s"] + rest / model.moe_layers}, overlap=True)


def attribution(parts: Parts, base: Parts, time_s: Callable[[Parts], np.ndarray] = layer_s) -> Parts:
    """What each part adds to time_s(parts) − time_s(base), in seconds; the three add up to it exactly.

    The mean over all orders of putting one part after the other in the base's place (Shapley 1953): where parts add up it is
    their difference; where one hides another, both share.
    """
    found = dict.fromkeys(PARTS, 0.0)
    for order in itertools.permutations(PARTS):
        now = dict(base)
        for name in order:
            before = time_s(now)
            now = now | {name: parts[name]}
            found[name] = found[name] + (time_s(now) - before) / math.factorial(len(PARTS))
    return found
