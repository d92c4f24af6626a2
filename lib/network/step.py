"""The time of a mixture-of-experts layer spread over devices, and of a model's step, and what it is
made of.

A layer dispatches rows, computes the experts of every device and combines: the next layer waits for
the slowest device. Its parts add up: start (of the collectives and kernels), wire, arithmetic
(experts of the slowest device), order (rows put in order in memory) and hidden (what overlap takes
off, ≤ 0).  The forms are those that `calibrate` fits.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.network import cost, fluid
from lib.network.fabric import Fabric

PUBLISHED = Path(__file__).parents[2] / "data/published"
PARTS = ("start", "wire", "arithmetic", "order", "hidden")


@dataclass(frozen=True)
class Machine:
    """Constants of a step in SI units: parameters of cost.exchange_s, expert_s and layer_s, and a
    network card's rate.

    kind: "published" rates of an ideal machine, or "measured" ones, calibrated; the card's rate is
    published in both.
    """

    kind: str
    exchange: Mapping[str, float]
    expert: Mapping[str, float]
    layer: Mapping[str, float]
    nic_bytes_per_s: float


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
    def out_share(self) -> float:
        """Bytes of a row of the dispatch over those of the combine."""
        return {"bf16": 1.0, "fp8": (1 + 4 / 128) / 2}[self.dispatch]


def published() -> Machine:
    """Peak rates from datasheets and no start-up: data/published/step.csv."""
    with (PUBLISHED / "step.csv").open(newline="") as file:
        rate = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    wire, start = rate["wire_bytes_per_s"], rate["start_s"]
    return Machine(
        "published",
        nic_bytes_per_s=rate["nic_bytes_per_s"],
        exchange=dict(
            start_s=start,
            message_s=0.0,
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
        layer=dict(start_s=start, order_bytes_per_s=np.inf),
    )


def measured(parameters: Mapping[str, Mapping[str, float]]) -> Machine:
    """The machine of calibrated `parameters` by the name of their fit (`calibrate.everything`);
    its experts are those fitted on all shapes together.
    """
    names = "exchange", "experts of any shape", "layer"
    return Machine(
        "measured",
        *(parameters[name] for name in names),
        nic_bytes_per_s=published().nic_bytes_per_s,
    )


def models() -> dict[str, Model]:
    """The models of data/published/shapes.csv by name."""
    with (PUBLISHED / "shapes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sizes = "hidden", "width", "experts", "k"
    return {
        row["name"]: Model(
            row["name"],
            cost.Shape(*(int(row[size]) for size in sizes)),
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


def wire_s(
    sent: np.ndarray, fabric: Fabric, machine: Machine, time_s: Callable = fluid.bottleneck_bound_s
) -> np.ndarray:
    """Time [...] in seconds that the bytes [..., devices, devices] of one exchange are under way,
    start-up left out.

    time_s: (traffic, fabric) → seconds at the fabric's rates; small exchanges take the slower path
    that was calibrated, and the copy to itself, the diagonal, runs beside the wire.
    """
    p, eye = machine.exchange, np.eye(sent.shape[-1])
    most = lambda bytes_: np.maximum(bytes_.sum(-1).max(-1), bytes_.sum(-2).max(-1))
    large = time_s(sent, fabric)
    small = large * p["wire_bytes_per_s"] / p["small_bytes_per_s"]
    return np.maximum(
        (most(sent) - most(sent * (1 - eye))) / p["copy_bytes_per_s"],
        np.minimum(small, p["large_s"] + large),
    )


def layer_s(
    sent: np.ndarray,
    rows: np.ndarray,
    shape: cost.Shape,
    fabric: Fabric,
    machine: Machine,
    *,
    combine_share: float = 1.0,
    overlap: bool = False,
    time_s: Callable = fluid.bottleneck_bound_s,
) -> dict[str, np.ndarray]:
    """Parts of a layer's time, each [...] in seconds; they sum to it.

    sent: bytes [..., devices, devices] of the dispatch, its diagonal what stays home; the combine
    is its transpose times `combine_share` (2 where it goes out in 8 bits and comes back in 16).
    rows: [..., devices, experts] as in experts_s. overlap: two halves of the batch take turns, so
    that in the ideal the longer of wire and arithmetic counts alone (DeepSeek-V3, arXiv 2412.19437,
    section 3.2.1).
    """
    sent = np.asarray(sent, dtype=float)
    there, back = sent, combine_share * np.swapaxes(sent, -1, -2)
    away = (sent > 0) & ~np.eye(sent.shape[-1], dtype=bool)
    messages = np.maximum(away.sum(-1).max(-1), away.sum(-2).max(-1))
    own = np.maximum(sent.sum(-1).max(-1), sent.sum(-2).max(-1))
    p = machine.exchange
    parts = dict(
        start=machine.layer["start_s"] + 2 * (p["start_s"] + p["message_s"] * messages),
        wire=wire_s(there, fabric, machine, time_s) + wire_s(back, fabric, machine, time_s),
        arithmetic=experts_s(rows, shape, machine).max(-1),
        order=own / machine.layer["order_bytes_per_s"],
    )
    parts["hidden"] = (
        -np.minimum(parts["wire"], parts["arithmetic"]) if overlap else np.zeros_like(parts["wire"])
    )
    return parts


def of_model(
    sent: np.ndarray, rows: np.ndarray, model: Model, fabric: Fabric, **options
) -> dict[str, np.ndarray]:
    """layer_s of a model's layer whose rows go out in its own form, from `sent` in bfloat16;
    options: as layer_s.
    """
    share = model.out_share
    return layer_s(
        share * np.asarray(sent, dtype=float),
        rows,
        model.shape,
        fabric,
        combine_share=1 / share,
        **options,
    )


def total_s(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Time [...] in seconds of a layer of these parts."""
    return sum(parts[name] for name in PARTS)


def excess(
    parts: Mapping[str, np.ndarray], even: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Slowdown over the perfectly even layer by part, as a share of its time; the parts' sum is the
    slowdown.
    """
    return {name: (parts[name] - even[name]) / total_s(even) for name in PARTS}


def even_layer(tokens: int, shape: cost.Shape, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, rows) of `tokens` tokens that spread perfectly over devices and, in whole rows, over
    their experts.
    """
    rows = np.diff(np.arange(shape.experts + 1) * (tokens * shape.k) // shape.experts).reshape(
        devices, -1
    )
    return np.full((devices, devices), tokens * shape.k * 2.0 * shape.hidden / devices**2), rows


def step_s(layers: np.ndarray, tokens: int, model: Model, machine: Machine) -> np.ndarray:
    """Time [...] in seconds of a model's step forward: its layers' times [..., layers] and the
    rest.

    The rest (attention, embeddings, dense layers) is the same on every device, which does it for
    its own `tokens`: the longer of reading its weights in bfloat16 and 2 operations per parameter
    and token.  Attention over the past is left out.
    """
    weights, p = model.rest_parameters, machine.expert
    return layers.sum(-1) + max(
        2 * weights / p["memory_bytes_per_s"], 2 * weights * tokens / p["flop_per_s"]
    )
