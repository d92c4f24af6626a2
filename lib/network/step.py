"""The time of a mixture-of-experts layer spread over devices, and of a model's step, and what it is
made of.

A layer dispatches rows, computes the experts of every device and combines: the next layer waits for
the slowest device. Its parts add up: start (of the collectives and kernels), wire, arithmetic
(experts of the slowest device), order (rows put in order in memory) and hidden (what overlap takes
off, ≤ 0).  The formulas are those of `cost`, which measurements are fitted with.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.network import cost, fluid, placement, traffic
from lib.network.links import Fabric

PUBLISHED = Path(__file__).parents[2] / "data/published"
RATES, SHAPES = PUBLISHED / "step.csv", PUBLISHED / "shapes.csv"
ALLTOALL = PUBLISHED / "alltoall.csv"
PARTS = ("start", "wire", "arithmetic", "order", "hidden")
Parts = Mapping[str, np.ndarray]  # seconds by part
Time = Callable[[np.ndarray, Fabric], np.ndarray]  # a network model: (traffic, fabric) → seconds


@dataclass(frozen=True)
class Machine:
    """Constants of a step in SI units: parameters of cost.exchange_s, expert_s and layer_s, and a
    network card's rate.

    kind: "published" rates of an ideal machine, or "measured" ones, calibrated; the card's rate is
    published in both.  origin: what the constants are of, in words.
    """

    kind: str
    exchange: Mapping[str, float]
    expert: Mapping[str, float]
    layer: Mapping[str, float]
    nic_bytes_per_s: float
    origin: str = ""


@dataclass(frozen=True)
class Model:
    """A published model: its layer, its number of such layers, and the parameters outside of routed
    experts that a token passes through (attention, dense and shared parts, routers, the output
    matrix; the input's embedding is read, not multiplied).

    dispatch: "bf16", or "fp8": 1 byte a number and 4 of scale for every 128 on the way out,
    bfloat16 on the way back.
    """

    name: str
    shape: cost.Shape
    layers: int
    rest_parameters: float
    dispatch: str = "bf16"

    @property
    def words(self) -> str:
        """Its layer in words."""
        own = self.shape
        return (
            f"hidden size {own.hidden}, {own.experts} experts of width {own.width}, {own.k} a "
            f"token, in {self.layers} layers, {own.weight_bytes:g} bytes a weight"
        )

    @property
    def out_share(self) -> float:
        """Bytes of a row of the dispatch over those of the combine."""
        return {"bf16": 1.0, "fp8": (1 + 4 / 128) / 2}[self.dispatch]


def published() -> Machine:
    """Peak rates from datasheets and no start-up: data/published/step.csv."""
    with RATES.open(newline="") as file:
        rate = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    wire, start = rate["wire_bytes_per_s"], rate["start_s"]
    return Machine(
        "published",
        exchange=dict(
            start_s=start,
            first_s=0.0,
            message_s=0.0,
            back_share=0.0,
            small_bytes_per_s=wire,
            large_s=0.0,
            wire_bytes_per_s=wire,
            copy_bytes_per_s=np.inf,
        ),
        expert=dict(
            start_s=start,
            memory_bytes_per_s=rate["memory_bytes_per_s"],
            flop_per_s=rate["flop_per_s"],
            join=1e3,
        ),
        layer=dict(start_s=start, source_bytes_per_s=np.inf, order_bytes_per_s=np.inf),
        nic_bytes_per_s=rate["nic_bytes_per_s"],
        origin="datasheets, no start-up",
    )


def measured(parameters: Mapping[str, Mapping[str, float]], origin: str = "") -> Machine:
    """The machine of calibrated `parameters` by the name of their fit ("exchange", "experts of any
    shape", "layer"), measured on `origin`; its experts are those fitted on all shapes together.  A
    message beyond the first costs what published exchanges of 2, 4 and 8 devices say (message_s).
    """
    names = "exchange", "experts of any shape", "layer"
    exchange, expert, layer = (parameters[name] for name in names)
    nic = published().nic_bytes_per_s
    exchange = {"message_s": message_s(), **exchange}
    return Machine("measured", exchange, expert, layer, nic_bytes_per_s=nic, origin=origin)


def message_s(most_bytes: int = 65536) -> float:
    """Seconds that one more message costs: the slope over 2, 4 and 8 devices of published even
    all-to-alls (ALLTOALL) of at most `most_bytes` a device, median over sizes.
    """
    with ALLTOALL.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["bytes"]) <= most_bytes]
    slopes = []
    for size in {row["bytes"] for row in rows}:
        own = [(int(r["devices"]) - 1, float(r["time_us"])) for r in rows if r["bytes"] == size]
        others, times = np.array(own).T
        slopes.append(np.polyfit(others, times, 1)[0])
    return 1e-6 * float(np.median(slopes))


def machine(kind: str, parameters: Mapping[str, Mapping[str, float]], origin: str) -> Machine:
    """The machine of this kind; published rates also where nothing was calibrated."""
    return measured(parameters, origin) if kind == "measured" and parameters else published()


def models() -> dict[str, Model]:
    """The models of data/published/shapes.csv by name."""
    with SHAPES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = "hidden", "width", "experts", "k"
    return {
        row["name"]: Model(
            row["name"],
            cost.Shape(
                **{size: int(row[size]) for size in sizes}, weight_bytes=float(row["weight_bytes"])
            ),
            int(row["layers"]),
            float(row["rest_parameters"]),
            row["dispatch"],
        )
        for row in rows
    }


def experts_s(rows: np.ndarray, shape: cost.Shape, machine: Machine) -> np.ndarray:
    """Time [..., devices] in seconds of every device's experts, of rows [..., devices, experts]
    that it computes for each.

    Refused: rows below 0 or not finite.
    """
    rows = np.asarray(rows, dtype=float)
    if not (np.isfinite(rows).all() and (rows >= 0).all()):
        raise ValueError("step.experts_s: rows: must be finite and ≥ 0")
    tiles = (np.ceil(rows / cost.TILE) * cost.TILE).sum(-1)
    given = dict(
        tile_rows=tiles,
        active=(rows > 0).sum(-1),
        expert_bytes=shape.expert_bytes,
        row_flop=shape.row_flop,
    )
    return cost.expert_s(machine.expert, given)


def _under_way_s(seconds: np.ndarray, sent: np.ndarray, machine: Machine) -> np.ndarray:
    """cost.wire_s [...] of the bytes [..., devices, devices] of an exchange that takes `seconds`
    [...] at the full rate of the wire; its diagonal is the copy to itself.
    """
    away = sent * (1 - np.eye(sent.shape[-1]))
    back = machine.exchange["back_share"] * cost.busiest(away)[1]
    bytes_ = seconds * machine.exchange["wire_bytes_per_s"] + back
    return cost.wire_s(machine.exchange, bytes_, _most(sent) - _most(away))


def _most(numbers: np.ndarray) -> np.ndarray:
    """[...] the largest sum of a row or a column of [..., devices, devices]."""
    return np.maximum(numbers.sum(-1).max(-1), numbers.sum(-2).max(-1))


def layer(
    sent: np.ndarray,
    rows: np.ndarray,
    shape: cost.Shape,
    fabric: Fabric,
    machine: Machine,
    *,
    combine_share: float = 1.0,
    overlap: bool = False,
    time_s: Time = fluid.bottleneck_bound_s,
) -> Parts:
    """Parts of a layer's time, each [...] in seconds; they sum to it (cost.layer_parts).

    sent: bytes [..., devices, devices] of the dispatch, its diagonal what stays home; the combine
    is its transpose times `combine_share` (2 where it goes out in 8 bits and comes back in 16).
    rows: [..., devices, experts] as in experts_s. overlap: two halves of the batch take turns, so
    that in the ideal the longer of wire and arithmetic counts alone (DeepSeek-V3, arXiv 2412.19437,
    section 3.2.1).  time_s: how long bytes take at the fabric's rates.  On a mirrored fabric
    without latency the combine needs no simulation of its own.
    """
    sent = np.asarray(sent, dtype=float)
    back, there_s = combine_share * np.swapaxes(sent, -1, -2), time_s(sent, fabric)
    mirrored = fabric.mirrored and not np.any(fabric.latency_s)
    back_s = combine_share * there_s if mirrored else time_s(back, fabric)
    messages = _most((sent > 0) & ~np.eye(sent.shape[-1], dtype=bool))
    known = dict(
        start_s=2 * cost.start_s(machine.exchange, messages),
        wire_s=_under_way_s(there_s, sent, machine) + _under_way_s(back_s, back, machine),
        expert_s=experts_s(rows, shape, machine).max(-1),
        source_bytes=sent.sum(-1).max(-1),
        own_bytes=_most(sent),
    )
    parts = cost.layer_parts(machine.layer, known)
    both = np.minimum(parts["wire"], parts["arithmetic"])
    return parts | dict(hidden=-both if overlap else np.zeros_like(both))


def of_model(
    sent: np.ndarray,
    rows: np.ndarray,
    model: Model,
    fabric: Fabric,
    machine: Machine,
    *,
    overlap: bool = False,
    time_s: Time = fluid.bottleneck_bound_s,
) -> Parts:
    """`layer` of a model's layer whose rows go out in its own form, from `sent` in bfloat16."""
    share = model.out_share
    return layer(
        share * np.asarray(sent, dtype=float),
        rows,
        model.shape,
        fabric,
        machine,
        combine_share=1 / share,
        overlap=overlap,
        time_s=time_s,
    )


def total_s(parts: Parts) -> np.ndarray:
    """Time [...] in seconds of a layer of these parts."""
    return np.add.reduce([parts[name] for name in PARTS])


def excess(parts: Parts, even: Parts) -> dict[str, np.ndarray]:
    """Slowdown over the perfectly even layer by part, as a share of its time; the parts' sum is the
    slowdown.
    """
    return {name: (parts[name] - even[name]) / total_s(even) for name in PARTS}


def even_layer(tokens: int, shape: cost.Shape, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, rows) of `tokens` tokens that spread evenly, in whole rows, over devices and experts:
    rows are dealt to the devices in turn, and to each device's experts in turn, so that a device
    with fewer rows than there are devices sends to some alone.
    """
    per = shape.experts // devices
    ends = np.arange(devices + 1) * tokens // devices * shape.k
    turn = np.arange(shape.experts).reshape(devices, per).T.reshape(-1)
    counts = np.empty((devices, shape.experts), dtype=np.int64)
    # of the rows before each end, how many each turn got
    counts[:, turn] = np.diff(
        (ends[:, None] - np.arange(shape.experts) - 1) // shape.experts, axis=0
    )
    home = placement.contiguous(shape.experts, devices)
    return traffic.counted(counts, home, 2.0 * shape.hidden)


def step_s(layers: np.ndarray, tokens: int, model: Model, machine: Machine) -> np.ndarray:
    """Time [...] in seconds of a model's step forward: its layers' times [..., layers] and the
    rest.

    The rest (attention, embeddings, dense layers) is the same on every device, which does it for
    its own `tokens`: the longer of reading its weights in bfloat16 and 2 operations per parameter
    and token.  Attention over the past is left out.
    """
    weights, p = model.rest_parameters, machine.expert
    rest = max(2 * weights / p["memory_bytes_per_s"], 2 * weights * tokens / p["flop_per_s"])
    return layers.sum(-1) + rest
