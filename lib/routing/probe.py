"""Find the mixture-of-experts layers of any model by watching one forward pass of a few tokens.

No family is known by name.  A layer is a call ``experts(hidden [tokens, hidden], index [tokens, k],
weights [tokens, k])`` on a module that holds one weight slab per expert: known by what is passed,
not by how the arguments are called.  Where a model has no such call, it is a look-up of [tokens, k]
rows in a table of experts, or the ``topk`` over the experts that the block itself computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lib.routing import declared
from lib.routing.layer import Layer, Tap, Watch, wide
from lib.routing.rule import Rule, Sample, Vector, calibrate, groupings

SHAPE = (2, 19)  # of the probe: sequences × tokens, each token id twice, in different surroundings
EXTRA = 8  # a router may also score this many experts that hold no weights (null or shared experts)


@dataclass
class _Seen:
    """One tensor of [tokens, width] that might be router logits."""

    module: str
    call: str
    nth: int
    value: Tensor


@dataclass
class _Found:
    """One place where an assignment passed, with what might be its logits."""

    name: str
    places: tuple[int | str, ...]
    experts: int
    index: Tensor
    weights: Tensor | None
    logits: list[_Seen] = field(default_factory=list)
    tap: Tap | None = None


class _Probe:
    """Watches one forward pass: which modules run, which calls carry an assignment, what may be
    logits.
    """

    def __init__(self, model: nn.Module, tokens: int) -> None:
        self.modules, self.tokens = dict(model.named_modules()), tokens
        self.stack: list[tuple[str, Counter]] = []
        self.ran: set[str] = set()
        self.recent: list[_Seen] = []
        self.calls: list[_Found] = []
        self.lookups: list[_Found] = []
        self.topks: list[_Found] = []
        self.holders = declared.holders(model)
        self.declared = declared.numbers(declared.configuration(model))
        sizes = {*self.holders.values(), max(self.declared, default=0)} - {0}
        self.widths = {size + extra for size in sizes for extra in range(EXTRA + 1)}

    def run(self, model: nn.Module, ids: Tensor) -> None:
        training = {module: module.training for module in model.modules()}
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
        with ExitStack() as stack, torch.random.fork_rng(devices=devices), torch.no_grad():
            for name, module in self.modules.items():
                enter = module.register_forward_pre_hook(self.enter(name), with_kwargs=True)
                leave = module.register_forward_hook(self.leave, always_call=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            try:
                model.eval()
                with Watch(self.see):
                    model(input_ids=ids, use_cache=False)
            finally:
                for module, flag in training.items():
                    module.training = flag

    def enter(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.assignment(name, module, [*enumerate(args), *kwargs.items()])
            self.stack.append((name, Counter()))
            self.ran.add(name)

        return hook

    def leave(self, *_: object) -> None:
        self.stack.pop()

    def assignment(self, name: str, module: nn.Module, arguments: list[tuple[Any, Any]]) -> None:
        """Keep the call if its arguments are (hidden, index, weights), or a look-up of [tokens, k]
        rows.
        """
        for (a, hidden), (b, index), (c, weights) in zip(
            arguments, arguments[1:], arguments[2:], strict=False
        ):
            fits = self.rows(hidden, float) and self.rows(index, int) and self.rows(weights, float)
            experts = self.size(module) if fits and index.shape == weights.shape else 0
            if experts > 1:
                index, weights = (part.reshape(self.tokens, -1) for part in (index, weights))
                self.calls.append(_Found(name, (a, b, c), experts, index, weights, self.recent))
                self.recent = []
                return
        if isinstance(module, nn.Embedding) and arguments and self.rows(arguments[0][1], int):
            place, index = arguments[0]
            index = index.reshape(self.tokens, -1)
            self.lookups.append(_Found(name, (place,), module.num_embeddings, index, None))

    def size(self, module: nn.Module) -> int:
        """Number of experts that `module` computes, their weights stacked or flat in one matrix
        [experts · rows, …].
        """
        rows = [p.shape[0] for p in module.parameters() if p.dim() > 1]
        flat = [n for n in self.declared if rows and all(row % n == 0 for row in rows)]
        return declared.experts_of(module) or max(flat, default=0)

    def rows(self, value: object, kind: type) -> TypeGuard[Tensor]:
        """Whether `value` is a tensor of `kind` with one row per token."""
        if not wide(value) or value.is_floating_point() != (kind is float):
            return False
        return value.dtype != torch.bool and value.numel() == self.tokens * value.shape[-1]

    def see(self, call: str, inputs: tuple, result: Any) -> None:
        """Keep what has the shape of logits, and every top-k over something of that shape."""
        if not self.stack:
            return
        value = inputs[0] if call == "topk" else result
        if not wide(value) or value.shape[-1] not in self.widths:
            return
        width = value.shape[-1]
        for _, counter in self.stack:
            counter[call, width] += 1
        if not self.rows(value, float):
            return
        name, counter = self.stack[-1]
        nth = counter[call, width]
        if call == "topk":
            tap = Tap(self.modules[name], call, nth, width)
            index = result.indices.reshape(self.tokens, -1)
            self.topks.append(_Found(name, (), width, index, None, tap=tap))
        else:
            self.recent.append(_Seen(name, call, nth, value.reshape(self.tokens, -1).clone()))

    def found(self) -> list[_Found]:
        """The layers: experts calls; without any, one look-up per block; without these, top-k over
        the experts.
        """
        if self.calls:
            return self.calls
        blocks = {found.name.rpartition(".")[0]: found for found in reversed(self.lookups)}
        if blocks:
            return [found for found in self.lookups if found in blocks.values()]
        return [found for found in self.topks if self._block(found)]

    def _block(self, found: _Found) -> bool:
        """Whether the module around a top-k ran as one call and holds experts (then they are not
        attention heads).
        """
        block = found.name.rpartition(".")[0]
        inner = [size for name, size in self.holders.items() if name.startswith(f"{block}.")]
        return block in self.ran and found.experts in inner


def layers(model: nn.Module) -> list[Layer]:
    """The MoE layers of `model` in order of depth, from one forward pass of 38 tokens.

    Refused, in one line: a dense model; experts whose calls are bypassed (as by quantised kernels);
    expert numbers that are local to a device; a number of layers other than the configuration's.
    """
    text = declared.configuration(model).get_text_config()
    ids = _ids(text.vocab_size).to(declared.device_of(model))
    probe = _Probe(model, ids.numel())
    probe.run(model, ids)
    found, expected = probe.found(), declared.sparse_layers(text)
    who = f"adapter.layers: {type(model).__name__}:"
    if not found and not probe.holders:
        raise ValueError(f"{who} has no mixture-of-experts layer")
    if len(found) != expected:
        raise ValueError(
            f"{who} {len(found)} layers seen to pass (hidden, index, weights) to experts: must be "
            f"{expected}, as its configuration says (quantised or fused kernels bypass the call: "
            "load without them)"
        )
    for one in found:
        most = int(one.index.max())
        if most >= one.experts:
            rule = f"must be below {one.experts}, global"
            raise ValueError(f"{who} {one.name}: expert {most}: {rule}")
    return [_layer(probe, one, text, ids.reshape(-1)) for one in found]


def _ids(vocabulary: int) -> Tensor:
    """[2, 19] token ids from the middle of the vocabulary, each twice (special tokens stand at the
    ends).
    """
    generator = torch.Generator().manual_seed(0)
    first = vocabulary // 4 + torch.randint(max(1, vocabulary // 2), SHAPE[1:], generator=generator)
    return torch.stack([first, first[torch.randperm(SHAPE[1], generator=generator)]])


def _layer(probe: _Probe, found: _Found, config: object, ids: Tensor) -> Layer:
    """`found` with its logits and rule: the first tensor from which a rule gives the assignment
    seen.
    """
    tap, rule, why = found.tap, None, "its weights are no argument of its experts"
    if found.weights is not None:
        why = "no router logits seen before its experts"
        for seen in found.logits:
            width = seen.value.shape[1]
            if width < found.experts:
                continue
            rule, why = _calibrated(probe, found, found.weights, seen.value, config, ids)
            if rule is not None or (tap is None and width == found.experts):
                tap = Tap(probe.modules[seen.module], seen.call, seen.nth, width)
            if rule is not None:
                break
    module, slots = probe.modules[found.name], found.index.shape[1]
    return Layer(found.name, module, found.places, found.experts, slots, tap, rule, why)


def _calibrated(
    probe: _Probe, found: _Found, weights: Tensor, logits: Tensor, config: object, ids: Tensor
) -> tuple[Rule | None, str]:
    """The rule that leads from `logits` to the assignment found, or None and the reason."""
    block = found.name.rpartition(".")[0]
    sample = Sample(
        logits=logits.cpu(),
        index=found.index.cpu(),
        weights=weights.cpu(),
        token=ids.cpu(),
        experts=found.experts,
        vectors=_vectors(probe.modules, block, {found.experts, logits.shape[1]}),
        groups=groupings(config, found.experts),
    )
    return calibrate(sample)


def _vectors(modules: dict[str, nn.Module], block: str, sizes: set[int]) -> tuple[Vector, ...]:
    """All float vectors of one number per expert in `block`, buffers first."""
    found = []
    for name, module in modules.items():
        if name == block or name.startswith(f"{block}."):
            own = [*module.named_buffers(recurse=False), *module.named_parameters(recurse=False)]
            found += [
                Vector(module, key)
                for key, v in own
                if v.numel() in sizes and v.is_floating_point()
            ]
    return tuple(sorted(found, key=lambda vector: vector.learned))
