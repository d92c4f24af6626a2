"""What one training run is: how long, in which batches, how fast, against which imbalance."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
    coefficient: float = 0.0  # weight of the balance loss, or step of the bias per update
    seed: int = 0  # of the data order
    log_every: int = 20
    evaluate_every: int = 500
    micro_sequences: int = 0  # per pass, the gradient adding up over passes; 0: all at once
    bias_decays: bool = False  # whether the step of the loss-free bias falls linearly to 0

    def divides(self, processes: int) -> None:
        """Refuse a batch that does not split into equal parts."""
        part = self.micro_sequences * processes or processes
        if self.batch_sequences % part:
            raise ValueError(
                f"train.Plan: batch_sequences = {self.batch_sequences}: must be a multiple of "
                f"{part}, processes ({processes}) × micro_sequences ({self.micro_sequences})"
            )

    def logs(self, step: int) -> bool:
        """Whether a row of the history ends with `step` (from 1)."""
        return step % self.log_every == 0 or step == self.steps

    def evaluates(self, step: int) -> bool:
        """Whether held-out text is evaluated at `step`, if a row of the history ends there."""
        return step % self.evaluate_every == 0 or step == self.steps

    def rate(self, step: int) -> float:
        """Learning rate at `step` (from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def bias_rate(self, step: int) -> float:
        """Step of the loss-free bias at `step` (from 0)."""
        return self.coefficient * (1 - step / self.steps if self.bias_decays else 1)
