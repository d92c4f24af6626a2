"""Logits of the positions that are scored, a few documents at a time.

A strategy needs all documents in one forward pass, since its groups reach across them; the model's
head does not.  So the states before the head are kept, and only of the scored positions; the head
then goes over them in batches that fit.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.routing import declared

MOST_BYTES = 2**28  # of logits at a time, and at most a quarter of the free memory
PER_LOGIT = 12  # bytes: itself, in float32, and its logarithm


_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def _body(model: nn.Module) -> nn.Module | None:
    """The part of a model of transformers before its head; None where it names none, or where its
    last states are not what the head goes over, tried once on a few tokens.
    """
    found = getattr(model, "base_model", None)
    if not isinstance(found, nn.Module) or found is model:
        return None
    if model not in _known:
        _known[model] = True  # for the trial
        try:
            _known[model] = _splits(model)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            _known[model] = False  # whatever else its body answers
    return found if _known[model] else None


@torch.no_grad()
def _splits(model: nn.Module) -> bool:
    """Whether the head over kept states gives the model's own logits."""
    ids = torch.arange(1, 9, device=declared.device_of(model))[None]
    whole = model(input_ids=ids, use_cache=False).logits[:, 2:-1].float()
    with headless(model, 2) as outputs:
        model(input_ids=ids, use_cache=False)
    found = head(model, outputs[0], slice(None), ids[:, 3:]).float()
    return found.shape == whole.shape and torch.allclose(found, whole, rtol=1e-2, atol=1e-4)


def _with_states(output: Any, states: Tensor) -> Any:
    """The output of a body with other last states [rows, positions, hidden]."""
    if isinstance(output, tuple):
        return states, *output[1:]
    return type(output)(**dict(output) | {"last_hidden_state": states})


@contextmanager
def headless(
    model: nn.Module, first: int | None = None, end: int | None = -1
) -> Iterator[list[Any]]:
    """Inside, a forward pass computes logits of the last position alone; of each pass the body's
    output from position `first` to the last but one, or before `end`, is appended to what is
    returned, or nothing where `first` is None.

    A model that does not name its body computes everything, and nothing is appended.
    """
    outputs: list[Any] = []
    body = _body(model)
    if body is None:
        yield outputs
        return
    whole = body.forward

    def cut(*args: Any, **named: Any) -> Any:
        output = whole(*args, **named)
        if first is not None:
            outputs.append(_with_states(output, output[0][:, first:end].clone()))
        return _with_states(output, output[0][:, -1:])

    with _instead(body, cut):
        yield outputs


@contextmanager
def _instead(body: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, a call of `body` is one of `forward`."""
    before = vars(body).get("forward")
    cast(Any, body).forward = forward
    try:
        yield
    finally:
        del cast(Any, body).forward
        if before is not None:
            cast(Any, body).forward = before


def head(model: nn.Module, output: Any, rows: slice, ids: Tensor) -> Tensor:
    """[rows, positions, vocabulary] the logits that a model makes of some rows of what `headless`
    kept; ids: any of the same shape.
    """
    body = _body(model)
    if body is None:
        raise ValueError(f"scoring.head: {type(model).__name__}: must name its body")
    own = _with_states(output, output[0][rows])
    with _instead(body, lambda *_args, **_named: own):
        return model(input_ids=ids, use_cache=False).logits


def reach(model: nn.Module) -> float:
    """What no logit exceeds per length of a state [hidden] with a 1 behind it (Cauchy and Schwarz);
    infinite where the head is not one matrix of numbers, NaN where these are not finite.
    """
    found = getattr(model, "get_output_embeddings", lambda: None)()
    weight = getattr(found, "weight", None)
    if type(found) is not nn.Linear or weight is None or not weight.is_floating_point():
        return math.inf
    if weight.is_meta:
        return math.inf
    length = torch.linalg.vector_norm(weight.detach(), dim=1, dtype=torch.float32)
    bias = length.new_zeros(()) if found.bias is None else found.bias.detach().float()
    return float(torch.hypot(length, bias).max())


def within(states: Tensor, reach: float) -> Tensor:
    """[rows, positions] whether the logits of states are finite for certain, a thousandth of what
    their number type holds being left for what a model does to its logits.
    """
    length = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    return length.clamp(min=1) * math.sqrt(2) * reach < torch.finfo(states.dtype).max / 1000


def rows_at_once(model: nn.Module, positions: int) -> int:
    """How many documents' logits of so many positions are computed at a time."""
    device = declared.device_of(model)
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    size = declared.configuration(model).get_text_config().vocab_size * positions * PER_LOGIT
    return max(1, min(MOST_BYTES, free // 4) // size)


@torch.no_grad()
def score(model: nn.Module, ids: Tensor, output: Any, first: int) -> tuple[np.ndarray, np.ndarray]:
    """(nats, hits) [documents] of the tokens of ids [documents, tokens] from position `first` on,
    each predicted by the one before; output: what `headless` kept from `first` − 1 on.
    """
    truth, found = ids[:, first:], []
    size = rows_at_once(model, truth.shape[1])
    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        logits = head(model, output, rows, truth[rows])
        found.append(scored(logits, truth[rows]))
    both = torch.cat(found, 1).cpu().numpy()
    return both[0], both[1]


def scored(logits: Tensor, truth: Tensor) -> Tensor:
    """[2, documents] nats, and how many were predicted right, of tokens `truth` [documents,
    positions] by logits of the same positions.
    """
    guess = logits.to(truth.device).float()
    nats = cross_entropy(guess.flatten(0, 1), truth.flatten(), reduction="none").view_as(truth)
    return torch.stack([nats.double().sum(1), (guess.argmax(-1) == truth).double().sum(1)])
