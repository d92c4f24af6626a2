"""Hooks on a forward pass: which of its rows are text, and what passes where.

The pass under way knows the attention mask; `watch` hands out a tensor inside it, `passing` what a
layer's experts are called with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from lib.routing.layer import Layer, Tap, Watch


class Pass:
    """The forward pass under way: which of its rows are text, and which is which."""

    def __init__(self) -> None:
        self.running = False
        self.keep: Tensor | None = None
        self.ids: Tensor | None = None

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
            rule = f"must be {tokens}, the experts' rows"
            raise ValueError(f"adapter: attention_mask of {len(self.keep)} tokens: {rule}")
        return self.keep.to(device)

    def rows(self, tensor: Tensor) -> Tensor:
        """`tensor` [tokens, …] without its padding rows."""
        keep = self.kept(len(tensor), tensor.device)
        return tensor if keep is None else tensor[keep]


@contextmanager
def hooked(model: nn.Module) -> Iterator[tuple[Pass, ExitStack]]:
    """The pass under way, and a stack that removes the hooks put on it."""
    now = Pass()
    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(now.begin, with_kwargs=True).remove)
        stack.callback(model.register_forward_hook(now.end, always_call=True).remove)
        yield now, stack


def watch(stack: ExitStack, tap: Tap, see: Callable[..., None]) -> None:
    """Hand the tensor at `tap` to `see` in every forward pass, until `stack` is closed."""
    open_watches: list[Watch] = []

    def enter(*_: object) -> None:
        number = 0

        def look(call: str, inputs: tuple, result: object) -> None:
            nonlocal number
            value = inputs[0] if call == "topk" else result
            if call == tap.call and tap.fits(value):
                number += 1
                if number == tap.nth:
                    see(result)

        open_watches.append(Watch(look))
        open_watches[-1].__enter__()

    def leave(*_: object) -> None:
        open_watches.pop().__exit__(None, None, None)

    stack.callback(tap.module.register_forward_pre_hook(enter).remove)
    stack.callback(tap.module.register_forward_hook(leave, always_call=True).remove)


def before(
    stack: ExitStack, layer: Layer, see: Callable[[tuple, dict], tuple[tuple, dict] | None]
) -> None:
    """Call see(args, kwargs) before each call of a layer's experts, until `stack` is closed; what
    it returns replaces the arguments, unless it is None.
    """

    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        return see(args, kwargs)

    stack.callback(layer.module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def passing(layer: Layer, args: tuple, kwargs: Mapping[str, Tensor]) -> list[Tensor]:
    """What passes at the layer's places: hidden, index and weights, or index alone."""
    return [args[place] if isinstance(place, int) else kwargs[place] for place in layer.places]
