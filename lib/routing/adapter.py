"""Observe and replace the expert assignment of a mixture-of-experts model, whatever its family.

Every modern MoE block of transformers computes its routed experts in one call, experts(hidden
[tokens, hidden], index [tokens, k], weights [tokens, k]), upstream of every implementation (eager,
batched, grouped).  A pre-hook on that call sees the assignment itself, and may replace it; the
order in which a router returns its results, which changes between releases, is never relied on, nor
is ``output_router_logits``.  `lib.routing.probe` finds the calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lib.routing import declared, hooks, probe
from lib.routing.layer import Layer
from lib.routing.record import Record, Recording
from lib.routing.rule import Rule

_known: weakref.WeakKeyDictionary[nn.Module, list[Layer]] = weakref.WeakKeyDictionary()


def layers(model: nn.Module) -> list[Layer]:
    """The MoE layers of `model` in order of depth, found once by one probe forward; see
    `lib.routing.probe.layers`.
    """
    if model not in _known:
        _known[model] = probe.layers(model)
    return _known[model]


@contextmanager
def record(
    model: nn.Module, *, indices: bool = False, weights: bool = False, scores: bool = False
) -> Iterator[Record]:
    """Record the expert assignment of every forward pass inside the ``with`` block; returns a
    `Record`.

    `load` is always counted, on the device, in O(layers × experts) memory; `indices`, `weights` and
    `scores` keep the full tensors as well.  The forward pass itself is unchanged, bit for bit.
    Opened inside `assign` it records what was assigned, opened around it what the router chose.
    Refused: a model without MoE layers, or whose layers differ in the number of experts; weights or
    scores of a model that does not show them.
    """
    found, who = layers(model), f"adapter.record: {type(model).__name__}:"
    counts = {layer.num_experts for layer in found}
    if len(counts) > 1:
        given = f"experts per layer = {sorted(counts)}"
        raise ValueError(f"{who} {given}: must be the same in every layer")
    for layer in found:
        if scores and not layer.scored:
            raise ValueError(f"{who} {layer.name}: {layer.why}, so no scores")
        if weights and len(layer.places) < 3:
            raise ValueError(f"{who} {layer.name}: {layer.why}, so no weights")
    rec = Record(len(found), counts.pop(), declared.device_of(model))
    with hooks.hooked(model) as (now, stack):
        recording = Recording(rec, now, indices, weights)
        for number, layer in enumerate(found):
            if layer.places:
                hooks.before(stack, layer, partial(recording.call, number, layer))
            else:
                hooks.watch(stack, layer.seen, partial(recording.chosen, number))
            if scores:
                hooks.watch(stack, layer.seen, partial(recording.logits, number))
        yield rec


@dataclass(frozen=True)
class Call:
    """What a strategy may know of one layer's call besides the scores; one row per token, padding
    left out.

    layer: number of the MoE layer, from 0.  logits: [tokens, width] float32, the router's own
    (width ≥ experts: null or shared experts stand last).  index, weights: [tokens, k] the native
    assignment.  token, sequence: [tokens] token id, and number of the sequence in the batch; None
    where the model was fed embeddings.  rule: the router's rule: ``rule.weights(logits, index)`` is
    the native weight of any index, and ``rule.choice(logits)`` what the router ranks.
    """

    layer: int
    logits: Tensor
    index: Tensor
    weights: Tensor
    token: Tensor | None
    sequence: Tensor | None
    rule: Rule


Strategy = Callable[[Tensor, Call], tuple[Tensor, Tensor]]


def native(_scores: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """The assignment that the model would make itself: through `assign`, its logits are the same
    bit for bit.
    """
    return call.index, call.weights


class _Replacing:
    """Puts what a strategy answers in the place of what the router chose."""

    def __init__(self, who: str, strategy: Strategy, now: hooks.Pass, trusted: bool) -> None:
        self.who, self.strategy, self.now, self.trusted = who, strategy, now, trusted
        self.logits: dict[int, Tensor] = {}
        self.last: dict[int, Tensor] = {}

    def see(self, number: int, value: Tensor) -> None:
        """Keep the logits of a layer for its call."""
        self.logits[number] = value

    def call(
        self, number: int, layer: Layer, rule: Rule, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict]:
        """The arguments of a layer's experts with the assignment replaced."""
        _, *own = hooks.passing(layer, args, kwargs)
        shape = own[0].shape[:-1]
        index, weights = (part.reshape(-1, part.shape[-1]) for part in own)
        keep = self.now.kept(len(index), index.device)
        logits = self.logits.pop(number)
        call = _call(number, rule, logits, index, weights, keep, self.now.ids)
        chosen, given = self.strategy(rule.scores(call.logits)[:, : layer.num_experts], call)
        if not self.trusted:
            tokens = len(call.index)
            _check(f"{self.who} {layer.name}:", chosen, given, tokens, layer.num_experts)
        self._remember(number, layer, chosen)
        new = chosen.to(index.dtype), given.to(weights.dtype)
        if keep is not None:
            new = _padded(new, (index, weights), keep)
        whole = [part.reshape(*shape, -1) for part in new]
        places = dict(zip(layer.places[1:], whole, strict=True))
        args = tuple(places.get(place, value) for place, value in enumerate(args))
        return args, {name: places.get(name, value) for name, value in kwargs.items()}

    def _remember(self, number: int, layer: Layer, chosen: Tensor) -> None:
        """Refuse an answer that differs when a layer is computed again."""
        if self.now.running:
            self.last[number] = chosen
        elif not torch.equal(self.last[number], chosen):
            rule = "computed again: the strategy must answer as it did before"
            raise ValueError(f"{self.who} {layer.name}: {rule}")


