"""One fine-tuning run against imbalance, and what it shares with those that it is compared with.

Every run starts from the same checkpoint and, for one seed, sees the same text in the same order.
Its result is plain data: what it was, its curve, and what it is worth on held-out text.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lib import provenance, stats
from lib.balance import evaluate, objective, pretrain, train
from lib.model import corpus, load

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
CURVE = 24  # rows of a run's curve


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
        return self.finetune_steps * self.finetune_sequences * self.sequence_tokens

    def settings(self, stride: int) -> dict:
        """What results on one text must have in common to stand beside each other."""
        known = {name: getattr(self, name) for name in SETTINGS} | {"training_stride": stride}
        file = load.weights("without")
        return known | (
            {"model_sha256": provenance.sha256(file)} if self.model == "embedded" else {}
        )


@dataclass(frozen=True)
class Setup:
    """What all runs on one text share: the tokens trained on, the documents held out, where they
    run, and the settings by which results are known.
    """

    stream: np.ndarray
    documents: list[corpus.Document]
    device: torch.device
    settings: dict

    @property
    def precision(self) -> str:
        """bfloat16 products on a GPU."""
        return "bf16" if self.device.type == "cuda" else "float32"


def opened(model: str, device: torch.device):
    """(model, tokenizer) that fine-tuning starts from, in float32."""
    name = "without" if model == "embedded" else model
    return load.open(name, device=device, dtype="float32")


def prepare(study: Study, stride: int, device: torch.device) -> Setup:
    """Read the declared part of the training text, every `stride`-th document, and the held-out
    documents.
    """
    options: dict[str, Any] = {
        "source": study.corpus_source,
        "allow_partial": study.allow_partial,
    }
    tokenizer = opened(study.model, torch.device("cpu"))[1]
    rows = corpus.manifest().query("split == 'train'").iloc[::stride]
    stream = corpus.stream(corpus.encode(corpus.read(rows, **options), tokenizer))
    held_out = corpus.held_out(
        study.documents_per_domain, study.tokens_per_document, tokenizer, **options
    )
    return Setup(stream, held_out, device, study.settings(stride))


def plan(job: Job, study: Study) -> train.Plan:
    """The training of one run: warm-up for a tenth of the steps, then a cosine."""
    steps = study.finetune_steps
    return train.Plan(
        steps=steps,
        batch_sequences=study.finetune_sequences,
        sequence_tokens=study.sequence_tokens,
        loss=job.loss,
        learning_rate=study.finetune_learning_rate,
        warmup_steps=max(1, steps // 10),
        coefficient=job.coefficient,
        seed=study.seed + job.seed,
        log_every=max(1, steps // CURVE),
        evaluate_every=steps,
    )


def run(job: Job, study: Study, setup: Setup, folder: Path) -> dict:
    """Train and evaluate one run; `folder` holds its checkpoints while it is under way."""
    model, began = opened(study.model, setup.device)[0], time.monotonic()
    result: dict = {"job": asdict(job), "settings": setup.settings, "curve": [], "diverged": ""}
    if job.loss != "start":
        try:
            torch.manual_seed(study.seed + job.seed)
            history = train.run(
                model,
                setup.stream,
                plan(job, study),
                precision=setup.precision,
                title=job.name,
                folder=folder if study.checkpoint_every else None,
                checkpoint_every=study.checkpoint_every,
            )
        except FloatingPointError as error:
            tqdm.write(f"finetune: {job.name}: {error}")
            return result | {"diverged": str(error)}
        rows = history.drop(columns="held_out").to_json(orient="records", double_precision=4)
        result["curve"] = json.loads(rows)
    trained = time.monotonic()
    facts = pretrain.facts(setup.device, {}, trained - began) | {"precision": setup.precision}
    return result | {
        "held_out": worth(model, study, setup),
        "provenance": facts | {"evaluation_s": round(time.monotonic() - trained, 1)},
    }


def worth(model: torch.nn.Module, study: Study, setup: Setup) -> dict:
    """What a model is worth on held-out text: nats per document and domain, and per layer how its
    router spreads them.

    max_violation_p95: the 95th percentile over batches of `batch_tokens` tokens, per layer.
    """
    size = 65_536 if setup.device.type == "cuda" else 8_192
    options = dict(serving_tokens=study.batch_tokens, seed=study.seed, batch_tokens=size)
    with objective.biased(model):
        table, routes = evaluate.routed(model, setup.documents, **options)
    violation = np.quantile(stats.max_violation(routes["serving"]), 0.95, axis=0)
    layers = {
        "max_violation_p95": violation,
        "gini": stats.gini(routes["counts"].sum(0)),
        "router_entropy": routes["router_entropy"],
        "specialisation": evaluate.specialisation(routes["counts"], table.domain),
    }
    names = "\n".join(table.name + " " + table.tokens.astype(str))
    domains = table.groupby("domain")[["nats", "tokens"]].sum()
    return {
        "nats_per_token": table.nats.sum() / float(table.tokens.sum()),
        "domains": {name: row.nats / row.tokens for name, row in domains.iterrows()},
        "layers": {name: np.round(values, 5).tolist() for name, values in layers.items()},
        "load": routes["counts"].sum(0).tolist(),
        "documents": {
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
            "count": len(table),
            "clusters": int(table.cluster.nunique()),
            "tokens": int(table.tokens.sum()),
            "nats": table.nats.round(1).tolist(),
        },
        "training_tokens": len(setup.stream),
    }
