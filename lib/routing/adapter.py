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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib.routing import probe
from lib.routing.probe import Layer, Tap, Watch
from lib.routing.rule import Rule

_known: weakref.WeakKeyDictionary[nn.Module, list[Layer]] = weakref.WeakKeyDictionary()


def layers(model: nn.Module) -> list[Layer]:
    """The MoE layers of `model` in order of depth, found once by one probe forward; see
    `lib.routing.probe.layers`.
    """
    if model not in _known:
        _known[model] = probe.layers(model)
    return _known[model]


@dataclass
class Record:
    """What was routed where, over all forward passes since the recording began (or since `clear`).

    load:     [layers, experts] int64, assignments counted on the model's device; each token is
              counted once for each of its k slots whose weight is not 0 (a router may leave slots
              unused). indices:  per layer a list (one entry per forward pass) of [tokens, k] expert
              numbers in the router's order. weights:  likewise, the combine weights [tokens, k].
              scores:   likewise, the router's raw logits [tokens, experts], with their gradient if
              the forward pass has one. Rows that the attention mask marks as padding are left out
              of all four.
    """

    layers: int
    experts: int
    device: torch.device
    k: int = 0
    indices: list[list[Tensor]] = field(init=False)
    weights: list[list[Tensor]] = field(init=False)
    scores: list[list[Tensor]] = field(init=False)
    _counts: dict[int, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._counts = {}
        self.indices, self.weights, self.scores = (
            [[] for _ in range(self.layers)] for _ in range(3)
        )

    @property
    def load(self) -> Tensor:
        """[layers, experts] int64 on `device`."""
        none = torch.zeros(self.experts, dtype=torch.int64, device=self.device)
        return torch.stack([self._counts.get(i, none).to(self.device) for i in range(self.layers)])

    def index(self, layer: int) -> Tensor:
        """[tokens, k] expert numbers of one layer over all recorded passes (needs
        ``indices=True``).
        """
        return torch.cat(self.indices[layer])

    def count(self, layer: int, index: Tensor, used: Tensor) -> None:
        """Add the assignments [tokens, k] of one layer where `used`, on its own device and without
        waiting for it.
        """
        if layer not in self._counts:
            self._counts[layer] = torch.zeros(self.experts, dtype=torch.int64, device=index.device)
        self._counts[layer].scatter_add_(0, index.reshape(-1).long(), used.reshape(-1).long())


class _Pass:
    """The forward pass under way: which of its rows are text, and which is which."""

    def __init__(self) -> None:
        self.running, self.keep, self.ids = False, None, None

    def begin(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.running, self.keep = True, None
        self.ids = kwargs.get("input_ids", args[0] if args else None)
        shaped = self.ids if self.ids is not None else kwargs.get("inputs_embeds")
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.dim() == 2 and shaped is not None:
            # while generating, the mask also covers what is in the cache
            self.keep = mask[:, -shaped.shape[1] :].reshape(-1).bool()

    def end(self, *_: object) -> None:
        # what gradient checkpointing computes again in the backward pass comes after this
        self.running = False

    def kept(self, tokens: int, device: torch.device) -> Tensor | None:
        """[tokens] whether each row is text, or None if all are; refused where the mask has another
        length.
        """
        if self.keep is None:
            return None
        if len(self.keep) != tokens:
            raise ValueError(
                f"adapter: attention_mask of {len(self.keep)} tokens: must be {tokens}, the experts' rows"
            )
        return self.keep.to(device)

    def rows(self, tensor: Tensor) -> Tensor:
        """`tensor` [tokens, …] without its padding rows."""
        keep = self.kept(len(tensor), tensor.device)
        return tensor if keep is None else tensor[keep]


@contextmanager
def _hooked(model: nn.Module) -> Iterator[tuple[_Pass, ExitStack]]:
    """The pass under way, and a stack that removes the hooks put on it."""
    now = _Pass()
    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(now.begin, with_kwargs=True).remove)
        stack.callback(model.register_forward_hook(now.end, always_call=True).remove)
        yield now, stack


def _watch(stack: ExitStack, tap: Tap, see: Callable[[object], None]) -> None:
    """Hand the tensor at `tap` to `see` in every forward pass, until `stack` is closed."""
    open_watches: list[Watch] = []

    def enter(*_: object) -> None:
        number = 0

        def look(call: str, inputs: tuple, result: object) -> None:
            nonlocal number
            value = inputs[0] if call == "topk" else result
            if (
                call == tap.call
                and isinstance(value, Tensor)
                and value.dim() > 1
                and value.shape[-1] == tap.width
            ):
                number += 1
                if number == tap.nth:
                    see(result)

        open_watches.append(Watch(look))
        open_watches[-1].__enter__()

    def leave(*_: object) -> None:
        open_watches.pop().__exit__(None, None, None)

    stack.callback(tap.module.register_forward_pre_hook(enter).remove)
    stack.callback(tap.module.register_forward_hook(leave, always_call=True).remove)


def _passing(layer: Layer, args: tuple, kwargs: dict) -> list[Tensor]:
    """What passes at the layer's places: hidden, index and weights, or index alone."""
    return [args[place] if isinstance(place, int) else kwargs[place] for place in layer.places]


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
        raise ValueError(
            f"{who} experts per layer = {sorted(counts)}: must be the same in every layer"
        )
    for layer in found:
        if scores and not layer.scored:
            raise ValueError(f"{who} {layer.name}: {layer.why}, so no scores")
        if weights and len(layer.places) < 3:
            raise ValueError(f"{who} {layer.name}: {layer.why}, so no weights")
    rec = Record(len(found), counts.pop(), probe.device_of(model))

    def see(number: int, index: Tensor, weight: Tensor | None) -> None:
        if not now.running:
            return
        index = index.detach()
        used = torch.ones_like(index, dtype=torch.bool) if weight is None else weight.detach() != 0
        keep = now.kept(len(index), index.device)
        rec.k = index.shape[1]
        rec.count(number, index, used if keep is None else used & keep[:, None])
        if indices:
            rec.indices[number].append(now.rows(index))
        if weights and weight is not None:
            rec.weights[number].append(now.rows(weight.detach()))

    def call(number: int, layer: Layer) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            passing = [
                part.reshape(-1, part.shape[-1]) for part in _passing(layer, args, kwargs)[-2:]
            ]
            see(number, *(passing if len(layer.places) == 3 else (passing[0], None)))

        return hook

    def chosen(number: int) -> Callable:
        return lambda top: see(number, top.indices.reshape(-1, top.indices.shape[-1]), None)

    def logits(number: int) -> Callable:
        def look(value: Tensor) -> None:
            if now.running:
                rows = now.rows(value.reshape(-1, value.shape[-1]))
                rec.scores[number].append(rows.to(torch.promote_types(rows.dtype, torch.float32)))

        return look

    with _hooked(model) as (now, stack):
        for number, layer in enumerate(found):
            if layer.places:
                stack.callback(
                    layer.module.register_forward_pre_hook(
                        call(number, layer), with_kwargs=True
                    ).remove
                )
            else:
                _watch(stack, layer.tap, chosen(number))
            if scores:
                _watch(stack, layer.tap, logits(number))
        yield rec


@dataclass(frozen=True)
class Call:
    """What a strategy may know of one layer's call besides the scores; one row per token, padding
    left out.

    layer:    number of the MoE layer, from 0. logits:   [tokens, width] float32, the router's own
    (width ≥ experts: null or shared experts stand last). index, weights: [tokens, k] the native
    assignment. token, sequence: [tokens] token id, and number of the sequence in the batch; None
    where the model was fed embeddings. rule:     the router's rule: ``rule.weights(logits, index)``
    is the native weight of any index, and ``rule.choice(logits)`` what the router ranks.
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


@contextmanager
def assign(model: nn.Module, strategy: Strategy, *, trusted: bool = False) -> Iterator[None]:
    """Replace the expert assignment in every forward pass inside the ``with`` block.

    strategy(scores [tokens, experts] float32, call) returns (index, weights), both [tokens, slots];
    the layer then computes Σ_j weights_j E_index_j(hidden).  A slot of weight 0 is unused; the
    number of slots may differ from k. scores are the native ones, without the selection bias.
    Padding keeps its own assignment. trusted: what the strategy returns is not checked, since that
    waits for the device.

    Refused: a model in which some layer's weights or rule are not known (`record` still works); an
    assignment of wrong shape, or to an expert that does not exist; under gradient checkpointing, a
    strategy that answers differently when the layer is computed again.
    """
    found, who = layers(model), f"adapter.assign: {type(model).__name__}:"
    for layer in found:
        if layer.rule is None:
            raise ValueError(
                f"{who} {layer.name}: {layer.why}: its assignment can be recorded, not replaced"
            )
    logits: dict[int, Tensor] = {}
    last: dict[int, Tensor] = {}

    def hook(number: int, layer: Layer) -> Callable:
        def replace(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            shape = _passing(layer, args, kwargs)[1].shape[:-1]
            index, weights = (
                part.reshape(-1, part.shape[-1]) for part in _passing(layer, args, kwargs)[1:]
            )
            keep = now.kept(len(index), index.device)
            call = _call(number, layer.rule, logits.pop(number), index, weights, keep, now.ids)
            new = strategy(layer.rule.scores(call.logits)[:, : layer.num_experts], call)
            if not trusted:
                _check(f"{who} {layer.name}:", new, len(call.index), layer.num_experts)
            if now.running:
                last[number] = new[0]
            elif not torch.equal(last[number], new[0]):
                raise ValueError(
                    f"{who} {layer.name}: computed again: the strategy must answer as it did before"
                )
            new = new[0].to(index.dtype), new[1].to(weights.dtype)
            new = new if keep is None else _padded(new, (index, weights), keep)
            new = (part.reshape(*shape, -1) for part in new)
            places = dict(zip(layer.places[1:], new, strict=True))
            args = tuple(places.get(place, value) for place, value in enumerate(args))
            return args, {name: places.get(name, value) for name, value in kwargs.items()}

        return replace

    with _hooked(model) as (now, stack):
        for number, layer in enumerate(found):
            _watch(stack, layer.tap, lambda value, number=number: logits.update({number: value}))
            stack.callback(
                layer.module.register_forward_pre_hook(hook(number, layer), with_kwargs=True).remove
            )
        yield


def _call(
    number: int,
    rule: Rule,
    logits: Tensor,
    index: Tensor,
    weights: Tensor,
    keep: Tensor | None,
    ids,
) -> Call:
    """The call without its padding rows."""
    parts = [logits.reshape(len(index), -1).float(), index, weights, None, None]
    if ids is not None:
        sequence = torch.arange(ids.shape[0], device=ids.device)[:, None].expand(ids.shape)
        parts[3:] = [part.reshape(-1).to(index.device) for part in (ids, sequence)]
    if keep is not None:
        parts = [part if part is None else part[keep] for part in parts]
    return Call(number, *parts, rule)


def _check(who: str, new: tuple[Tensor, Tensor], tokens: int, experts: int) -> None:
    index, weights = new
    if (
        index.dim() != 2
        or index.shape != weights.shape
        or len(index) != tokens
        or index.is_floating_point()
    ):
        shapes = f"{tuple(index.shape)} and {tuple(weights.shape)}"
        raise ValueError(
            f"{who} index and weights of shapes {shapes}: must both be [{tokens}, slots], the index whole"
        )
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
