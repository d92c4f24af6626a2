"""Observe the expert assignment of a mixture-of-experts model, whatever its family.

Every modern MoE block of transformers computes its routed experts in one call,
``experts.forward(hidden [tokens, hidden], top_k_index [tokens, k], top_k_weights [tokens, k])``, upstream of every
implementation (eager, batched, grouped).  A pre-hook on that call sees the assignment itself; the order in which a
router returns its results, which changes between releases, is never relied on.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

EXPERTS_CALL = ["hidden_states", "top_k_index", "top_k_weights"]


@dataclass(frozen=True)
class Layer:
    """One MoE layer: the module that computes the experts, its router, and the names of both in the model."""

    name: str
    experts: nn.Module
    router: nn.Module | None

    @property
    def num_experts(self) -> int:
        """Number of routed experts, read from the shape of the stacked expert weights."""
        return next(p.shape[0] for p in self.experts.parameters(recurse=False) if p.dim() == 3)


def layers(model: nn.Module) -> list[Layer]:
    """The MoE layers of `model` in order of depth; refuses a model without any, in one line.

    An experts module is known by the arguments of its forward; its router is the sibling that holds one weight row
    per expert.
    """
    found = []
    for name, module in model.named_modules():
        if list(inspect.signature(module.forward).parameters)[:3] != EXPERTS_CALL:
            continue
        layer = Layer(name, module, None)
        block = model.get_submodule(name.rpartition(".")[0])
        found.append(Layer(name, module, _router(block, layer.num_experts)))
    if not found:
        raise ValueError(f"adapter.layers: {type(model).__name__}: has no mixture-of-experts layer")
    return found


def _router(block: nn.Module, experts: int) -> nn.Module | None:
    """The child of `block` that scores the experts: a two-dimensional `weight` with one row per expert."""
    for child in block.children():
        weight = getattr(child, "weight", None)
        if weight is not None and weight.dim() == 2 and weight.shape[0] == experts:
            return child
    return None


@dataclass
class Record:
    """What was routed where, over all forward passes since the recording began (or since `clear`).

    load:     [layers, experts] int64, assignments counted on the model's device; each token is counted k times.
    indices:  per layer a list (one entry per forward pass) of [tokens, k] expert numbers in the router's order.
    weights:  likewise, the combine weights [tokens, k].
    scores:   likewise, the router's raw logits [tokens, experts], with their gradient if the forward pass has one.
    Rows that the attention mask marks as padding are left out of all four.
    """

    layers: int
    experts: int
    device: torch.device
    k: int = 0
    load: Tensor = field(init=False)
    indices: list[list[Tensor]] = field(init=False)
    weights: list[list[Tensor]] = field(init=False)
    scores: list[list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self.load = torch.zeros(self.layers, self.experts, dtype=torch.int64, device=self.device)
        self.indices, self.weights, self.scores = ([[] for _ in range(self.layers)] for _ in range(3))

    def index(self, layer: int) -> Tensor:
        """[tokens, k] expert numbers of one layer over all recorded passes (needs ``indices=True``)."""
        return torch.cat(self.indices[layer])

    def count(self, layer: int, index: Tensor) -> None:
        """Add the assignments [tokens, k] of one layer to `load`, without waiting for the device."""
        flat = index.detach().reshape(-1)
        self.load[layer].scatter_add_(0, flat.long(), torch.ones_like(flat, dtype=torch.int64))


class _Pass:
    """The forward pass under way: its padding mask, and which layers were seen (recomputation must not count)."""

    def __init__(self) -> None:
        self.running, self.keep, self.seen = False, None, set()

    def begin(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.running, self.keep, self.seen = True, None, set()
        mask = kwargs.get("attention_mask")
        tokens = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs_embeds"))
        if mask is None or mask.dim() != 2 or tokens is None:
            return
        mask = mask[:, -tokens.shape[1] :]  # while generating, the mask also covers what is in the cache
        if not bool(mask.all()):
            self.keep = mask.reshape(-1).bool()

    def end(self, *_: object) -> None:
        self.running = False

    def first(self, layer: int) -> bool:
        """True once per layer and pass; False for what gradient checkpointing computes again in the backward pass."""
        if not self.running or layer in self.seen:
            return False
        self.seen.add(layer)
        return True

    def rows(self, tensor: Tensor) -> Tensor:
        """`tensor` [tokens, …] without its padding rows."""
        return tensor if self.keep is None else tensor[self.keep.to(tensor.device)]


@contextmanager
def record(model: nn.Module, *, indices: bool = False, weights: bool = False, scores: bool = False) -> Iterator[Record]:
    """Record the expert assignment of every forward pass inside the ``with`` block; returns a `Record`.

    `load` is always counted, on the device, in O(layers × experts) memory; `indices`, `weights` and `scores` keep the
    full tensors as well.  The forward pass itself is unchanged, bit for bit.  A model without MoE layers, or one whose
    layers differ in the number of experts, is refused.
    """
    found = layers(model)
    counts = {layer.num_experts for layer in found}
    if len(counts) > 1:
        raise ValueError(f"adapter.record: experts per layer = {sorted(counts)}: must be the same in every layer")
    if scores and any(layer.router is None for layer in found):
        raise ValueError(f"adapter.record: {type(model).__name__}: no router weight found, so no scores")
    device = next(found[0].experts.parameters()).device
    rec, now = Record(len(found), counts.pop(), device), _Pass()

    def see(number: int, layer: Layer):
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            _, index, weight = (*args, *(kwargs[name] for name in EXPERTS_CALL[len(args) :]))
            if not now.first(number):
                return
            index = now.rows(index)
            rec.k = index.shape[1]
            rec.count(number, index)
            if indices:
                rec.indices[number].append(index.detach())
            if weights:
                rec.weights[number].append(now.rows(weight).detach())

        return hook

    def score(number: int):
        def hook(module: nn.Module, args: tuple) -> None:
            if now.running and number not in now.seen:
                hidden = now.rows(args[0].reshape(-1, args[0].shape[-1]))
                rec.scores[number].append(linear(hidden, module.weight).float())

        return hook

    with ExitStack() as stack:
        handles = [model.register_forward_pre_hook(now.begin, with_kwargs=True)]
        handles.append(model.register_forward_hook(now.end, always_call=True))
        for number, layer in enumerate(found):
            handles.append(layer.experts.register_forward_pre_hook(see(number, layer), with_kwargs=True))
            if scores:
                handles.append(layer.router.register_forward_pre_hook(score(number)))
        for handle in handles:
            stack.callback(handle.remove)
        yield rec
