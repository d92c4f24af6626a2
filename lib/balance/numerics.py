"""The numbers a model is trained in: float32, or products in bfloat16 on float32 weights."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from lib.balance import language

TRIM, MAPPED = -1, -3  # of glibc's mallopt: from which size on memory goes back, and comes alone


class _Half:
    """An experts module seen with bfloat16 weights; everything else is the module's own."""

    def __init__(self, experts: torch.nn.Module) -> None:
        self._experts = experts

    def __getattr__(self, name: str):
        value = getattr(self._experts, name)
        return value.bfloat16() if isinstance(value, torch.nn.Parameter) else value


def _grouped_mm_bf16(
    self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """The grouped product in bfloat16 on float32 master weights, which autocast alone does not
    bring about.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    product = ALL_EXPERTS_FUNCTIONS["grouped_mm"]
    return product(_Half(self), hidden_states.bfloat16(), top_k_index, top_k_weights).to(
        hidden_states.dtype
    )


def _half_experts() -> str:
    """The name by which a model then finds `_grouped_mm_bf16`."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register("grouped_mm_bf16", _grouped_mm_bf16)
    return "grouped_mm_bf16"


def fuse_norms(model: torch.nn.Module) -> int:
    """Let every root-mean-square norm of `model` run as one kernel instead of seven; returns how
    many there are.

    A family may mean something else by the name, so that only those are taken that agree on a few
    rows.
    """
    done = 0
    for norm in model.modules():
        weight = getattr(norm, "weight", None)
        eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
        if not type(norm).__name__.endswith("RMSNorm") or weight is None or eps is None:
            continue
        rows = torch.linspace(-3, 3, 8 * len(weight), device=weight.device).view(8, -1).sin()
        fused = partial(_norm, weight, eps)
        near = 1e-2 if weight.dtype == torch.bfloat16 else 1e-4
        with torch.no_grad():
            if torch.allclose(norm(rows).float(), fused(rows).float(), rtol=near):
                norm.forward, done = fused, done + 1
    return done


def _norm(weight: Tensor, eps: float, hidden: Tensor) -> Tensor:
    kind = torch.promote_types(weight.dtype, hidden.dtype)
    return rms_norm(hidden.to(weight.dtype), weight.shape, weight, eps).to(kind)


def keep_memory() -> bool:
    """Let this process keep the memory that a step on a CPU lets go, instead of getting it anew,
    page by page, in the next; whether its allocator can (glibc's).
    """
    known = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(known and known(MAPPED, 2**25) and known(TRIM, 2**30))


def use_precision(model: torch.nn.Module, precision: str) -> AbstractContextManager:
    """Set the model's expert products to `precision` ("bf16" or "float32") and return the context
    of its forward.
    """
    if precision not in ("bf16", "float32"):
        raise ValueError(
            f"numerics.use_precision: precision = {precision!r}: must be bf16 or float32"
        )
    half = precision == "bf16"
    first = next(model.parameters())
    if half and first.is_cuda:
        fuse_norms(model)
    if first.device.type == "cpu":
        keep_memory()
    choose = getattr(model, "set_experts_implementation", None)
    # a model that cannot choose has experts of plain products, which autocast reaches
    if choose and getattr(model, "_can_set_experts_implementation", bool)():
        single = "grouped_mm" if first.dtype == torch.float32 else "eager"
        choose(_half_experts() if half else single)
    if not half:
        language.split(model)
    return torch.autocast(first.device.type, dtype=torch.bfloat16) if half else nullcontext()
