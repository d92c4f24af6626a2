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
    token.
    """

    hidden: int
    width: int
    experts: int
    k: int

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert's three matrices in bfloat16."""
        return 6 * self.hidden * self.width

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
    sends to others or gets from them), own (the most that it sends or gets, its copy to itself
    included), messages (most of one device).
    """
    away = sent - np.diag(np.diag(sent))
    return dict(
        wire_bytes=int(max(away.sum(0).max(), away.sum(1).max())),
        own_bytes=int(max(sent.sum(0).max(), sent.sum(1).max())),
        messages=int(max((away > 0).sum(0).max(), (away > 0).sum(1).max())),
    )


def exchange_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + messages · message + max(copy / C, min(wire / B₁, large + wire / B)): one
    all-to-all.

    The copy to itself, own − wire, runs beside the wire; large exchanges take another path, which
    starts later and is faster.  Features: features.
    """
    copy = (f["own_bytes"] - f["wire_bytes"]) / p["copy_bytes_per_s"]
    small, large = (
        f["wire_bytes"] / p["small_bytes_per_s"],
        p["large_s"] + f["wire_bytes"] / p["wire_bytes_per_s"],
    )
    return (
        p["start_s"] + p["message_s"] * f["messages"] + np.maximum(copy, np.minimum(small, large))
    )


def even_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + min(wire / B₁, large + wire / B): without split sizes all goes evenly, and the
    copy stays hidden.
    """
    small, large = (
        f["wire_bytes"] / p["small_bytes_per_s"],
        p["large_s"] + f["wire_bytes"] / p["wire_bytes_per_s"],
    )
    return p["start_s"] + np.minimum(small, large)


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


def layer_s(p: Mapping[str, float], f: Features) -> np.ndarray:
    """T = start + dispatch + experts of the slowest device + combine + own / M: a whole layer, of
    times predicted for its parts (exchange_s twice, expert_s the most over devices); own / M: rows
    put in order on the device.
    """
    return (
        p["start_s"] + 2 * f["exchange_s"] + f["expert_s"] + f["own_bytes"] / p["order_bytes_per_s"]
    )
