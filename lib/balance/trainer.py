"""The per-layer losses of this book, and a watch on the load, for the Trainers of transformers and
TRL.

    from lib.balance import trainer as balance
    balance.attach(trainer, "switch", 0.01)
    trainer.add_callback(balance.Watch(trainer.model))
"""

from __future__ import annotations

import inspect
import types
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from lib import stats
from lib.balance import losses, objective
from lib.routing import adapter


class _Balance:
    """Adds a loss to those of a Trainer, by the statistics of each optimizer step's whole batch."""

    def __init__(self, trainer: Trainer, model: torch.nn.Module, loss: str, coefficient: float):
        self.trainer, self.model, self.coefficient = trainer, model, coefficient
        self.loss, self.stack = losses.LOSSES[loss], ExitStack()
        self.rec = self.stack.enter_context(adapter.record(model, scores=True))
        self.known: tuple[Tensor, Tensor] | None = None
        self.tokens = 0.0
        self.batches, self.language = trainer.get_batch_samples, trainer.compute_loss

    @torch.no_grad()
    def get_batch_samples(self, _trainer: Trainer, *given: Any) -> tuple[list, Any]:
        """The parts of the next optimizer step, of which load and mean probability are counted
        before the first gradient.
        """
        parts, items = self.batches(*given)
        loads, means, device = [], [], self.rec.device
        for part in parts:
            inputs = self.trainer._prepare_inputs(self._text(part))
            self.rec.clear()
            with self.trainer.compute_loss_context_manager(), _seeded(device):
                self.model(**inputs, use_cache=False)
            loads.append(self.rec.load)
            tokens = loads[-1][0].sum() / max(self.rec.k, 1)
            own = objective.probabilities(self.model, self.rec)
            means.append(torch.stack([*own * tokens, tokens.expand(own.shape[1])]))
        self.rec.clear()
        if parts:
            load, sums = objective.spread([sum(loads[1:], loads[0]), sum(means[1:], means[0])])
            self.tokens = float(sums[-1, 0])
            self.known = load, sums[:-1] / self.tokens
        return parts, items

    def _text(self, part: dict) -> dict:
        """What of a batch the model reads; refused: a batch that is not of one text a row."""
        if "input_ids" not in part:
            rule = "must have input_ids, as in supervised fine-tuning"
            raise ValueError(f"trainer.attach: a batch of {', '.join(part)}: {rule}")
        known = inspect.signature(self.model.forward).parameters
        return {name: value for name, value in part.items() if name in known and name != "labels"}

    def compute_loss(
        self, _trainer: Trainer, model: torch.nn.Module, inputs: dict, *given: Any, **named: Any
    ) -> Any:
        """The Trainer's loss of one part, and its share of the balance loss while it trains."""
        self.rec.clear()
        found = self.language(model, inputs, *given, **named)
        if not model.training or self.known is None:
            return found
        value, *rest = found if isinstance(found, tuple) else (found,)
        term = objective.balance_loss(self.model, self.rec, self.loss, *self.known)
        own = float(self.rec.load[0].sum()) / max(self.rec.k, 1)
        share = own / self.tokens * objective.place()[1]  # gradients of processes are averaged
        value = value + self.coefficient * term * share * self._divided(named)
        return (value, *rest) if rest else value

    def _divided(self, named: dict) -> int:
        """By what the Trainer will divide what it gets."""
        items, own = named.get("num_items_in_batch"), self.trainer
        scaled = getattr(own, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = own.model_accepts_loss_kwargs and items is not None
            scaled = scaled or own.compute_loss_func is not None
        return 1 if scaled else own.current_gradient_accumulation_steps


def _seeded(device: torch.device) -> Any:
    """Random generators are put back, so that dropout falls alike again."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def attach(trainer: Trainer, loss: str, coefficient: float) -> None:
    """Let a Trainer of transformers or TRL, before it trains, add `coefficient` times the mean over
    layers of `loss`, a row of `losses.LOSSES` that has a function of one layer.

    Value and gradient are those of `objective.gradients`: the load is that of the whole optimizer
    step, over accumulated parts and processes, counted in a forward pass of its own; padding does
    not count.  The pooled loss of transformers is switched off, in the model's configuration and in
    TRL.  A model with adapters is looked at below them.  Refused: another loss, a model that shows
    no router logits, and, when it trains, batches that are not one text a row (so DPO and GRPO).
    """
    losses.check(loss, coefficient)
    if (row := losses.LOSSES[loss]).function is None or row.pooled:
        own = [name for name, one in losses.LOSSES.items() if one.function and not one.pooled]
        raise ValueError(f"trainer.attach: loss = {loss!r}: must be one of {', '.join(own)}")
    model = trainer.accelerator.unwrap_model(trainer.model)
    whole = getattr(model, "get_base_model", lambda: model)()
    settings = whole.config.get_text_config()
    for holder, name in ((settings, "output_router_logits"), (trainer, "aux_loss_enabled")):
        if hasattr(holder, name):
            setattr(holder, name, False)
    added = _Balance(trainer, whole, loss, coefficient)
    for name in ("get_batch_samples", "compute_loss"):
        method = types.MethodType(getattr(added, name), trainer)
        setattr(trainer, name, method)


class Watch(TrainerCallback):
    """Logs the load of each layer (from 1) over the steps since the last log: gini/<layer>,
    max_violation/<layer>, dead_experts/<layer>, and the means over layers under the bare names.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        whole = getattr(model, "get_base_model", lambda: model)()
        self.stack = ExitStack()
        self.rec = self.stack.enter_context(adapter.record(whole))
        self.load = self.rec.load

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Forget what was counted between steps: evaluation, and passes that only count."""
        self.rec.clear()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Add what the step counted."""
        self.load = self.load + self.rec.load
        self.rec.clear()

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Put the numbers beside the Trainer's own, in its log and its history."""
        load = self.load.cpu().numpy()
        if (load.sum(1) == 0).any():
            return
        found = {"gini": stats.gini(load), "max_violation": stats.max_violation(load)}
        found["dead_experts"] = stats.dead_experts(load)
        own = {name: float(np.mean(values)) for name, values in found.items()}
        for name, values in found.items():
            own |= {f"{name}/{layer}": float(value) for layer, value in enumerate(values, 1)}
        more["logs"].update(own)
        state.log_history[-1].update(own)
        self.load = torch.zeros_like(self.load)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Take the hooks off."""
        self.stack.close()
