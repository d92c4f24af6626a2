"""What a model says of its experts before it runs: in its configuration, and by the weights that it
holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Config(Protocol):
    """The configuration of a model of transformers, as far as it is asked here."""

    def to_dict(self) -> dict[str, Any]:
        """All its fields."""

    def get_text_config(self) -> Any:
        """The part that describes the text model: itself where there is no other."""


def configuration(model: nn.Module) -> Config:
    """The configuration of `model`; refused: one that has none, which is no model of transformers
    and has no expert that is known.
    """
    found = getattr(model, "config", None)
    if not isinstance(found, Config):
        raise ValueError(f"adapter.layers: {type(model).__name__}: has no mixture-of-experts layer")
    return found


def context(model: nn.Module) -> int | None:
    """How many tokens a document may have at most, by the configuration; None where it says
    nothing of it.
    """
    return getattr(configuration(model).get_text_config(), "max_position_embeddings", None)


def device_of(model: nn.Module) -> torch.device:
    """Where `model` takes its input: the device of its first parameter that is not offloaded."""
    devices = (p.device for p in model.parameters() if p.device.type != "meta")
    return next(devices, torch.device("cpu"))


def experts_of(module: nn.Module) -> int:
    """Number of experts that `module` itself holds, by its stacked weights [experts, …, …]; 0 if it
    has none.
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        return 0
    return max((p.shape[0] for p in module.parameters(recurse=False) if p.dim() >= 3), default=0)


def holders(model: nn.Module) -> dict[str, int]:
    """Number of experts by name of each module that holds any: stacked weights, or a list of
    modules.

    Only numbers count that stand in a field of the configuration that is named for experts, if
    there is such a field.
    """
    declared = numbers(configuration(model))
    found = {}
    for name, module in model.named_modules():
        listed = isinstance(module, nn.ModuleList) and "expert" in name
        size = len(module) if isinstance(module, nn.ModuleList) and listed else experts_of(module)
        slabs = {len(p) for p in module.parameters(recurse=False)} | {size}
        if size > 1 and (not declared or declared & slabs):
            found[name] = size
    return found


def numbers(config: Config) -> set[int]:
    """Whole numbers > 1 in fields of a configuration that are named for experts, at any depth."""
    return set(_numbers(config.to_dict()))


def _numbers(fields: dict) -> Iterator[int]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif "expert" in str(name) and type(value) is int and value > 1:
            yield value


def sparse_layers(config: Any) -> int:
    """How many MoE layers a text configuration asks for: all its layers, less those that one of its
    fields makes dense.

    The fields are those that transformers uses for it, whatever the family: a list of kinds per
    layer, a list of layer numbers, a number of dense layers at the start, a period with an offset,
    a first and a last layer.
    """
    kinds = getattr(config, "mlp_layer_types", None)
    if kinds is not None:
        return sum(kind != "dense" for kind in kinds)
    kinds = getattr(config, "layers_block_type", None) or ()
    if any("moe" in kind for kind in kinds):
        return sum("moe" in kind for kind in kinds)
    depth = config.num_hidden_layers
    depth = min(depth, getattr(config, "num_layers", None) or depth)  # blocks of two sub-layers
    return sum(_sparse(config, layer) for layer in range(depth))


def _sparse(config: Any, layer: int) -> bool:
    """Whether layer number `layer` has experts, by the fields that name layers by number."""

    def field(name: str, otherwise: int) -> int:
        return getattr(config, name, None) or otherwise

    first = max(field("first_k_dense_replace", 0), field("num_dense_layers", 0))
    last = getattr(config, "moe_layer_end_index", None)
    chosen = getattr(config, "moe_layers", None)
    return (
        layer >= max(first, field("moe_layer_start_index", 0))
        and (last is None or last < 0 or layer <= last)
        and layer not in (getattr(config, "mlp_only_layers", None) or ())
        and (chosen is None or layer in chosen)
        and (layer + 1) % field("decoder_sparse_step", 1) == 0
        and (layer + 1) % field("moe_layer_interval", 1) == 0
        and layer % field("expert_layer_period", 1) == field("expert_layer_offset", 0)
    )
