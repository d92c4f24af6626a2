"""SGLang: the dumps of its expert distribution recorder, and the locations that it starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from lib.engines import recording
from lib.engines.recording import Recording


def read(content: object, *, experts: int = 0) -> Recording | None:
    """The recording in a dump of the expert distribution recorder, None if it is none; experts: of
    a layer, where it has no map of them (0: not given).

    Modes "per_token" (records with topk_ids_of_layer [layers, tokens, slots], -1: nothing) and
    "per_pass" (records with global_physical_count [layers, physical experts]) count physical
    experts; last_physical_to_logical_map [layers, physical experts] names their logical ones. Mode
    "stat" has logical_count [steps, layers, experts].  Records of one forward pass (of several
    ranks) are one step.

    Schema: sgl-project/sglang, python/sglang/srt/eplb/expert_distribution.py, commit 02295fe5ac5c
    (_DetailSinglePassGatherer, _DetailAccumulator, _StatAccumulator).
    """
    if not isinstance(content, Mapping):
        return None
    if "records" not in content:
        if "logical_count" not in content:
            return None
        steps = np.asarray(content["logical_count"])
        return recording.counted("SGLang, stat", steps[None] if steps.ndim == 2 else steps)
    records = content["records"]
    if not records:
        raise ValueError("records: there are none; was the recorder started before the requests?")
    logical = content.get("last_physical_to_logical_map")
    if "topk_ids_of_layer" in records[0]:
        return _per_token(records, logical, experts)
    name = "logical_count" if "logical_count" in records[0] else "global_physical_count"
    loads = np.stack([np.asarray(record[name]) for record in records])
    if name != "logical_count":
        if logical is None:
            raise ValueError("records of physical experts without last_physical_to_logical_map")
        loads = recording.folded(loads, np.asarray(logical))
    passes = [record.get("forward_pass_id", at) for at, record in enumerate(records)]
    return recording.counted("SGLang, per pass", by_step(passes, loads))


def together(ranks: Sequence[object]) -> Mapping:
    """The dump of all ranks, of one dump each (modes "per_pass" and "per_token" write them so).

    Refused: dumps without records, or with different maps.
    """
    known = [rank for rank in ranks if isinstance(rank, Mapping) and "records" in rank]
    if len(known) < len(ranks):
        raise ValueError(f"a folder of {len(ranks)} files: must all be SGLang's records")
    name = "last_physical_to_logical_map"
    maps = [np.asarray(rank[name]) for rank in known if rank.get(name) is not None]
    if any(not np.array_equal(maps[0], other) for other in maps):
        raise ValueError(f"{name}: differs between the ranks' files")
    records = [record for rank in known for record in rank["records"]]
    return {"records": records} | ({name: maps[0]} if maps else {})


def _per_token(records: Sequence[Mapping], logical: object, experts: int) -> Recording:
    parts, positions, tokens = [], [], []
    known = None if logical is None else recording.mapped(np.asarray(logical))
    for record in records:
        index = np.asarray(record["topk_ids_of_layer"]).astype(np.int64)
        if known is not None:
            if len(known) != len(index) or index.max() >= known.shape[1]:
                raise ValueError(f"topk_ids_of_layer of shape {index.shape}: is not of its map")
            layer = np.arange(len(index))[:, None, None]
            index = np.where(index < 0, -1, known[layer, np.maximum(index, 0)])
        parts.append(index.swapaxes(0, 1))
        size = index.shape[1]
        positions.append(_of(record.get("positions"), size, np.arange(size)))
        tokens.append(_of(record.get("input_ids"), size, np.full(size, -1)))
    experts = experts if known is None else int(known.max()) + 1
    return recording.routed(
        "SGLang, per token", parts, experts=experts, position=positions, token=tokens
    )


def _of(values: object, size: int, otherwise: np.ndarray) -> np.ndarray:
    found = otherwise if values is None else np.asarray(values)
    if found.shape != (size,):
        raise ValueError(f"a record of {size} tokens has {len(found)} positions or token ids")
    return found


def by_step(names: Sequence[object], loads: np.ndarray) -> np.ndarray:
    """[steps, layers, experts]: loads [records, layers, experts] summed over equal names, in order
    of their first.
    """
    numbers = {name: at for at, name in enumerate(dict.fromkeys(names))}
    found = np.zeros((len(numbers), *loads.shape[1:]), loads.dtype)
    np.add.at(found, [numbers[name] for name in names], loads)
    return found


def locations(slots: np.ndarray, layer: np.ndarray, of: int) -> str:
    """JSON for --init-expert-location: {"physical_to_logical_map": [layers, physical experts]},
    device after device; --ep-num-redundant-experts is the number of slots less that of experts.

    slots [layers, devices, slots] expert numbers; layer: their numbers; of: layers of the model.
    Those that have no placement (dense ones, which SGLang numbers too) get expert i mod experts in
    slot i, its trivial location.

    Schema: sgl-project/sglang, python/sglang/srt/eplb/expert_location.py, commit 01fec5c2e61f
    (compute_initial_expert_location_metadata, init_by_mapping; init_trivial).
    """
    flat = slots.reshape(len(slots), -1)
    table = np.tile(np.arange(flat.shape[1]) % (int(flat.max()) + 1), (of, 1))
    table[layer] = flat
    return json.dumps({"physical_to_logical_map": table.tolist()}) + "\n"
