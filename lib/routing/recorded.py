"""Files of expert counts as serving engines and training frameworks write them: each gives rows of
layer, expert and count, and what it says of the number of experts and of k.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

NAMES = {"layer_id": "layer", "expert_id": "expert"}  # SGLang's


def rows(path: Path) -> pd.DataFrame:
    """Rows of a file of counts: layer, expert, count, and, as far as the file tells them, experts,
    top_k, model, domain, tokens.

    .csv: columns layer (or layer_id), expert (or expert_id) and count, or without it a line per
    assignment (llama.cpp).  .pt, .npy, .json: an array [..., layers, experts] (vLLM), or a dump of
    SGLang's recorder: "logical_count", or "records" with one of it, with "global_physical_count",
    or with "topk_ids_of_layer" [layers, tokens, slots], where slots below 0 are unused and k is the
    most that a token uses; "last_physical_to_logical_map" [layers, slots] folds replicas into their
    expert.  .jsonl: Megatron's "layer" and "tpe", lists of experts per rank.  A folder:
    TensorRT-LLM's meta_info.json with rank*.safetensors, keys "iteration_layer".  Steps and ranks
    are summed, layers never are.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".csv":
        heads = pd.read_csv(path, header=None, nrows=1).iloc[0].replace(NAMES)
        if heads.duplicated().any():
            raise ValueError(f"column {heads[heads.duplicated()].iloc[0]} stands there twice")
        frame = pd.read_csv(path).rename(columns=NAMES)
        if lacking := {"layer", "expert"} - set(frame.columns):
            raise ValueError(f"lacks the column {min(lacking)}")
        return frame if "count" in frame else frame.assign(count=1)
    if path.suffix == ".jsonl":
        return _megatron(
            [json.loads(line) for line in path.read_text().split("\n") if line.strip()]
        )
    if path.suffix == ".pt":
        return _dump(torch.load(path, map_location="cpu", weights_only=True))
    return _dump(json.loads(path.read_text()) if path.suffix == ".json" else np.load(path))


def _grid(load: object, layer: Iterable[int] | None = None, **more: int) -> pd.DataFrame:
    """Counts [..., layers, experts] as rows; layer: the numbers of the layers."""
    whole = np.asarray(load)
    if whole.ndim < 2 or whole.dtype.kind not in "iuf":
        raise ValueError(f"shape {whole.shape}: must end in [layers, experts]")
    total = whole.reshape(-1, *whole.shape[-2:]).sum(0)
    number, expert = np.indices(total.shape)
    if layer is not None:
        number = np.asarray(list(layer))[number]
    columns = dict(layer=number.ravel(), expert=expert.ravel(), count=total.ravel())
    return pd.DataFrame(columns | dict(experts=total.shape[1]) | more)


def _dump(content: Any) -> pd.DataFrame:
    if not isinstance(content, dict):
        return _grid(content)
    if "records" not in content:
        return _grid(content["logical_count"])
    to_logical = content.get("last_physical_to_logical_map")
    logical = None if to_logical is None else np.asarray(to_logical)
    records = content["records"]
    if "topk_ids_of_layer" in records[0]:
        return _choices([np.asarray(one["topk_ids_of_layer"]) for one in records], logical)
    if "logical_count" in records[0]:
        return _grid(np.asarray([np.asarray(one["logical_count"]) for one in records]))
    physical = np.asarray([np.asarray(one["global_physical_count"]) for one in records]).sum(0)
    if logical is None:
        raise ValueError("counts physical experts: must have last_physical_to_logical_map")
    layer = np.indices(physical.shape)[0].ravel()
    columns = dict(layer=layer, expert=_fold(logical, layer, np.indices(physical.shape)[1].ravel()))
    return pd.DataFrame(columns | dict(count=physical.ravel(), experts=_experts(logical)))


def _choices(chosen: list[np.ndarray], logical: np.ndarray | None) -> pd.DataFrame:
    """Rows of what tokens chose, arrays [layers, tokens, slots] of a pass each."""
    index = np.concatenate(chosen, axis=1)
    used = index >= 0
    layer, *_ = np.nonzero(used)
    expert, told = index[used], {}
    if logical is not None:
        expert, told = _fold(logical, layer, expert), dict(experts=_experts(logical))
    return pd.DataFrame(
        dict(layer=layer, expert=expert, count=1, top_k=int(used.sum(2).max())) | told
    )


def _fold(logical: np.ndarray, layer: np.ndarray, physical: np.ndarray) -> np.ndarray:
    """The logical expert of each physical one."""
    if layer.max() >= len(logical) or physical.max() >= logical.shape[1]:
        raise ValueError(f"expert {physical.max()}: must be in the map of shape {logical.shape}")
    return logical[layer, physical]


def _experts(logical: np.ndarray) -> int:
    """The number of logical experts: a map places each of them somewhere."""
    return int(logical.max()) + 1


def _megatron(lines: list[dict]) -> pd.DataFrame:
    names = sorted({(str(line.get("block", "")), line["layer"]) for line in lines})
    alone = len({block for block, _ in names}) == 1
    parts = []
    for line in lines:
        layer = line["layer"]
        if not alone:  # numbered on over the blocks
            layer = names.index((str(line.get("block", "")), layer))
        parts.append(_grid(np.atleast_2d(np.asarray(line["tpe"]))[:, None], [layer]))
    return pd.concat(parts)


def _folder(path: Path) -> pd.DataFrame:
    from safetensors.numpy import load_file  # for this one kind of file

    about = json.loads((path / "meta_info.json").read_text())
    told = dict(experts=about["num_experts"], top_k=about["num_experts_per_token"])
    counts = [pair for file in sorted(path.glob("rank*.safetensors")) for pair in
              load_file(file).items()]  # fmt: skip
    if not counts:
        raise ValueError("lacks rank*.safetensors")
    named = [(int(key.rpartition("_")[2]), load) for key, load in counts]
    return pd.concat([_grid(load[None], [layer], **told) for layer, load in named])
