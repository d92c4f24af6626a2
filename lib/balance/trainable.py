"""What of a model is trained: all of it, or, where that does not fit, the weights of its routers
alone, and what either needs of memory, told before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import transformers
from torch import nn

from lib.model import spreading
from lib.routing import adapter

PARTS = ("auto", "all", "routers")
STATE = 12  # bytes of a trained number besides its weight: gradient, two moments of Adam
LAYER = 34  # bytes that a layer keeps per token and hidden unit (arXiv 2205.05198, without scores)
LOGIT = 12  # bytes per token and entry of the vocabulary: logits in two types, their gradient


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs: of all weights in float32, or of frozen ones with `routers` alone
    trained under gradient checkpointing; and how many there are.
    """

    everything: int
    routers: int
    available: int

    @property
    def decided(self) -> str:
        """The largest part that fits: "all" or "routers"; refused where neither does."""
        if self.everything <= self.available:
            return "all"
        if self.routers <= self.available:
            return "routers"
        raise MemoryError(f"trainable: {self}: a smaller model would fit, or fewer sequences")

    def __str__(self) -> str:
        parts = (self.everything, self.routers, self.available)
        whole, routers, there = (f"{part / 1e9:.1f} GB" for part in parts)
        return f"training all needs {whole}, the routers alone {routers}, {there} are available"


def memory(
    settings, kind: torch.dtype, tokens: int, device: torch.device, *, code: bool = False
) -> Memory:
    """What training on `tokens` tokens a step needs, by a model's configuration alone; kind: of the
    weights that are frozen where routers alone are trained.

    An estimate: weights and optimizer exactly, what the layers keep by the rule of arXiv
    2205.05198, with as many experts as a token has.
    """
    weights = spreading.needed(settings, torch.float32, code=code)
    text = settings.get_text_config()
    routed = max(1, getattr(text, "num_experts_per_tok", None) or 1)
    layer = tokens * text.hidden_size * (LAYER + 8 * routed)
    ends = tokens * text.vocab_size * LOGIT
    kept = text.num_hidden_layers * tokens * text.hidden_size * 2 + layer
    return Memory(
        everything=weights // 4 * (4 + STATE) + text.num_hidden_layers * layer + ends,
        routers=weights // 4 * kind.itemsize + kept + ends,
        available=int(0.9 * spreading.available(device)),
    )


def routers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights, and biases, that make the logits of each MoE layer, by name: parameters with one
    row per expert in the module where the logits are seen, but outside the experts.

    Refused: a model in which some layer shows none.
    """
    names = {id(part): name for name, part in model.named_parameters()}
    found: dict[str, nn.Parameter] = {}
    for layer in adapter.layers(model):
        experts = {id(part) for part in layer.module.parameters()}
        own = {
            names[id(part)]: part
            for part in layer.seen.module.parameters()
            if id(part) not in experts and part.dim() <= 2 and part.shape[0] == layer.seen.width
        }
        if not own:
            rule = "no router weight seen: must have one row per expert"
            raise ValueError(f"trainable.routers: {type(model).__name__}: {layer.name}: {rule}")
        found |= own
    return found


@contextmanager
def only(model: transformers.PreTrainedModel, trained: str) -> Iterator[None]:
    """Inside it `trained` ("all" or "routers") is what training changes.

    Of "routers" the trained weights are float32 masters, all others are frozen as they are, and
    layers are computed again in the backward pass instead of kept; after it the masters are rounded
    to what they were loaded in.
    """
    if trained == "all":
        yield
        return
    masters = routers(model)
    kinds = {name: part.dtype for name, part in masters.items()}
    model.requires_grad_(False)
    for part in masters.values():
        part.data = part.data.to(torch.promote_types(part.dtype, torch.float32))
        part.requires_grad_(True)
    _computed_again(model, "enable", {"use_reentrant": False})
    try:
        yield
    finally:
        _computed_again(model, "disable")
        for name, part in masters.items():
            part.data, part.grad = part.data.to(kinds[name]), None


def _computed_again(model: transformers.PreTrainedModel, switch: str, *options: dict) -> None:
    """Turn on or off that layers are computed again in the backward pass, where a model can."""
    if model.supports_gradient_checkpointing:
        old = getattr(model, f"gradient_checkpointing_{switch}")  # its earlier name
        getattr(model, f"activation_checkpointing_{switch}", old)(*options)
