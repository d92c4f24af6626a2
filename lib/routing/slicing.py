"""The experts of a layer over a few tokens at a time, so that what they hold at once is bounded.

Experts see one token at a time, whatever their implementation: routes are made before their call,
for all tokens together, and what they give for some tokens does not depend on the others.  (In the
last bits it may, as matrix products of other sizes add in another order.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from lib.routing import adapter, hooks
from lib.routing.layer import Layer

MOST_BYTES = 2**30  # that the experts of a layer may hold at a time


def activations(experts: nn.Module) -> int:
    """Bytes that a slot of a token takes: what goes into each matrix of its expert and what comes
    out, held twice.
    """
    slabs = [p for p in experts.parameters() if p.dim() > 2]
    return sum(2 * (p.shape[-1] + p.shape[-2]) * p.element_size() for p in slabs)


def copies(experts: nn.Module) -> int:
    """Bytes that a slot of a token takes where each has its own copy of its expert's matrices."""
    slabs = [p for p in experts.parameters() if p.dim() > 2]
    return sum(p[0].numel() * p.element_size() for p in slabs)


@contextmanager
def sliced(
    model: nn.Module,
    per_slot: Callable[[nn.Module], int] = activations,
    most: int | None = None,
) -> Iterator[None]:
    """Inside, no call of a layer's experts computes more tokens at a time than take `most` bytes
    (`MOST_BYTES`), at `per_slot` bytes for a slot of a token; a call within that is left as it is,
    bit for bit.

    Layers that hold no stacked weights, or are called with more than hidden, index and weights, are
    left as they are.
    """
    with ExitStack() as stack:
        for layer in adapter.layers(model):
            size = per_slot(layer.module)
            if size and len(layer.places) == 3:
                stack.enter_context(_in_slices(layer, (most or MOST_BYTES) // size))
        yield


@contextmanager
def _in_slices(layer: Layer, slots: int) -> Iterator[None]:
    """Inside, the experts of `layer` compute at most `slots` slots of tokens at a time, at least
    one token.
    """
    experts = cast(Any, layer.module)
    whole, own = experts.forward, vars(experts).get("forward")

    def forward(*args: Any, **named: Any) -> Any:
        passed = hooks.passing(layer, args, named)
        rows = max(1, slots // passed[1].shape[-1])
        alone = len(args) + len(named) == 3 and all(part.dim() == 2 for part in passed)
        if not alone or len(passed[0]) <= rows:
            return whole(*args, **named)
        found: list[Tensor] = []
        for parts in zip(*(part.split(rows) for part in passed), strict=True):
            given = dict(zip(layer.places, parts, strict=True))
            own_args = [given[place] for place in range(len(args))]
            found.append(whole(*own_args, **{name: given[name] for name in named}))
        return torch.cat(found)

    experts.forward = forward
    try:
        yield
    finally:
        del experts.forward
        if own is not None:
            experts.forward = own
