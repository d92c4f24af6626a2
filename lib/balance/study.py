"""What is compared when a model is repaired by training: the runs of a study, what they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields

from lib import provenance
from lib.model import load, texts

# what a result depends on besides loss, coefficient and seed, and the part of the text
SETTINGS = (
    "model",
    "finetune_steps",
    "finetune_sequences",
    "sequence_tokens",
    "finetune_learning_rate",
    "documents_per_domain",
    "tokens_per_document",
    "batch_tokens",
    "seed",
)
# and where they differ from what they are here, which earlier results do not tell
OTHERS = dict(
    revision="main",
    dtype="auto",
    text=texts.HELD_OUT,
    text_field="text",
    text_split="test",
    trained="all",
)


@dataclass(frozen=True)
class Job:
    """One run.  The loss "start" is the checkpoint itself, evaluated without training."""

    loss: str
    coefficient: float
    seed: int

    @property
    def name(self) -> str:
        """Names its file."""
        return f"{self.loss}_{self.coefficient:g}_{self.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared, under what all runs share, and where they run; fields are called as the
    parameters of the chapter.
    """

    coefficients: Mapping[str, Sequence[float]]  # per loss
    training_seeds: int  # runs per loss and coefficient
    training_strides: Sequence[int]  # texts: every n-th training document; each has all runs
    model: str  # "embedded", a folder or owner/name of a hub
    finetune_steps: int
    finetune_sequences: int  # per step
    sequence_tokens: int
    finetune_learning_rate: float
    documents_per_domain: int  # held out
    tokens_per_document: int
    batch_tokens: int  # of a serving batch
    seed: int  # of data order and batches; the runs' seeds count from it
    revision: str = "main"
    dtype: str = "auto"  # of weights that are not trained
    remote_code: str = ""
    text: str = texts.HELD_OUT  # trained on its training part, judged on the other
    text_field: str = "text"
    text_split: str = "test"
    trained: str = "all"  # or "routers", or "auto": see `decided`
    keep: str = ""  # the loss whose repaired model is kept
    corpus_source: str = "auto"
    allow_partial: bool = False
    device: str = "auto"
    deterministic: bool = False
    checkpoint_every: int = 0
    time_budget_s: float = math.inf

    @classmethod
    def of(cls, given: Mapping[str, object]) -> Study:
        """The study that these parameters ask for; what is not a field of it is left out.  Refused:
        parameters that lack some.
        """
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        if lacking := [name for name in needed if name not in given]:
            raise ValueError(
                f"parameters: lack {', '.join(lacking)}: must have {', '.join(needed)}"
            )
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})  # type: ignore[arg-type]

    @property
    def tokens(self) -> int:
        """Tokens that a run sees."""
        return self.finetune_steps * self.batch

    @property
    def batch(self) -> int:
        """Tokens of an optimizer step."""
        return self.finetune_sequences * self.sequence_tokens

    @property
    def strides(self) -> list[int]:
        """The texts: of this book's every n-th training document; of others there is one, whole."""
        return list(self.training_strides) if self.text == texts.HELD_OUT else [1]

    def settings(self, stride: int) -> dict:
        """What results on one text must have in common to stand beside each other."""
        known = {name: getattr(self, name) for name in SETTINGS} | {"training_stride": stride}
        own = {name: getattr(self, name) for name in OTHERS}
        known |= {name: value for name, value in own.items() if value != OTHERS[name]}
        # what is the user's own counts by its content, wherever it lies
        read = provenance.contents(dict(model=self.model, text=self.text))
        known |= {name: f"SHA-256 {sha}" for name, sha in read.items()}
        if self.model == "embedded":
            known["model_sha256"] = provenance.sha256(load.weights("without"))
        return known

    def kept(self) -> Job | None:
        """The run whose model is kept: of the loss `keep` the first seed at its middle
        coefficient, on the first text.
        """
        values = sorted(self.coefficients.get(self.keep, []))
        return Job(self.keep, values[(len(values) - 1) // 2], 0) if values else None
