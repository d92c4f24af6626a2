"""The adapter against every mixture-of-experts family of the installed transformers: a table of
verdicts.

Families are found by scanning the library: every causal language model whose configuration counts
experts.  Each is built from its own configuration class at a tiny size, with random weights.
``python tests/families.py`` writes the table to ``data/published/families-<version>.csv``.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import computed
import pandas as pd
import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lib.routing import adapter

ROOT = Path(__file__).parents[1]
TABLE = ROOT / f"data/published/families-{transformers.__version__}.csv"
SIZES = {
    r"num_hidden_layers$|^n_layers$|^num_layers$": 4,
    r"vocab_size": 128,
    r"num_experts_per_tok$|moe_top_?k$|moe_k$|top_k_experts$": 2,
    r"^(moe_)?(n|num)_(routed_|local_)?experts$": computed.EXPERTS,
    r"shared_experts$": 1,
    r"zero_expert_num$|n_groups$": 2,
    r"^n_group$": 4,
    r"^topk_group$": 2,
    r"first_k_dense_replace$|num_dense_layers$|moe_layer_start_index$": 1,
    r"(n|num)_(attention_)?heads$": 4,
    r"key_value_heads$|kv_n_heads$": 2,
    r"head_dim$|lora_rank$": 8,
    r"hidden_size$|d_model$": 32,
    r"intermediate_(size|dim)$|ffn_hidden_size$": 16,
    r"max_position_embeddings$|max_seq_len$": 256,
    r"^(pad|bos|eos)_token_id$": 1,
}
# what some classes ask for besides: tried alone, then in twos and threes, until the model builds,
# runs and has experts
VARIANTS = (
    {},
    {r"key_value_heads$": 4},
    {r"num_experts_per_tok$": 1},
    {
        r"num_experts_per_tok$|top_k_experts$": 2,
        r"^(n|num)_(routed_)?experts$": computed.EXPERTS,
        r"shared_experts$": 1,
        r"^moe_intermediate_size$": 16,
    },
    {r"^head_dim$": 8},
    {r"^layer_types$": ["full_attention"] * 4},
    {r"^layer_types$": ["linear_attention"] * 4},
    {r"moe(?!_apply)": True},
    {r"rope_theta": 1e4, r"clip_qkv": 8.0},
)


def families() -> dict[str, type]:
    """Model class by name of every causal language model whose configuration has a field that
    counts experts.
    """
    found = {}
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        model = getattr(transformers, name, None)
        if model is not None and _counts_experts(model.config_class):
            found[name] = model
    return dict(sorted(found.items()))


def _counts_experts(config: type) -> bool:
    """Whether `config` or a part of it for text has a field that is named for experts."""
    parts = [
        config,
        *(part for name, part in _parts(config).items() if not re.search("vision|audio", name)),
    ]
    return any("experts" in name for part in parts for name in _fields(part))


def _fields(config: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(config.__init__).parameters)


def _parts(config: type) -> dict[str, type]:
    return {
        name: part
        for name, part in getattr(config, "sub_configs", {}).items()
        if inspect.isclass(part)
    }


def shrink(config: type, variant: dict) -> dict:
    """Arguments that make `config` tiny: each number named like a size is replaced, and what
    `variant` says set.
    """
    chosen = {}
    for name, field in _fields(config).items():
        for pattern, value in SIZES.items():
            if re.search(pattern, name) and (
                type(field.default) is int or name.endswith("token_id")
            ):
                chosen.setdefault(name, value)
        for pattern, value in variant.items():
            if re.search(pattern, name) and (field.default is False or value is not True):
                chosen[name] = copy.deepcopy(value)  # some classes change the list
    return chosen | {name: shrink(kind, variant) for name, kind in _parts(config).items()}


def configuration(kind: type, variant: dict) -> transformers.PreTrainedConfig:
    """The tiny configuration; what `variant` names and its parts lack is set on them too."""
    config = kind(**shrink(kind, variant))
    for name in _parts(kind):
        for pattern, value in variant.items():
            if pattern.isidentifier() and not hasattr(getattr(config, name), pattern):
                setattr(getattr(config, name), pattern, value)
    return config


def build(family: type) -> nn.Module:
    """A tiny model of `family` with random weights whose routers decide clearly; the first telling
    error where none runs.
    """
    errors = []
    for first, second, third in itertools.combinations_with_replacement(VARIANTS, 3):
        try:
            torch.manual_seed(0)
            model = family(configuration(family.config_class, first | second | third)).eval()
            _randomise(model)
            with torch.no_grad():
                model(input_ids=computed.tokens(), use_cache=False)
            adapter.layers(model)
            return model
        except Exception as caught:  # whatever a class refuses, another variant may serve
            errors.append(caught)
    telling = [error for error in errors if "has no mixture" not in str(error)] or errors
    raise next((error for error in telling if "adapter" in str(error)), telling[0])


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Weights, vectors per expert (biases and scales that start at 0 or 1) and tables of experts by
    token.
    """
    for value in (*model.parameters(), *model.buffers()):
        if not value.is_floating_point():
            if value.dim() == 2 and len(value) == 128:
                value.copy_(torch.rand(128, computed.EXPERTS).topk(value.shape[1]).indices)
        elif value.dim() > 1 and value.numel() > computed.EXPERTS + 2:
            value.normal_(0, 0.3)
        elif computed.EXPERTS <= value.numel() <= computed.EXPERTS + 2:
            value += 0.1 * torch.randn_like(value)


def row(name: str, family: type) -> dict[str, object]:
    """One family's row: verdict "record and assign", "record only", "fails" or "not built"; reason
    in one line.
    """
    result = dict(
        family=family.config_class.model_type,
        model=name,
        layers=0,
        experts=0,
        slots=0,
        rule="",
        verdict="not built",
        reason="",
    )
    try:
        model = build(family)
        layers = adapter.layers(model)
        rules = dict.fromkeys(str(layer.rule) for layer in layers if layer.rule is not None)
        result |= dict(
            layers=len(layers),
            experts=layers[0].num_experts,
            slots=layers[0].k,
            rule=" | ".join(rules),
        )
        result["verdict"] = "fails"
        computed.check_counts(model, layers)
        result["verdict"], result["reason"] = (
            "record only",
            next((layer.why for layer in layers if layer.why), ""),
        )
        if not result["reason"]:
            result["verdict"] = "fails"
            computed.check_assign(model, layers)
            result["verdict"] = "record and assign"
    except Exception as error:
        result["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return result


def rows() -> Iterator[dict[str, object]]:
    """The rows of all families."""
    for name, family in families().items():
        yield row(name, family)


def table() -> pd.DataFrame:
    """A row per family: family, model, layers, experts, slots, rule, verdict, reason."""
    return pd.DataFrame(list(rows()))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    found = table()
    found.to_csv(Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE, index=False)
    print(found.verdict.value_counts().to_string())
