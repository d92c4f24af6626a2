"""The one training loop: from random weights (the base model) or from a checkpoint (fine-tuning).

Plain torch, because what the project studies sits inside it: the balance loss and its statistics,
seen through `lib.routing.adapter`, and the precision of the expert products.  Accumulation and the
number of processes change neither the objective nor its gradient: losses see the statistics of the
global batch (arXiv 2501.11873).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lib.balance import history, losses, numerics, objective
from lib.balance.plan import Plan
from lib.routing import adapter

Step = Callable[[Tensor], tuple[Tensor, ...]]


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
    """Train `model` in place on a row of tokens; returns its history (`history.Log.row`).

    sample: windows [sequences, sequence_tokens + 1] for its column held_out.  folder: where a
    checkpoint is left every `checkpoint_every` steps, and from which the run goes on if there is
    one.  replay: on one GPU the step up to the optimizer's is one CUDA graph.  pause: asked after
    each step, with its number from 1; where it says yes a checkpoint is left and the run ends
    there, to be gone on with.  Under torchrun each process takes its share of each batch.  Refused:
    what `Run` refuses, and a loss that is no longer finite.
    """
    own = Run(model, stream, plan, precision, folder)
    windows = None if sample is None else _on(own.log.device, sample.astype(np.int64))
    with own.seen() as rec, _progress(title, plan, own.first) as bar:
        step = own.stepper(rec, replay)
        for number in range(own.first, plan.steps):
            own.take(step, number)
            if plan.logs(number + 1):
                bar.set_postfix_str(own.logged(number + 1, windows))
            if checkpoint_every and (number + 1) % checkpoint_every == 0:
                own.keeper.save(number + 1)
            bar.update()
            if pause is not None and pause(number + 1):
                own.keeper.save(number + 1)
                break
    return pd.DataFrame(own.log.history)


class Run:
    """A training run under way: the model, its optimizer, what it was and where it goes on.

    On a CPU it ends with the same bits as without a break.  Refused: a text too short for one
    batch, a batch that does not divide evenly, an unknown loss, a checkpoint of another run.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        stream: np.ndarray,
        plan: Plan,
        precision: str,
        folder: Path | None,
    ) -> None:
        losses.check(plan.loss, plan.coefficient)
        plan.divides(objective.place()[1])
        self.model, self.plan, self.loss = model, plan, losses.LOSSES[plan.loss]
        self.forward = numerics.use_precision(model, precision)
        self.optimizer = optimizer(model, plan)
        self.bias = objective.selection_bias(model) if self.loss.moves_bias else None
        self.log = history.Log(plan, next(model.parameters()).device)
        self.keeper = history.Keeper(folder, model, self.optimizer, stream, plan, self.log)
        self.first = self.keeper.resume()
        self.batches = batches(_on(self.log.device, stream.astype(np.int32)), plan, self.first)

    @contextmanager
    def seen(self) -> Iterator[adapter.Record]:
        """The model in training, its bias in force, and what its routers do in a record."""
        self.model.train()
        scores = self.loss.function is not None
        with objective.biased(self.model), adapter.record(self.model, scores=scores) as rec:
            yield rec
        self.model.eval()

    def stepper(self, rec: adapter.Record, replay: bool) -> Step:
        """A function of a batch that leaves its clipped gradient in the model and returns what
        `objective.gradients` does; with `replay` one CUDA graph from its first batch on, unless
        the batch comes in parts.
        """
        plan, model = self.plan, self.model

        def step(batch: Tensor) -> tuple[Tensor, ...]:
            self.optimizer.zero_grad(set_to_none=True)
            found = objective.gradients(
                model,
                rec,
                batch,
                self.loss,
                plan.coefficient,
                micro_sequences=plan.micro_sequences,
                forward=self.forward,
            )
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            return found

        whole = plan.micro_sequences in (0, plan.batch_sequences)
        return _replaying(step, model) if replay and whole else step

    def take(self, step: Step, number: int) -> None:
        """One step of the optimizer, and of the bias where the loss moves one."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(number)
        nats, balance, load = step(next(self.batches))
        self.optimizer.step()
        if self.bias is not None:
            objective.update_bias(self.bias, load, self.plan.bias_rate(number))
        self.log.add(nats, balance, load)

    def logged(self, step: int, windows: Tensor | None) -> str:
        """End a stretch of the history with `step`, evaluated where the plan says so; returns its
        row in words.
        """
        row = self.log.row(step)
        if windows is not None and self.plan.evaluates(step):
            sequences = self.plan.batch_sequences
            row["held_out"] = held_out_nats(self.model, windows, sequences, self.forward)
            self.log.restart()
        layers = " ".join(f"{value:.2f}" for name, value in row.items() if name.startswith("gini_"))
        return f"nats {row['nats']:.3f}, gini {layers}, {row['tokens_per_s']:,.0f} tokens/s"


def _replaying(step: Step, model: torch.nn.Module) -> Step:
    """`objective.replayed` of a step, made with the first batch that comes."""
    made: list[Step] = []

    def replaying(batch: Tensor) -> tuple[Tensor, ...]:
        if not made:
            made.append(objective.replayed(step, model, batch))
        return made[0](batch)

    return replaying


def _on(device: torch.device, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).to(device)


def _progress(title: str, plan: Plan, first: int) -> tqdm:
    """A bar of steps, shown by one process of those that train together."""
    hidden = objective.place()[0] > 0
    return tqdm(total=plan.steps, initial=first, desc=title, mininterval=5.0, disable=hidden)
