"""The one training loop: from random weights (the base model) or from a checkpoint (fine-tuning).

Plain torch, because what the project studies sits inside it: the balance loss and its statistics,
seen through `lib.routing.adapter`, and the precision of the expert products.  Accumulation and the
number of processes change neither the objective nor its gradient: losses see the statistics of the
global batch (arXiv 2501.11873).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import rms_norm
from tqdm import tqdm
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from lib import stats
from lib.balance import checkpoint, losses, objective
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
    coefficient: float = (
        0.0  # weight of the balance loss; for "bias" the step of the bias per update
    )
    seed: int = 0  # of the data order
    log_every: int = 20
    evaluate_every: int = 500
    micro_sequences: int = (
        0  # sequences per pass, the gradient adding up over passes; 0: all at once
    )
    bias_decays: bool = False  # whether the step of the loss-free bias falls linearly to 0

    def divides(self, processes: int) -> None:
        """Refuse a batch that does not split into equal parts."""
        part = self.micro_sequences * processes or processes
        if self.batch_sequences % part:
            raise ValueError(
                f"train.Plan: batch_sequences = {self.batch_sequences}: must be a multiple of {part}, "
                f"processes ({processes}) × micro_sequences ({self.micro_sequences})"
            )

    def rate(self, step: int) -> float:
        """Learning rate at `step` (from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def bias_rate(self, step: int) -> float:
        """Step of the loss-free bias at `step` (from 0)."""
        return self.coefficient * (1 - step / self.steps if self.bias_decays else 1)


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
    product = ALL_EXPERTS_FUNCTIONS["grouped_mm"]
    return product(_Half(self), hidden_states.bfloat16(), top_k_index, top_k_weights).to(
        hidden_states.dtype
    )


ALL_EXPERTS_FUNCTIONS.register("grouped_mm_bf16", _grouped_mm_bf16)


def fuse_norms(model: torch.nn.Module) -> int:
    """Let every root-mean-square norm of `model` run as one kernel instead of seven; returns how
    many there are.

    A family may mean something else by the name, so that only those are taken that agree on a few
    rows.
    """
    done = 0
    for norm in model.modules():
        weight, eps = (
            getattr(norm, "weight", None),
            getattr(norm, "variance_epsilon", getattr(norm, "eps", None)),
        )
        if not type(norm).__name__.endswith("RMSNorm") or weight is None or eps is None:
            continue
        rows = torch.linspace(-3, 3, 8 * len(weight), device=weight.device).view(8, -1).sin()
        fused = partial(_norm, weight, eps)
        with torch.no_grad():
            if torch.allclose(
                norm(rows).float(),
                fused(rows).float(),
                rtol=1e-2 if weight.dtype == torch.bfloat16 else 1e-4,
            ):
                norm.forward, done = fused, done + 1
    return done


def _norm(weight: Tensor, eps: float, hidden: Tensor) -> Tensor:
    kind = torch.promote_types(weight.dtype, hidden.dtype)
    return rms_norm(hidden.to(weight.dtype), weight.shape, weight, eps).to(kind)


def use_precision(model: torch.nn.Module, precision: str) -> object:
    """Set the model's expert products to `precision` ("bf16" or "float32") and return the context
    of its forward.
    """
    if precision not in ("bf16", "float32"):
        raise ValueError(f"train.use_precision: precision = {precision!r}: must be bf16 or float32")
    half = precision == "bf16"
    first = next(model.parameters())
    if half and first.is_cuda:
        fuse_norms(model)
    if getattr(
        model, "_can_set_experts_implementation", bool
    )():  # else its experts are plain products, which autocast
        single = "grouped_mm" if first.dtype == torch.float32 else "eager"
        model.set_experts_implementation("grouped_mm_bf16" if half else single)
    return torch.autocast(first.device.type, dtype=torch.bfloat16) if half else nullcontext()


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
            order = torch.cat(
                [order, torch.from_numpy(fresh).to(stream.device)]
            )  # once an epoch, as it waits for the device
            epoch += 1
        pick, order = order[: plan.batch_sequences], order[plan.batch_sequences :]
        if first > 0:
            first -= 1
            continue
        yield stream[pick[:, None] * plan.sequence_tokens + span].long()


def optimizer(model: torch.nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(
        groups, lr=plan.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused
    )


@torch.no_grad()
def held_out_nats(model: torch.nn.Module, sample: Tensor, sequences: int, forward) -> float:
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
    device = next(model.parameters()).device
    sample = None if sample is None else torch.from_numpy(sample.astype(np.int64)).to(device)
    forward, step_optimizer = use_precision(model, precision), optimizer(model, plan)
    bias = objective.selection_bias(model) if plan.loss == "bias" else None
    log = _Log(plan, device)
    keeper = _Keeper(folder, model, step_optimizer, stream, plan, log)
    first = keeper.resume()
    source = batches(torch.from_numpy(stream.astype(np.int32)).to(device), plan, first)
    model.train()

    def step(batch: Tensor) -> tuple[Tensor, ...]:
        step_optimizer.zero_grad(set_to_none=True)
        options = dict(micro_sequences=plan.micro_sequences, forward=forward)
        found = objective.gradients(model, rec, batch, plan.loss, plan.coefficient, **options)
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        return found

    with (
        objective.biased(model),
        adapter.record(model, scores=losses.LOSSES[plan.loss] is not None) as rec,
        tqdm(
            total=plan.steps,
            initial=first,
            desc=title,
            mininterval=5.0,
            disable=objective.place()[0] > 0,
        ) as bar,
    ):
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
            last = number + 1 == plan.steps
            if (number + 1) % plan.log_every == 0 or last:
                row = log.row(number + 1)
                if sample is not None and ((number + 1) % plan.evaluate_every == 0 or last):
                    row["held_out"] = held_out_nats(model, sample, plan.batch_sequences, forward)
                    log.restart()
                log.history.append(row)
                layers = " ".join(f"{row[f'gini_{i}']:.2f}" for i in range(rec.layers))
                bar.set_postfix_str(
                    f"nats {row['nats']:.3f}, gini {layers}, {row['tokens_per_s']:,.0f} tokens/s"
                )
            if checkpoint_every and (number + 1) % checkpoint_every == 0:
                keeper.save(number + 1)
            bar.update()
            if pause is not None and pause(number + 1):
                keeper.save(number + 1)
                break
    model.eval()
    return pd.DataFrame(log.history)


class _Keeper:
    """The checkpoints of one run in `folder` (None: there are none)."""

    def __init__(
        self, folder, model, step_optimizer, stream: np.ndarray, plan: Plan, log: _Log
    ) -> None:
        self.folder, self.model, self.optimizer, self.log = folder, model, step_optimizer, log
        if folder is not None:
            start = checkpoint.fingerprint(model, stream)
            self.run = {
                "model": type(model).__name__,
                "start": start,
                "processes": objective.place()[1],
            } | asdict(plan)

    def resume(self) -> int:
        """The step to go on from, with all as it was then."""
        if self.folder is None:
            return 0
        own = self.folder / str(objective.place()[0])
        found = checkpoint.latest(own)
        if (
            objective.place()[1] > 1
        ):  # one process may have been killed before it wrote what the others did
            least = torch.tensor(found[1]["step"] if found else 0, device=self.log.device)
            dist.all_reduce(least, dist.ReduceOp.MIN)
            found = checkpoint.latest(own, int(least))
        if found is None:
            return 0
        tensors, facts = found
        checkpoint.same(self.folder, facts, self.run)
        checkpoint.restore(self.model, self.optimizer, tensors)
        device = self.log.device
        self.log.load, self.log.sums = (
            tensors["log.load"].to(device),
            tensors["log.sums"].to(device),
        )
        self.log.count, self.log.history = facts["count"], facts["history"]
        return facts["step"]

    def save(self, step: int) -> None:
        """Leave a checkpoint of the run after `step` steps."""
        if self.folder is not None:
            tensors = checkpoint.gather(self.model, self.optimizer)
            tensors |= {"log.sums": self.log.sums, "log.load": torch.as_tensor(self.log.load)}
            facts = self.run | {"count": self.log.count, "history": self.log.history}
            checkpoint.save(self.folder / str(objective.place()[0]), step, tensors, facts)


class _Log:
    """Sums of one stretch of training, kept on the device so that logging does not stall it."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.history: list[dict] = []
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
            raise FloatingPointError(
                f"train.run: step {step}: loss = {nats}: must be finite (the run diverged)"
            )
        size = self.plan.batch_sequences * self.plan.sequence_tokens
        rate = self.count * size / (time.perf_counter() - self.started)
        gini = stats.gini(self.load.cpu().numpy())
        row = dict(
            step=step,
            tokens=step * size,
            nats=nats,
            balance=balance,
            held_out=math.nan,
            tokens_per_s=rate,
            gini=float(np.mean(gini)),
        )
        row |= {f"gini_{i}": float(value) for i, value in enumerate(gini)}
        self.restart()
        return row
