"""The adapter against every mixture-of-experts family of the installed transformers: a table of
verdicts.

Families are found by scanning the library: every causal language model whose configuration counts
experts.  Each is built from its own configuration class at a tiny size, with random weights.
``python tests/families.py`` writes the table to ``data/published/families-<version>.csv``.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lib.routing import adapter
from lib.routing.layer import Layer, Watch

ROOT = Path(__file__).parents[1]
TABLE = ROOT / f"data/published/families-{transformers.__version__}.csv"
EXPERTS = 16
SIZES = {
    r"num_hidden_layers$|^n_layers$|^num_layers$": 4,
    r"vocab_size": 128,
    r"num_experts_per_tok$|moe_top_?k$|moe_k$|top_k_experts$": 2,
    r"^(moe_)?(n|num)_(routed_|local_)?experts$": EXPERTS,
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
        r"^(n|num)_(routed_)?experts$": EXPERTS,
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
                model(input_ids=tokens(), use_cache=False)
            adapter.layers(model)
            return model
        except Exception as caught:  # whatever a class refuses, another variant may serve
            errors.append(caught)
    telling = [error for error in errors if "has no mixture" not in str(error)] or errors
    raise next((error for error in telling if "adapter" in str(error)), telling[0])


def tokens() -> Tensor:
    """[2, 23] token ids."""
    return torch.randint(20, 110, (2, 23), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """Weights, vectors per expert (biases and scales that start at 0 or 1) and tables of experts by
    token.
    """
    for value in (*model.parameters(), *model.buffers()):
        if not value.is_floating_point():
            if value.dim() == 2 and len(value) == 128:
                value.copy_(torch.rand(128, EXPERTS).topk(value.shape[1]).indices)
        elif value.dim() > 1 and value.numel() > EXPERTS + 2:
            value.normal_(0, 0.3)
        elif EXPERTS <= value.numel() <= EXPERTS + 2:
            value += 0.1 * torch.randn_like(value)


def computed(model: nn.Module, layers: list[Layer]) -> list[np.ndarray]:
    """Per layer [experts] rows that each expert's own weights were multiplied with in an eager
    forward pass.

    Counted at the matrix products themselves, from where in the stack of weights the factor lies; a
    product with the whole stack counts the rows that are not 0.  Independent of how and where the
    adapter reads the assignment.
    """
    stacks = [_stack(model, layer) for layer in layers]
    counts = [np.zeros(len(stack), dtype=int) for stack in stacks]

    def see(_call: str, inputs: tuple, _result: object) -> None:
        factors = [value for value in inputs[:2] if isinstance(value, Tensor)]
        if len(factors) < 2:
            return
        for stack, count in zip(stacks, counts, strict=True):
            place = (factors[1].data_ptr() - stack.data_ptr()) / (
                stack[0].numel() * stack.element_size()
            )
            if not 0 <= place < len(stack) or factors[0].dim() < 2:
                continue
            if factors[0].is_floating_point() and factors[1].dim() == 2:
                count[int(place)] += factors[0].numel() // factors[0].shape[-1]
            elif factors[0].is_floating_point():
                count += (factors[0] != 0).any(-1).sum(-1).numpy()
            else:
                count += np.bincount(factors[0].flatten().numpy(), minlength=len(count))

    with torch.no_grad(), _eager(model), Watch(see):
        model(input_ids=tokens(), use_cache=False)
    return counts


def _stack(model: nn.Module, layer: Layer) -> Tensor:
    """A stack of experts' weights [experts, …] of a layer: the shortest, as experts that compute
    nothing stand last.
    """
    block = model.get_submodule(layer.name.rpartition(".")[0])
    found = [value for value in block.parameters() if value.dim() > 2 and len(value) >= EXPERTS]
    if not found and not hasattr(layer.module, "weight"):  # one matrix of all experts' rows
        found = [next(layer.module.parameters()).unflatten(0, (layer.num_experts, -1))]
    return min(found, key=len) if found else layer.module.weight


@contextlib.contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Inside, experts are computed by the family's own loop over them; before and after, by the
    library's choice.
    """
    before = getattr(model.config, "_experts_implementation", None)
    with contextlib.suppress(ValueError):  # a class that knows one way only
        model.set_experts_implementation("eager")
    yield
    with contextlib.suppress(ValueError):
        model.set_experts_implementation(before)


