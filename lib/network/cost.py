"""What an exchange, expert compute and a layer cost: shapes, what a time is predicted from, and the
formulas.

Simulation and calibration use the same ones: (parameters, features) → seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Features = Mapping[str, np.ndarray]

# rows of a tile of PyTorch's grouped products on Hopper (aten/src/ATen/native/cuda/GroupMM.cu)
TILE = 128


@dataclass(frozen=True)
class Shape:
    """A mixture-of-experts layer: hidden size, width of one SwiGLU expert, experts, experts per
    token, and bytes of one weight of an expert (2: bfloat16).
    """

    hidden: int
    width: int
    experts: int
    k: int
    weight_bytes: float = 2.0

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert's three matrices."""
        return round(3 * self.hidden * self.width * self.weight_bytes)

    @property
    def row_flop(self) -> int:
        """Floating-point operations of one row through one expert."""
        return 6 * self.hidden * self.width


def tiled(rows: np.ndarray) -> int:
    """Rows that grouped products of `rows` [experts] work on: each expert's, rounded up to whole
    tiles.
    """
    return int((-(-rows // TILE) * TILE).sum())


def features(sent: np.ndarray) -> dict[str, int]:
    """What a time is predicted from, of bytes [devices, devices]: wire (the most that one device
    sends to others or gets from them), back (what that device moves in the other direction), own
    (the most that it sends or gets, its copy to itself included), messages (most of one device).
    """
    away = sent - np.diag(np.diag(sent))
    wire, back = busiest(away)
    return dict(
        wire_bytes=int(wire),
        back_bytes=int(back),
        own_bytes=int(max(sent.sum(0).max(), sent.sum(1).max())),
        messages=int(max((away > 0).sum(0).max(), (away > 0).sum(1).max())),
    )


def busiest(away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of bytes [..., devices, devices] without a diagonal: the most that one device sends or gets
    [...], and what it moves in the other direction, the most of it where several are as busy.
    """
    gets, sends = away.sum(-2), away.sum(-1)
    most, least = np.maximum(gets, sends), np.minimum(gets, sends)
    wire = most.max(-1)
    return wire, np.where(most >= wire[..., None], least, 0).max(-1)


def start_s(p: Mapping[str, float], messages: np.ndarray | int) -> np.ndarray:
    """start + first + (messages − 1) · message: what an exchange costs before its bytes move;
    without a message, start alone.  On two devices there is no second message: its cost, message_s,
    is another's to know, and 0 where it is not given.
    """
    count = np.asarray(messages)
    more = p.get("message_s", 0.0) * np.maximum(count - 1, 0)
    return p["start_s"] + p["first_s"] * np.minimum(count, 1) + more


def sent_s(p: Mapping[str, float], bytes_: np.ndarray) -> np.ndarray:
    """min(wire / B₁, large + wire / B): large exchanges take another path, which starts later and
    is faster.
    """
    small, large = bytes_ / p["small_bytes_per_s"], bytes_ / p["wire_bytes_per_s"]
    return np.minimum(small, p["large_s"] + large)


def wire_s(p: Mapping[str, float], bytes_: np.ndarray, copied: np.ndarray) -> np.ndarray:
    """max(copy / C, min(wire / B₁, large + wire / B)): the copy to itself runs beside the wire."""
    return np.maximum(copied / p["copy_bytes_per_s"], sent_s(p, bytes_))


def exchange_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = starts + max(copy / C, min(w / B₁, large + w / B)), w = wire + back_share · back: one
    all-to-all.

    The copy to itself is own − wire.  Both directions of a device share its processors: what it
    moves the other way counts by back_share.  Features: features.
    """
    copied = f["own_bytes"] - f["wire_bytes"]
    both = f["wire_bytes"] + p["back_share"] * f["back_bytes"]
    return start_s(p, f["messages"]) + wire_s(p, both, copied)


def even_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + min(wire / B₁, large + wire / B): without split sizes all goes evenly, and the
    copy stays hidden.
    """
    return p["start_s"] + sent_s(p, f["wire_bytes"])


def expert_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + ((A w / M)^q + (n c / R)^q)^(1/q): n rows in whole tiles on A active experts of w
    bytes, c operations a row.

    The first term is the floor of small batches, reading every active expert's weights at M bytes
    per second; the second the arithmetic at R operations per second, on each expert's rows rounded
    up to tiles (tiled); q joins them: 1 one after the other, large: the longer one counts.  No row
    takes no time.
    """
    read = f["active"] * f["expert_bytes"] / p["memory_bytes_per_s"]
    work = f["tile_rows"] * f["row_flop"] / p["flop_per_s"]
    q = 1 + p["join"]
    longer = np.maximum(np.maximum(read, work), 1e-12)
    joined = longer * ((read / longer) ** q + (work / longer) ** q) ** (1 / q)
    return np.where(np.asarray(f["tile_rows"]) > 0, p["start_s"] + joined, 1e-9)


def layer_parts(p: Mapping[str, float], f: Features) -> dict[str, np.ndarray]:
    """A whole layer's time by part, each in seconds: start (of the layer's kernels, and `start_s`
    of its collectives), wire (both exchanges under way), arithmetic (the experts of the slowest
    device) and order (source / S + own / M: rows put in order in memory; a device gathers and
    combines the rows of its own tokens, source, whatever the routes, and sorts those that it gets).

    Features: start_s, wire_s and expert_s in seconds, source_bytes, own_bytes.
    """
    return dict(
        start=p["start_s"] + f["start_s"],
        wire=f["wire_s"],
        arithmetic=f["expert_s"],
        order=f["source_bytes"] / p["source_bytes_per_s"] + f["own_bytes"] / p["order_bytes_per_s"],
    )


def layer_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + 2 · exchange + experts of the slowest device + source / S + own / M: the sum of
    layer_parts, of times predicted for them.

    Features: exchange_s (of one exchange as exchange_s, its start included), expert_s,
    source_bytes, own_bytes.
    """
    both = dict(start_s=np.zeros(()), wire_s=2 * f["exchange_s"])
    parts = layer_parts(p, {**f, **both})
    return parts["start"] + parts["wire"] + parts["arithmetic"] + parts["order"]
