"""The one training loop: from random weights (the base model) or from a checkpoint (fine-tuning).

Plain torch, because what the project studies sits inside it: the balance loss and its statistics, seen through
`lib.routing.adapter`, and the precision of the expert products.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from lib import stats
from lib.balance import losses
from lib.routing import adapter


@dataclass(frozen=True)
class Plan:
    """One training run.  Tokens seen: steps × batch_sequences × sequence_tokens."""

    steps: int
    batch_sequences: int
    sequence_tokens: int
    learning_rate: float  # peak, of a linear warm-up and a cosine to a tenth of it
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0  # largest norm of the gradient
    loss: str = "none"  # of losses.LOSSES
    coefficient: float = 0.0
    seed: int = 0  # of the data order
    log_every: int = 20
    evaluate_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate at `step` (from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class _Half:
    """An experts module seen with bfloat16 weights; everything else is the module's own."""

    def __init__(self, experts: torch.nn.Module) -> None:
        self._experts = experts

    def __getattr__(self, name: str):
        value = getattr(self._experts, name)
        return value.bfloat16() if isinstance(value, torch.nn.Parameter) else value


def _grouped_mm_bf16(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The grouped product in bfloat16 on float32 master weights, which autocast alone does not bring about."""
    product = ALL_EXPERTS_FUNCTIONS["grouped_mm"]
    return product(_Half(self), hidden_states.bfloat16(), top_k_index, top_k_weights).to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register("grouped_mm_bf16", _grouped_mm_bf16)


def use_precision(model: torch.nn.Module, precision: str) -> object:
    """Set the model's expert products to `precision` ("bf16" or "float32") and return the context of its forward."""
    if precision not in ("bf16", "float32"):
        raise ValueError(f"train.use_precision: precision = {precision!r}: must be bf16 or float32")
    half = precision == "bf16"
    model.set_experts_implementation("grouped_mm_bf16" if half else "grouped_mm")
    kind = next(model.parameters()).device.type
    return torch.autocast(kind, dtype=torch.bfloat16) if half else nullcontext()


def batches(stream: Tensor, plan: Plan) -> Iterator[Tensor]:
    """Endless batches [sequences, sequence_tokens + 1] of a row of tokens, each epoch in its own seeded order."""
    windows = (len(stream) - 1) // plan.sequence_tokens
    if windows < plan.batch_sequences:
        raise ValueError(
            f"train.batches: the text has {windows} windows of {plan.sequence_tokens} tokens: "
            f"must have at least batch_sequences = {plan.batch_sequences}"
        )
    span = torch.arange(plan.sequence_tokens + 1, device=stream.device)
    epoch, order = 0, np.empty(0, dtype=np.int64)
    while True:
        while len(order) < plan.batch_sequences:
            order = np.append(order, np.random.default_rng([plan.seed, epoch]).permutation(windows))
            epoch += 1
        pick, order = order[: plan.batch_sequences], order[plan.batch_sequences :]
        start = torch.from_numpy(pick).to(stream.device) * plan.sequence_tokens
        yield stream[start[:, None] + span].long()


def optimizer(model: torch.nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)


def language_loss(model: torch.nn.Module, batch: Tensor) -> Tensor:
    """Mean next-token cross entropy in nats of a batch [sequences, tokens + 1]."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def balance_loss(rec: adapter.Record, name: str) -> Tensor:
    """Mean over layers of the balance loss `name` on what `rec` holds of this step (0 for "none")."""
    loss = losses.LOSSES[name]
    if loss is None:
        return torch.zeros((), device=rec.device)
    return torch.stack([loss(scores[-1], rec.load[i]) for i, scores in enumerate(rec.scores)]).mean()


@torch.no_grad()
def held_out_nats(model: torch.nn.Module, sample: Tensor, sequences: int, forward) -> float:
    """Mean nats per token on windows [sequences, tokens + 1] that training never sees."""
    model.eval()
    with forward:
        parts = [float(language_loss(model, part)) * len(part) for part in sample.split(sequences)]
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
) -> pd.DataFrame:
    """Train `model` in place on a row of tokens; returns its history, a row per `log_every` steps.

    Columns: step, tokens, nats (of the batches since the row before), balance (value of the balance loss), held_out
    (nats per token on `sample` [sequences, sequence_tokens + 1], every `evaluate_every` steps, else NaN),
    tokens_per_s, and gini_0 … of each layer's load over the batches since the row before.
    Refused: a text too short for one batch, an unknown loss, a loss that is no longer finite.
    """
    if plan.loss not in losses.LOSSES or plan.coefficient < 0:
        raise ValueError(
            f"train.run: loss = {plan.loss!r}, coefficient = {plan.coefficient}: "
            f"must be one of {', '.join(losses.LOSSES)}, and at least 0"
        )
    device = next(model.parameters()).device
    source = batches(torch.from_numpy(stream.astype(np.int32)).to(device), plan)
    sample = None if sample is None else torch.from_numpy(sample.astype(np.int64)).to(device)
    forward, step_optimizer = use_precision(model, precision), optimizer(model, plan)
    history, log = [], _Log(plan, device)
    model.train()
    with (
        adapter.record(model, scores=plan.loss != "none") as rec,
        tqdm(total=plan.steps, desc=title, mininterval=5.0) as bar,
    ):
        for step in range(plan.steps):
            for group in step_optimizer.param_groups:
                group["lr"] = plan.rate(step)
            rec.clear()
            batch = next(source)
            with forward:
                nats = language_loss(model, batch)
                balance = balance_loss(rec, plan.loss)
            (nats + plan.coefficient * balance).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            step_optimizer.step()
            step_optimizer.zero_grad(set_to_none=True)
            log.add(nats.detach(), balance.detach(), rec.load)
            last = step + 1 == plan.steps
            if (step + 1) % plan.log_every == 0 or last:
                row = log.row(step + 1)
                due = (step + 1) % plan.evaluate_every == 0 or last
                if sample is not None and due:
                    row["held_out"] = held_out_nats(model, sample, plan.batch_sequences, forward)
                    log.restart()
                history.append(row)
                bar.set_postfix(nats=f"{row['nats']:.3f}", gini=f"{row['gini']:.3f}")
            bar.update()
    model.eval()
    return pd.DataFrame(history)


class _Log:
    """Sums of one stretch of training, kept on the device so that logging does not stall it."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch now."""
        self.count, self.load, self.started = 0, 0, time.perf_counter()
        self.sums = torch.zeros(2, device=self.device)

    def add(self, nats: Tensor, balance: Tensor, load: Tensor) -> None:
        """Add one step."""
        self.count, self.load = self.count + 1, self.load + load
        self.sums += torch.stack([nats.float(), balance.float()])

    def row(self, step: int) -> dict[str, float]:
        """The stretch's row of the history; a loss that is not finite ends the run."""
        nats, balance = (self.sums / self.count).tolist()
        if not math.isfinite(nats):
            raise FloatingPointError(f"train.run: step {step}: loss = {nats}: must be finite (the run diverged)")
        size = self.plan.batch_sequences * self.plan.sequence_tokens
        rate = self.count * size / (time.perf_counter() - self.started)
        gini = stats.gini(self.load.cpu().numpy())
        row = dict(step=step, tokens=step * size, nats=nats, balance=balance, held_out=math.nan,
                   tokens_per_s=rate, gini=float(np.mean(gini)))  # fmt: skip
        row |= {f"gini_{i}": float(value) for i, value in enumerate(gini)}
        self.restart()
        return row
