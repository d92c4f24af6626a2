"""One mixture-of-experts layer: where its assignment passes, and where its logits are seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lib.routing.rule import Rule


@dataclass(frozen=True)
class Tap:
    """A tensor inside a forward pass: the n-th result [tokens, width] of function `call` while
    `module` runs (of "topk", the n-th tensor that it ranks).
    """

    module: nn.Module
    call: str
    nth: int
    width: int

    def fits(self, value: object) -> bool:
        """Whether `value` has the shape of this tensor."""
        return wide(value) and value.shape[-1] == self.width


def wide(value: object) -> TypeGuard[Tensor]:
    """Whether `value` is a tensor of rows."""
    return isinstance(value, Tensor) and value.dim() > 1


@dataclass(frozen=True)
class Layer:
    """One MoE layer.

    name, module: where its assignment passes; places: of hidden, index and weights among that
    call's arguments (number or keyword; index alone for a look-up, none for a top-k, which `tap`
    then points to). num_experts, k: routed experts, and slots a token. tap, rule: the router's
    logits and its scoring rule, or None with the reason in `why`.
    """

    name: str
    module: nn.Module
    places: tuple[int | str, ...]
    num_experts: int
    k: int
    tap: Tap | None
    rule: Rule | None
    why: str = ""

    @property
    def scored(self) -> bool:
        """Whether its logits are seen."""
        return self.tap is not None and self.tap.call != "topk"

    @property
    def seen(self) -> Tap:
        """Where its logits, or what it ranks, are seen; refused where they are not."""
        if self.tap is None:
            raise ValueError(f"{self.name}: {self.why}")
        return self.tap

    @property
    def words(self) -> str:
        """Its rule in words."""
        return "not one that is known" if self.rule is None else str(self.rule)


class Watch(TorchFunctionMode):
    """While it is entered, hands what each tensor function gives to `see(name, inputs, result)`."""

    def __init__(self, see: Callable[[str, tuple, Any], object]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.see(getattr(func, "__name__", ""), args, result)
        return result
