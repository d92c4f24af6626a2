"""What a training run under way knows of itself: its history, and the checkpoints that hold it."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from lib import stats
from lib.balance import checkpoint, objective
from lib.balance.plan import Plan


class Log:
    """Sums of one stretch of training, kept on the device so that logging does not stall it."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.history: list[dict[str, float]] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch now."""
        self.count, self.started = 0, time.perf_counter()
        self.load = torch.zeros((), dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(2, device=self.device)

    def add(self, nats: Tensor, balance: Tensor, load: Tensor) -> None:
        """Add one step."""
        self.count, self.load = self.count + 1, self.load + load
        self.sums += torch.stack([nats.float(), balance.float()])

    def row(self, step: int) -> dict[str, float]:
        """The stretch's row, added to the history: step, tokens, nats (of its batches), balance
        (value of the balance loss), held_out (NaN), tokens_per_s, gini of the load over its
        batches, mean over layers, and gini_0 … of each layer's; a loss that is not finite ends the
        run.
        """
        nats, balance = (self.sums / self.count).tolist()
        if not math.isfinite(nats):
            raise FloatingPointError(
                f"train.run: step {step}: loss = {nats}: must be finite (the run diverged)"
            )
        size = self.plan.batch_sequences * self.plan.sequence_tokens
        rate = self.count * size / (time.perf_counter() - self.started)
        gini = stats.gini(self.load.cpu().numpy())
        row = dict(step=step, tokens=step * size, nats=nats, balance=balance, held_out=math.nan)
        row |= dict(tokens_per_s=rate, gini=float(np.mean(gini)))
        row |= {f"gini_{i}": float(value) for i, value in enumerate(gini)}
        self.history.append(row)
        self.restart()
        return row


class Keeper:
    """The checkpoints of one run in `folder` (None: there are none)."""

    def __init__(
        self,
        folder: Path | None,
        model: torch.nn.Module,
        step_optimizer: torch.optim.Optimizer,
        stream: np.ndarray,
        plan: Plan,
        log: Log,
    ) -> None:
        self.folder, self.model, self.optimizer, self.log = folder, model, step_optimizer, log
        if folder is not None:
            start = checkpoint.fingerprint(model, stream)
            known = {"model": type(model).__name__, "start": start}
            self.run = known | {"processes": objective.place()[1]} | asdict(plan)

    def resume(self) -> int:
        """The step to go on from, with all as it was then."""
        if self.folder is None:
            return 0
        own = self.folder / str(objective.place()[0])
        found = checkpoint.latest(own)
        if objective.place()[1] > 1:
            # one process may have been killed before it wrote what the others did
            least = torch.tensor(found[1]["step"] if found else 0, device=self.log.device)
            dist.all_reduce(least, dist.ReduceOp.MIN)
            found = checkpoint.latest(own, int(least))
        if found is None:
            return 0
        tensors, facts = found
        checkpoint.same(self.folder, facts, self.run)
        checkpoint.restore(self.model, self.optimizer, tensors)
        self.log.load = tensors["log.load"].to(self.log.device)
        self.log.sums = tensors["log.sums"].to(self.log.device)
        self.log.count, self.log.history = facts["count"], facts["history"]
        return facts["step"]

    def save(self, step: int) -> None:
        """Leave a checkpoint of the run after `step` steps."""
        if self.folder is not None:
            tensors = checkpoint.gather(self.model, self.optimizer)
            tensors |= {"log.sums": self.log.sums, "log.load": self.log.load}
            facts = self.run | {"count": self.log.count, "history": self.log.history}
            checkpoint.save(self.folder / str(objective.place()[0]), step, tensors, facts)
