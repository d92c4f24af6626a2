"""One fine-tuning run against imbalance.

Every run starts from the same checkpoint and, for one seed, sees the same text in the same order.
Its result is plain data: what it was, its curve, and what it is worth on held-out text.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from lib.balance import losses, pretrain, repaired, setup, train, trainable, worth
from lib.balance.setup import Setup
from lib.balance.study import Job, Study

CURVE = 24  # rows of a run's curve


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
        bias_decays=losses.LOSSES[job.loss].bias_decays,
    )


def run(job: Job, study: Study, text: Setup, folder: Path, keep: Path | None = None) -> dict:
    """Train and evaluate one run; `folder` holds its checkpoints while it is under way, `keep`
    receives the trained model (None: it is let go).
    """
    (model, tokenizer), began = setup.opened(study, text.device), time.monotonic()
    precision = text.precision(model)
    result: dict = {"job": asdict(job), "settings": text.settings, "curve": [], "diverged": ""}
    if job.loss != "start":
        try:
            torch.manual_seed(study.seed + job.seed)
            with trainable.only(model, study.trained):
                history = train.run(
                    model,
                    text.stream,
                    plan(job, study),
                    precision=precision,
                    title=job.name,
                    folder=folder if study.checkpoint_every else None,
                    checkpoint_every=study.checkpoint_every,
                    replay=study.trained == "all",
                )
        except FloatingPointError as error:
            tqdm.write(f"finetune: {job.name}: {error}")
            return result | {"diverged": str(error)}
        rows = history.drop(columns="held_out").to_json(orient="records", double_precision=4)
        result["curve"] = json.loads(rows)
    if keep is not None:
        repaired.save(model, tokenizer, keep, _about(model, study))
    trained = time.monotonic()
    facts = pretrain.facts(text.device, {}, trained - began) | {"precision": precision}
    held_out = worth.of(model, text.documents, serving_tokens=study.batch_tokens, seed=study.seed)
    return result | {
        "held_out": held_out | {"training_tokens": len(text.stream)},
        "provenance": facts | {"evaluation_s": round(time.monotonic() - trained, 1)},
    }


def _about(model: torch.nn.Module, study: Study) -> dict[str, str]:
    """What `repaired.save` has to know of a model's origin."""
    kind = str(next(model.parameters()).dtype).removeprefix("torch.")
    return dict(model=study.model, revision=study.revision, dtype=kind, trained=study.trained)
