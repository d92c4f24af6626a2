"""Placements as the files that serving engines load, and those files read back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance
from lib.engines import sglang, tensorrt_llm, vllm

LINE = re.compile(r"^ *(\d+): *\[([\d, ]*)\] *$", re.MULTILINE)


def table(slots: np.ndarray, layer: np.ndarray) -> str:
    """CSV: a row per layer, device and slot, with the expert that stands there."""
    at, device, slot = np.indices(slots.shape)
    columns = dict(layer=layer[at.ravel()], device=device.ravel(), slot=slot.ravel())
    return pd.DataFrame(columns | dict(expert=slots.ravel())).to_csv(index=False)


# (slots [layers, devices, slots], layer [layers], layers of the model) → text
WRITERS: dict[str, Callable[[np.ndarray, np.ndarray, int], str]] = {
    "sglang": sglang.locations,
    "vllm": lambda slots, layer, of: vllm.expert_map(slots),
    "tensorrt-llm": lambda slots, layer, of: tensorrt_llm.balancer(slots, layer),
    "csv": lambda slots, layer, of: table(slots, layer),
}


def write(path: Path, to: str, slots: np.ndarray, layer: np.ndarray, of: int) -> None:
    """Write placements [layers, devices, slots] of the layers numbered `layer`, of a model with
    `of` layers, as the engine `to` loads them, whole or not at all.

    Refused: an unknown engine, layers that leave an expert out.
    """
    if to not in WRITERS:
        hint = provenance.nearest(to, WRITERS)
        raise ValueError(f"place: --to {to}: must be one of {', '.join(WRITERS)}{hint}")
    if not len(slots) or len(layer) != len(slots) or int(max(layer)) >= of:
        numbers = np.asarray(layer).tolist()
        raise ValueError(f"place: layers {numbers}: must be {len(slots)} numbers below {of}")
    experts = int(slots.max()) + 1
    for number, held in zip(layer, slots, strict=True):
        if len(np.unique(held)) != experts:
            raise ValueError(f"place: layer {number}: must hold each of {experts} experts")
    with provenance.writing(path) as part:
        part.write_text(WRITERS[to](slots, np.asarray(layer), of))


def read(path: Path, devices: int) -> dict[int, np.ndarray]:
    """By layer, the experts [devices, slots] in a file of any engine in `WRITERS`; vLLM's map
    numbers its layers from 0 on.

    Refused: a file of none, slots that do not divide among the devices.
    """
    text = path.read_text()
    try:
        if text.startswith("layer,"):
            frame = pd.read_csv(path).sort_values(["layer", "device", "slot"])
            rows = {int(at): part.expert.to_numpy() for at, part in frame.groupby("layer")}
        elif "initial_global_assignments" in text:
            rows = {int(at): np.array(json.loads(f"[{row}]")) for at, row in LINE.findall(text)}
        else:
            found = json.loads(text)
            found = found["physical_to_logical_map"] if isinstance(found, dict) else found
            rows = dict(enumerate(np.asarray(found)))
        return {at: np.asarray(row, dtype=int).reshape(devices, -1) for at, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"place: {path}: is no placement on {devices} devices: {reason}") from None
