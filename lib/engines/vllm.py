"""vLLM: snapshots of its expert load balancer, and its map from physical to logical experts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lib.engines import recording, sglang
from lib.engines.recording import Recording

MAPS = ("physical_to_logical_map", "physical_to_logical", "phy2log")
LOADS = ("expert_load_pass", "expert_load_window", "expert_load")  # before any other "…load…"
STEPS = ("step", "step_idx", "current_step", "forward_pass_id")


def read(content: object) -> Recording | None:
    """The recording in JSON snapshots of the balancer's state, None if it holds none.

    A snapshot has expert_load_pass [layers, physical experts] or expert_load_window [passes,
    layers, physical experts] (or another array "…load…" that ends so) and, itself or the object
    that lists the snapshots, physical_to_logical_map [layers, physical experts]: the loads are
    folded by the map of their own snapshot. An array is nested lists, or {"shape", "value"}.
    Snapshots of one step (of several ranks) are one step; empty passes of a window are left out.

    vLLM keeps this state and writes no file of it: the names and shapes are those of vllm-project/
    vllm, vllm/distributed/eplb/eplb_state.py, commit 0014ec6c58e1 (EplbState).
    """
    steps: list[np.ndarray] = []
    names: list[object] = []
    for at, (snapshot, logical) in enumerate(_snapshots(content)):
        table = array(logical)
        load = _load(snapshot, table.shape[-1])
        table = np.tile(table, (load.shape[-2], 1)) if table.ndim == 1 else table
        found = recording.folded(load, table).reshape(-1, load.shape[-2], int(table.max()) + 1)
        name = next((snapshot[key] for key in STEPS if key in snapshot), f"snapshot {at}")
        steps.extend(found)
        names.extend((str(name), number) for number in range(len(found)))
    if not steps:
        return None
    if len({step.shape for step in steps}) > 1:
        raise ValueError("snapshots of different numbers of layers or experts")
    loads = sglang.by_step(names, np.stack(steps))
    return recording.counted("vLLM, balancer", loads[loads.any((1, 2))])


def _snapshots(content: object, logical: object = None) -> Iterator[tuple[Mapping, object]]:
    """Every snapshot in order, and its map."""
    if isinstance(content, Sequence) and not isinstance(content, str):
        for part in content if content and isinstance(content[0], Mapping) else []:
            yield from _snapshots(part, logical)
    elif isinstance(content, Mapping):
        own = next((content[name] for name in MAPS if name in content), logical)
        if own is not None and _loads(content):
            yield content, own
            return
        for part in content.values():
            if isinstance(part, Mapping | list):
                yield from _snapshots(part, own)


def _loads(snapshot: Mapping) -> list[str]:
    named = [name for name in LOADS if snapshot.get(name) is not None]
    others = [
        n for n, part in snapshot.items() if "load" in str(n) and isinstance(part, list | dict)
    ]
    return named or others


def _load(snapshot: Mapping, slots: int) -> np.ndarray:
    """[..., layers, physical experts] of a snapshot."""
    name = _loads(snapshot)[0]
    found = array(snapshot[name])
    if found.ndim < 2 or found.shape[-1] != slots:
        raise ValueError(
            f"{name} of shape {found.shape}: must be [..., layers, {slots}] as its map"
        )
    return found


def array(content: object) -> np.ndarray:
    """Nested lists, {"shape", "value"} or {layer: row} as an array of numbers."""
    if isinstance(content, Mapping) and "value" in content:
        return np.asarray(content["value"]).reshape(content.get("shape", -1))
    if isinstance(content, Mapping):
        content = [content[name] for name in sorted(content, key=lambda name: int(str(name)))]
    found = np.asarray(content)
    if found.dtype.kind not in "iuf":
        raise ValueError(f"an array of {found.dtype}: must be numbers")
    return found


def expert_map(slots: np.ndarray) -> str:
    """JSON: the map from physical to logical experts, a list per mixture-of-experts layer, device
    after device; num_redundant_experts of --eplb-config is its length less the experts.

    slots [layers, devices, slots] expert numbers.

    The map is physical_to_logical_map of vllm-project/vllm, vllm/distributed/eplb/eplb_state.py,
    commit 0014ec6c58e1.  Its config (vllm/config/parallel.py, commit 00193b82b0e2, EPLBConfig) has
    no option that loads one; the file is what pull request 49572 (open when this was written) reads
    by initial_expert_map_path.
    """
    return json.dumps(slots.reshape(len(slots), -1).tolist()) + "\n"
