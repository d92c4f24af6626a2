"""TensorRT-LLM: the statistics of its expert counter, and its load balancer's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lib.engines import recording
from lib.engines.recording import Recording

TYPES = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1", "F32": "<f4", "F64": "<f8"}


def read(folder: Path) -> Recording:
    """The recording in a folder of statistics (EXPERT_STATISTIC_PATH): meta_info.json, and
    rankN.safetensors with an entry "iteration_layer" [experts] each; ranks are summed.

    Schema: NVIDIA/TensorRT-LLM, examples/wide_ep/ep_load_balancer/utils.py, commit 7ce477f3c73b
    (load_expert_statistic).
    """
    meta = json.loads((folder / "meta_info.json").read_text())
    found: dict[tuple[int, int], np.ndarray] = {}
    for path in sorted(folder.glob("rank*.safetensors")):
        if not path.name.endswith("_raw.safetensors"):
            for name, counts in _tensors(path):
                iteration, layer = (int(part) for part in name.split("_"))
                found[iteration, layer] = found.get((iteration, layer), 0) + counts
    if not found:
        raise ValueError("no rankN.safetensors with counts")
    steps = {iteration: at for at, iteration in enumerate(sorted({i for i, _ in found}))}
    of = 1 + max(layer for _, layer in found)
    loads = np.zeros((len(steps), of, int(meta["num_experts"])))
    for (iteration, layer), counts in found.items():
        loads[steps[iteration], layer] = counts
    k = int(meta.get("num_experts_per_token", 0))
    return recording.counted("TensorRT-LLM, statistics", loads, k)


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a safetensors file, by name."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    for name, about in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            values = np.frombuffer(raw[start + first : start + last], TYPES[about["dtype"]])
            yield name, values.reshape(about["shape"])


def balancer(slots: np.ndarray, layer: np.ndarray) -> str:
    """YAML for moe_config's load_balancer: num_slots, initial_global_assignments (by the layer's
    number in the model, expert of every slot, device after device) and layer_updates_per_iter 0, a
    static placement.

    slots [layers, devices, slots] expert numbers.

    Schema: NVIDIA/TensorRT-LLM, examples/wide_ep/ep_load_balancer/generate_eplb_config.py, commit
    76a646e90c8e (eplb_config).
    """
    flat = slots.reshape(len(slots), -1)
    rows = (f"  {at}: {row.tolist()}\n" for at, row in zip(layer, flat, strict=True))
    head = f"num_slots: {flat.shape[1]}\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n"
    return head + "".join(rows)
