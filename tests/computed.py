"""What a model of any family computes, held against what the adapter records and replaces.

Counted and evaluated at the experts' own weights, independent of how the adapter reads a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lib.routing import adapter
from lib.routing.layer import Layer, Watch

EXPERTS = 16


def tokens() -> Tensor:
    """[2, 23] token ids."""
    return torch.randint(20, 110, (2, 23), generator=torch.Generator().manual_seed(1))


def products(model: nn.Module, layers: list[Layer]) -> list[np.ndarray]:
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
    for i, count in enumerate(products(model, layers)):
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
