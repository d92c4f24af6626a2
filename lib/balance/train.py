"""The one training loop: from random weights (the base model) or from a checkpoint (fine-tuning).

Plain torch, because what the project studies sits inside it: the balance loss and its statistics,
seen through `lib.routing.adapter`, and the precision of the expert products.  Accumulation and the
number of processes change neither the objective nor its gradient: losses see the statistics of the
global batch (arXiv 2501.11873).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lib.balance import history, losses, numerics, objective
from lib.balance.plan import Plan
from lib.routing import adapter


def batches(stream: Tensor, plan: Plan, first: int = 0) -> Iterator[Tensor]:
    """Endless batches [sequences, sequence_tokens + 1] of a row of tokens, from batch `first` on.

    Each epoch has its own seeded order, which depends on the plan's seed and on nothing else.
    """
    windows = (len(stream) - 1) // plan.sequence_tokens
    if windows < plan.batch_sequences:
        raise ValueError(
            f"train.batches: the text has {windows} windows of {plan.sequence_tokens} tokens: "
            f"must have at least batch_sequences = {plan.batch_sequences}"
        )
    span = torch.arange(plan.sequence_tokens + 1, device=stream.device)
    epoch, order = 0, torch.empty(0, dtype=torch.int64, device=stream.device)
    while True:
        while len(order) < plan.batch_sequences:
            fresh = np.random.default_rng([plan.seed, epoch]).permutation(windows)
            # once an epoch, as it waits for the device
            order = torch.cat([order, torch.from_numpy(fresh).to(stream.device)])
            epoch += 1
        pick, order = order[: plan.batch_sequences], order[plan.batch_sequences :]
        if first > 0:
            first -= 1
            continue
        yield stream[pick[:, None] * plan.sequence_tokens + span].long()


def optimizer(model: torch.nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW of what is trained, with weight decay on matrices only."""
    own = [p for p in model.parameters() if p.requires_grad]
    matrices, rest = ([p for p in own if (p.dim() >= 2) == wide] for wide in (True, False))
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=True)


@torch.no_grad()
def held_out_nats(
    model: torch.nn.Module, sample: Tensor, sequences: int, forward: AbstractContextManager
) -> float:
    """Mean nats per token on windows [sequences, tokens + 1] that training never sees."""
    model.eval()
    with forward:
        parts = [
            float(objective.language_loss(model, part)) * len(part)
            for part in sample.split(sequences)
        ]
    model.train()
    return sum(parts) / len(sample)


def run(
    model: torch.nn.Module,
    stream: np.ndarray,
    plan: Plan,
    *,
    sample: np.ndarray | None = None,
    precision: str = "float32",
    title: str = "training",
    folder: Path | None = None,
    checkpoint_every: int = 0,
    replay: bool = True,
    pause: Callable[[int], bool] | None = None,
) -> pd.DataFrame:
    """Train `model` in place on a row of tokens; returns its history, a row per `log_every` steps.

    Columns: step, tokens, nats (of the batches since the row before), balance (value of the balance
    loss), held_out (nats per token on `sample` [sequences, sequence_tokens + 1], every
    `evaluate_every` steps, else NaN), tokens_per_s, and gini_0 … of each layer's load over the
    batches since the row before. folder: where a checkpoint is left every `checkpoint_every` steps,
    and from which the run goes on if there is one; on a CPU it ends with the same bits as without
    the break.  Under torchrun each process takes its share of each batch. replay: on one GPU the
    step up to the optimizer's is one CUDA graph, unless the batch comes in parts. pause: asked
    after each step, with its number from 1; where it says yes a checkpoint is left and the run ends
    there, to be gone on with.  It may look at the model meanwhile. Refused: a text too short for
    one batch, a batch that does not divide evenly, an unknown loss, a checkpoint of another run, a
    loss that is no longer finite.
    """
    losses.check(plan.loss, plan.coefficient)
    plan.divides(objective.place()[1])
    loss = losses.LOSSES[plan.loss]
    forward, step_optimizer = numerics.use_precision(model, precision), optimizer(model, plan)
    bias = objective.selection_bias(model) if loss.moves_bias else None
    log = history.Log(plan, next(model.parameters()).device)
    keeper = history.Keeper(folder, model, step_optimizer, stream, plan, log)
    first = keeper.resume()
    source = batches(_on(log.device, stream.astype(np.int32)), plan, first)
    windows = None if sample is None else _on(log.device, sample.astype(np.int64))
    model.train()
    with (
        objective.biased(model),
        adapter.record(model, scores=loss.function is not None) as rec,
        _progress(title, plan, first) as bar,
    ):
        step = _stepper(model, rec, plan, step_optimizer, forward)
        for number in range(first, plan.steps):
            for group in step_optimizer.param_groups:
                group["lr"] = plan.rate(number)
            batch = next(source)
            if replay and number == first and plan.micro_sequences in (0, plan.batch_sequences):
                step = objective.replayed(step, model, batch)
            nats, balance, load = step(batch)
            step_optimizer.step()
            if bias is not None:
                objective.update_bias(bias, load, plan.bias_rate(number))
            log.add(nats, balance, load)
            if plan.logs(number + 1):
                bar.set_postfix_str(_logged(log, number + 1, model, windows, forward))
            if checkpoint_every and (number + 1) % checkpoint_every == 0:
                keeper.save(number + 1)
            bar.update()
            if pause is not None and pause(number + 1):
                keeper.save(number + 1)
                break
    model.eval()
    return pd.DataFrame(log.history)


def _on(device: torch.device, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).to(device)


def _progress(title: str, plan: Plan, first: int) -> tqdm:
    """A bar of steps, shown by one process of those that train together."""
    hidden = objective.place()[0] > 0
    return tqdm(total=plan.steps, initial=first, desc=title, mininterval=5.0, disable=hidden)


def _logged(
    log: history.Log,
    step: int,
    model: torch.nn.Module,
    windows: Tensor | None,
    forward: AbstractContextManager,
) -> str:
    """End a stretch of the history with `step`, evaluated where the plan says so; returns its row
    in words.
    """
    row = log.row(step)
    if windows is not None and log.plan.evaluates(step):
        row["held_out"] = held_out_nats(model, windows, log.plan.batch_sequences, forward)
        log.restart()
    layers = " ".join(f"{value:.2f}" for name, value in row.items() if name.startswith("gini_"))
    return f"nats {row['nats']:.3f}, gini {layers}, {row['tokens_per_s']:,.0f} tokens/s"


def _stepper(
    model: torch.nn.Module,
    rec: adapter.Record,
    plan: Plan,
    step_optimizer: torch.optim.Optimizer,
    forward: AbstractContextManager,
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function of a batch that leaves its clipped gradient in the model and returns what
    `objective.gradients` does.
    """
    loss = losses.LOSSES[plan.loss]
    parts = plan.micro_sequences

    def step(batch: Tensor) -> tuple[Tensor, ...]:
        step_optimizer.zero_grad(set_to_none=True)
        found = objective.gradients(
            model, rec, batch, loss, plan.coefficient, micro_sequences=parts, forward=forward
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        return found

    return step
