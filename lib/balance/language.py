"""The language loss on a CPU, a part of the logits at a time.

The logits of all tokens of a step are by far its largest tensor.  Where they are nothing but a
product of the last states, `torch.nn.functional.linear_cross_entropy` takes loss and gradient
together, over parts that stay in the cache; it came with torch 2.13.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.routing import scoring

ROWS = 512  # tokens whose logits are there at a time

_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def split(model: nn.Module) -> bool:
    """Let the language loss of a model be taken in parts, and say whether it can be: in float32 on
    a CPU, where the head is a product without bias and gives the model's own logits, tried on a
    few tokens.
    """
    first = next(model.parameters())
    plain = first.device.type == "cpu" and first.dtype == torch.float32
    able = hasattr(functional, "linear_cross_entropy") and isinstance(_head(model), nn.Linear)
    _known[model] = plain and able and _agrees(model)
    return _known[model]


def is_split(model: nn.Module) -> bool:
    """Whether `split` has found that the language loss of a model can be taken in parts."""
    return _known.get(model, False)


def _head(model: nn.Module) -> nn.Module | None:
    known = getattr(model, "get_output_embeddings", lambda: None)()
    return known if getattr(known, "bias", None) is None else None


@torch.no_grad()
def _agrees(model: nn.Module) -> bool:
    """Whether the head's product with the last states gives a model's logits."""
    was, ids = model.training, torch.arange(1, 9)[None]
    model.eval()
    with scoring.headless(model, 0, None) as states:
        model(input_ids=ids, use_cache=False)
    whole = model(input_ids=ids, use_cache=False).logits
    model.train(was)
    found = functional.linear(states[0][0], _head(model).weight) if states else whole[..., :0]  # type: ignore[union-attr, arg-type]
    return found.shape == whole.shape and torch.allclose(found, whole, rtol=1e-4, atol=1e-5)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean next-token cross entropy in nats of a batch [sequences, tokens + 1] by a model that
    `is_split`: value and gradient are those of the whole logits.
    """
    with scoring.headless(model, 0, None) as states:
        model(input_ids=batch[:, :-1], use_cache=False)
    parts = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=ROWS)
    rows, truth = states[0][0].flatten(0, 1), batch[:, 1:].flatten()
    return functional.linear_cross_entropy(rows, _head(model).weight, truth, options=parts)  # type: ignore[union-attr, arg-type]
