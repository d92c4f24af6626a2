"""The layer of a user's model, as its configuration alone describes it: no weight is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from lib.model import load
from lib.network import cost, step
from lib.routing import declared

PER_TOKEN = r"(num_)?experts_per_tok(en)?$|moe_top_?k$|moe_k$|num_selected_experts$|top_k_experts$"
PACKED = {"fp8": 1.0, "mxfp4": 0.5 + 1 / 32}  # bytes a weight; MXFP4 has 8 bits of scale for 32


def models(
    listed: list[str],
    model: str,
    *,
    revision: str = "main",
    dtype: str = "auto",
    code: str = "",
) -> list[step.Model]:
    """The published models `listed`, or the `own` one."""
    found = own(model, revision=revision, dtype=dtype, code=code)
    known = step.models()
    return [found] if found else [known[name] for name in listed]


def own(
    model: str, *, revision: str = "main", dtype: str = "auto", code: str = ""
) -> step.Model | None:
    """The model of a folder or a hub; None of an embedded one, too small for its times to matter.

    Refused in one line: one that cannot be opened, or as `of_config`.
    """
    if model in load.OURS:
        return None
    _, options, config = load.configured(model, revision, code)
    return of_config(config, Path(model).name, dtype=dtype, code=options["trust_remote_code"])


def of_config(config: Any, name: str, *, dtype: str = "auto", code: bool = False) -> step.Model:
    """The layer of a configuration: the model is built without storage and its experts are counted.

    width: of one expert as of three matrices hidden × width.  The rest is all but the routed
    experts and the input's embedding, shared experts and dense layers included.  Refused: no
    experts, layers that differ in them, a number of experts per token that is not told, weights in
    a form whose size is not known.
    """
    where, text = f"shapes: model = {name!r}", config.get_text_config()
    with torch.device("meta"):
        build = transformers.AutoModelForCausalLM.from_config
        net = load.one_line(name, lambda: build(config, trust_remote_code=code))
    held = {key: (size, net.get_submodule(key)) for key, size in declared.holders(net).items()}
    sizes = {(size, _weights(part, size) // size) for size, part in held.values()}
    if len(sizes) != 1:
        found = "no experts" if not sizes else f"layers of {sorted(sizes)} experts and weights"
        raise ValueError(f"{where}: has {found}: must have the same experts in every MoE layer")
    ((experts, weights),) = sizes
    k = _per_token(text, where)
    if not 1 <= k <= experts:
        raise ValueError(f"{where}: {k} experts a token: must be from 1 to {experts}")
    width = max(round(weights / (3 * text.hidden_size)), 1)
    shape = cost.Shape(text.hidden_size, width, experts, k, _bytes(config, dtype, where))
    routed = sum(p.numel() for _, part in held.values() for p in part.parameters())
    rest = sum(p.numel() for p in net.parameters()) - routed
    tied = getattr(text, "tie_word_embeddings", False)
    embedding = 0 if tied else net.get_input_embeddings().weight.numel()
    return step.Model(name, shape, len(held), float(rest - embedding))


def _weights(part: nn.Module, experts: int) -> int:
    """Numbers in the matrices of a holder of experts, biases left out."""
    least = 2 if isinstance(part, nn.ModuleList) else 3
    return sum(p.numel() for p in part.parameters() if p.dim() >= least)


def _per_token(text: Any, where: str) -> int:
    """Experts per token by the configuration."""
    found = [
        value
        for name, value in text.to_dict().items()
        if re.search(PER_TOKEN, name) and type(value) is int and value > 0
    ]
    if not found:
        raise ValueError(f"{where}: its configuration must tell the number of experts per token")
    return found[0]


def _bytes(config: Any, dtype: str, where: str) -> float:
    """Bytes of one weight of an expert, as it is served: packed, or in `dtype`."""
    kinds = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
    if dtype != "auto":
        return kinds[dtype]
    known = getattr(config, "quantization_config", None) or {}
    known = known if isinstance(known, dict) else known.to_dict()
    method = str(known.get("quant_method", "")).lower()
    if not method:
        own = str(getattr(config, "dtype", None) or torch.float32).removeprefix("torch.")
        return kinds.get(own, 2.0)
    bits = known.get("bits") or _group_bits(known)
    size = PACKED.get(method, float(bits) / 8 if bits else 0.0)
    if not size:
        rule = "must be one of fp8, mxfp4, or tell its bits; or give dtype"
        raise ValueError(f"{where}: quant_method = {method!r}: {rule}")
    return size


def _group_bits(known: dict) -> int:
    """Bits of a weight where they are told per group (compressed-tensors)."""
    groups = (known.get("config_groups") or {}).values()
    return max((int((one.get("weights") or {}).get("num_bits", 0)) for one in groups), default=0)
