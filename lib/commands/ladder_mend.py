"""Repairs of an unbalanced model in the ladder: all of it trained on, its routers' weights alone,
or a bias fitted beside a model that stays as it is.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from dataclasses import asdict
from types import SimpleNamespace

import torch
from torch import nn

from lib.balance import train
from lib.commands import ladder_measure
from lib.commands.ladder_measure import Text
from lib.paper import settings as given
from lib.routing import adapter


def plan(p: SimpleNamespace, loss: str, coefficient: float, rate: float, seed: int) -> train.Plan:
    """Training on as the fine-tuning chapter trains, `rate` times as fast."""
    known: dict = given.load("paper")
    steps = min(known["finetune_steps"], p.STEPS)
    return train.Plan(
        steps=steps,
        batch_sequences=min(known["finetune_sequences"], p.BATCH_SEQUENCES),
        sequence_tokens=p.SEQUENCE_TOKENS,
        learning_rate=rate * known["finetune_learning_rate"],
        warmup_steps=max(1, steps // 10),
        loss=loss,
        coefficient=coefficient,
        seed=seed,
        log_every=steps,
        evaluate_every=steps,
    )


def wanted(start: str, p: SimpleNamespace) -> list[tuple[str, str, float, float]]:
    """Rows (trained, loss, coefficient, rate) of the repairs that begin with `start`."""
    if start == "cheap":
        return [tuple(row) for row in p.CHEAP]
    return [("all", loss, value, 1.0) for loss, values in p.REPAIRS.items() for value in values]


def repaired(
    model: nn.Module, start: str, seed: int, p: SimpleNamespace, text: Text, precision: str
) -> list[dict]:
    """Profile and price of `model` itself, then of each repair of it, with what it took: tokens
    and seconds on a GPU that several share, and the most memory held beyond the model.  One that
    diverges is a row without them that says so.
    """
    rows = [{"trained": "", "loss": "start", "coefficient": 0.0} | worth(model, text, p)]
    for trained, loss, coefficient, rate in wanted(start, p):
        own = copy.deepcopy(model)
        way = plan(p, loss, coefficient, rate, seed)
        about = {"trained": trained} | asdict(way) | {"rate": rate}
        try:
            with measured(own, about):
                about["tokens"] = mended(own, trained, way, p, text, precision)
        except FloatingPointError as error:
            rows.append(about | {"diverged": str(error)})
        else:
            rows.append(about | worth(own, text, p, capped=trained != "bias"))
    return rows


def mended(
    model: nn.Module, trained: str, way: train.Plan, p: SimpleNamespace, text: Text, precision: str
) -> int:
    """Repair `model` in place; returns the tokens that it took."""
    if trained == "bias":
        model.register_buffer("selection_bias", way.coefficient * fitted(model, text, p))
        return p.FIT_STEPS * p.FIT_SEQUENCES * p.SEQUENCE_TOKENS
    with only(model, trained):
        train.run(model, text.stream, way, precision=precision, title=way.loss)
    return way.steps * way.batch_sequences * way.sequence_tokens


def fitted(model: nn.Module, text: Text, p: SimpleNamespace) -> torch.Tensor:
    """The bias [layers, experts] of the declared fit, whose step decays to 0."""
    return torch.stack([row.float() for row in ladder_measure.fit(model, text, p).bias or []])


@contextlib.contextmanager
def only(model: nn.Module, trained: str) -> Iterator[None]:
    """Inside it all ("all") or the routers' parameters alone ("routers") take a gradient."""
    routers = {id(p) for layer in adapter.layers(model) for p in layer.seen.module.parameters()}
    frozen = [p for p in model.parameters() if trained == "routers" and id(p) not in routers]
    for parameter in frozen:
        parameter.requires_grad_(False)
    yield
    for parameter in frozen:
        parameter.requires_grad_(True)


@contextlib.contextmanager
def measured(model: nn.Module, about: dict) -> Iterator[None]:
    """Adds seconds, and on a GPU the bytes held at most beyond those held before, to `about`."""
    cuda = next(model.parameters()).is_cuda
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.monotonic()
    yield
    if cuda:
        torch.cuda.synchronize()
        about["memory_bytes"] = torch.cuda.max_memory_allocated() - before
    about["seconds"] = round(time.monotonic() - began, 2)


def worth(model: nn.Module, text: Text, p: SimpleNamespace, capped: bool = True) -> dict:
    """Profile without counts by document, and (capped) the price of balancing under the primary
    policy, which knows no bias.
    """
    found: dict = {"profile": ladder_measure.profile(model, text, p)}
    found["profile"].pop("counts")
    if capped:
        price = dict(vars(p)) | {"GAMMAS": (p.PRICE_GAMMA,)}
        found["prefix"] = ladder_measure.prefix(
            model, text, SimpleNamespace(**price), p.POLICIES[:1]
        )
    return found