def check_counts(model: nn.Module, layers: list[Layer]) -> None:
    """The recorded counts are those of the products computed, each token at most k times, none
    lost.
    """
    whole = all(len(layer.places) == 3 for layer in layers)
    with torch.no_grad(), adapter.record(model, indices=True, weights=whole) as rec:
        model(input_ids=tokens(), use_cache=False)
    for i, count in enumerate(computed(model, layers)):
        index = rec.index(i)
        used = rec.weights[i][0] != 0 if whole else torch.ones_like(index, dtype=torch.bool)
        recorded = np.bincount(index.flatten().numpy(), minlength=rec.experts)
        if recorded[: len(count)].tolist() != count.tolist() or recorded.sum() != index.numel():
            raise AssertionError(
                f"layer {i}: recorded {recorded.tolist()}, computed {count.tolist()}"
            )
        if rec.load[i].tolist() != torch.bincount(index[used], minlength=rec.experts).tolist():
            raise AssertionError(f"layer {i}: load is not the count of its used slots")


def strategies() -> dict[str, adapter.Strategy]:
    """Assignments unlike the native one; every one returns other experts, other weights or another
    number of slots.
    """

    def permuted(_scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        index = (call.index + 3) % EXPERTS
        return index, call.rule.weights(call.logits, index)

    def dropped(_scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(call.index))[:, None] + torch.arange(call.index.shape[1])
        return call.index, call.weights * (rows % 3 > 0)

    def forced(scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        index = torch.arange(5).expand(len(scores), 5)
        return index, torch.linspace(-0.5, 1.5, 5).expand(len(scores), 5)

    return {"permuted": permuted, "dropped": dropped, "forced": forced}


@torch.no_grad()
def check_assign(model: nn.Module, layers: list[Layer]) -> None:
    """Native through `assign` is bit-identical; anything else computes Σ_j w_j E_j(h), each E_j
    evaluated alone.
    """
    before = model(input_ids=tokens(), use_cache=False).logits
    with adapter.assign(model, adapter.native):
        if not torch.equal(before, model(input_ids=tokens(), use_cache=False).logits):
            raise AssertionError("native: logits differ")
    for name, strategy in strategies().items():
        asked, done = {}, {}

        def keep(
            scores: Tensor, call: adapter.Call, strategy=strategy, asked=asked
        ) -> tuple[Tensor, Tensor]:
            asked[call.layer] = strategy(scores, call)
            return asked[call.layer]

        with adapter.assign(model, keep), _outputs(layers, done):
            model(input_ids=tokens(), use_cache=False)
        for i, layer in enumerate(layers):
            hidden, output = done[i]
            alone = expert_outputs(model, layer, hidden)
            index, weights = asked[i]
            chosen = alone[index.T, torch.arange(len(index))]  # [slots, tokens, hidden]
            torch.testing.assert_close(
                output,
                (weights.T[..., None] * chosen).sum(0),
                rtol=1e-4,
                atol=1e-4 * float(alone.abs().max()),
                msg=lambda text, name=name, i=i: (
                    f"{name}, layer {i}: not Σ w E(h): {text.splitlines()[-1]}"
                ),
            )


def expert_outputs(model: nn.Module, layer: Layer, hidden: Tensor) -> Tensor:
    """[experts, tokens, hidden] E_j(h) of every expert alone: one slot of weight 1 (and one of 0),
    by the eager loop.
    """
    one = torch.tensor([1.0, 0.0]).expand(len(hidden), 2)
    outputs = []
    with _eager(model):
        for j in range(layer.num_experts):
            values = dict(
                zip(layer.places, (hidden, torch.full((len(hidden), 2), j), one), strict=True)
            )
            args = [values[place] for place in layer.places if isinstance(place, int)]
            named = {place: value for place, value in values.items() if isinstance(place, str)}
            outputs.append(layer.module(*args, **named).reshape(len(hidden), -1))
    return torch.stack(outputs)


class _outputs:
    """While open, keeps (hidden, output) of each layer's experts call in `done`."""

    def __init__(self, layers: list[Layer], done: dict) -> None:
        self.layers, self.done = layers, done

    def __enter__(self) -> None:
        self.handles = [
            layer.module.register_forward_hook(self.hook(i, layer), with_kwargs=True)
            for i, layer in enumerate(self.layers)
        ]

    def hook(self, i: int, layer: Layer):
        def keep(_module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            hidden = (
                args[layer.places[0]]
                if isinstance(layer.places[0], int)
                else kwargs[layer.places[0]]
            )
            hidden = hidden.reshape(-1, hidden.shape[-1])
            self.done[i] = hidden.clone(), output.reshape(len(hidden), -1).clone()

        return keep

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


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
        check_counts(model, layers)
        result["verdict"], result["reason"] = (
            "record only",
            next((layer.why for layer in layers if layer.why), ""),
        )
        if not result["reason"]:
            result["verdict"] = "fails"
            check_assign(model, layers)
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