@contextmanager
def assign(model: nn.Module, strategy: Strategy, *, trusted: bool = False) -> Iterator[None]:
    """Replace the expert assignment in every forward pass inside the ``with`` block.

    strategy(scores [tokens, experts] float32, call) returns (index, weights), both [tokens, slots];
    the layer then computes Σ_j weights_j E_index_j(hidden).  A slot of weight 0 is unused; the
    number of slots may differ from k.  scores are the native ones, without the selection bias.
    Padding keeps its own assignment.  trusted: what the strategy returns is not checked, since that
    waits for the device.

    Refused: a model in which some layer's weights or rule are not known (`record` still works); an
    assignment of wrong shape, or to an expert that does not exist; under gradient checkpointing, a
    strategy that answers differently when the layer is computed again.
    """
    found, who = layers(model), f"adapter.assign: {type(model).__name__}:"
    rules = [_rule(who, layer) for layer in found]
    with hooks.hooked(model) as (now, stack):
        replacing = _Replacing(who, strategy, now, trusted)
        for number, (layer, rule) in enumerate(zip(found, rules, strict=True)):
            hooks.watch(stack, layer.seen, partial(replacing.see, number))
            hooks.before(stack, layer, partial(replacing.call, number, layer, rule))
        yield


def _rule(who: str, layer: Layer) -> Rule:
    if layer.rule is None:
        reason = f"{layer.why}: its assignment can be recorded, not replaced"
        raise ValueError(f"{who} {layer.name}: {reason}")
    return layer.rule


def _call(
    number: int,
    rule: Rule,
    logits: Tensor,
    index: Tensor,
    weights: Tensor,
    keep: Tensor | None,
    ids: Tensor | None,
) -> Call:
    """The call without its padding rows."""

    def text(part: Tensor) -> Tensor:
        rows = part.to(index.device)
        return rows if keep is None else rows[keep]

    token = sequence = None
    if ids is not None:
        order = torch.arange(ids.shape[0], device=ids.device)[:, None].expand(ids.shape)
        token, sequence = text(ids.reshape(-1)), text(order.reshape(-1))
    scored = text(logits.reshape(len(index), -1).float())
    return Call(number, scored, text(index), text(weights), token, sequence, rule)


def _check(who: str, index: Tensor, weights: Tensor, tokens: int, experts: int) -> None:
    shaped = index.dim() == 2 and index.shape == weights.shape and len(index) == tokens
    if not shaped or index.is_floating_point():
        shapes = f"{tuple(index.shape)} and {tuple(weights.shape)}"
        rule = f"must both be [{tokens}, slots], the index whole"
        raise ValueError(f"{who} index and weights of shapes {shapes}: {rule}")
    least, most = (int(index.min()), int(index.max())) if index.numel() else (0, 0)
    if least < 0 or most >= experts:
        raise ValueError(f"{who} index: experts {least} to {most}: must be from 0 to {experts - 1}")


def _padded(
    new: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], keep: Tensor
) -> tuple[Tensor, Tensor]:
    """`new` [text, slots] at the rows of text; the rows of padding keep their own, unused where
    slots differ from k.
    """
    whole = []
    for given, before in zip(new, own, strict=True):
        fits = before.shape[1] == given.shape[1]
        row = before.clone() if fits else before.new_zeros(len(before), given.shape[1])
        whole.append(row.index_put((keep.nonzero().squeeze(1),), given))
    return whole[0], whole[1]
