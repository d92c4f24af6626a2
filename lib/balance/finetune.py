"""Fine-tuning runs against imbalance: a loss, a coefficient and a seed each, in a queue that can be
resumed.

Every run starts from the same checkpoint and, for one seed, sees the same text in the same order.
A run leaves one JSON file: what it was, its curve, and what it is worth on held-out text, per
document.  The files are the queue's memory: what is there is not computed again.  ``python -m
lib.balance.finetune FOLDER PARAMETERS [WORKER WORKERS [PUBLISHED]]`` works on a part of a queue,
and under torchrun spreads each run over all processes.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import distributed as dist
from tqdm import tqdm

from lib import provenance, stats
from lib.balance import evaluate, losses, objective, pretrain, train
from lib.model import corpus, load

# what a result depends on, besides loss, coefficient and seed
SETTINGS = (
    "model",
    "finetune_steps",
    "finetune_sequences",
    "sequence_tokens",
    "finetune_learning_rate",
    "training_stride",
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


def queue(coefficients: dict[str, list[float]], seeds: int) -> list[Job]:
    """All runs, seeds outermost: whatever part is finished holds every loss and coefficient
    (nearly) equally often.
    """
    for loss, values in coefficients.items():
        for value in values:
            losses.check(loss, value)
    arms = [(loss, float(value)) for loss, values in coefficients.items() for value in values]
    return [Job("start", 0.0, 0)] + [Job(*arm, seed) for seed in range(seeds) for arm in arms]


def settings(p: SimpleNamespace) -> dict:
    """What results must have in common to stand beside each other."""
    known = {name: getattr(p, name) for name in SETTINGS}
    file = load.HOME / "without" / "model.safetensors"
    return known | ({"model_sha256": provenance.sha256(file)} if p.model == "embedded" else {})


def place(folder: Path, p: SimpleNamespace) -> Path:
    """Where the results of these settings stand."""
    return (
        folder
        / "runs"
        / hashlib.sha256(json.dumps(settings(p), sort_keys=True).encode()).hexdigest()[:12]
    )


def texts(p: SimpleNamespace) -> list[SimpleNamespace]:
    """`p` for each part of the training text that the queue is run on, with its `training_stride`."""
    return [
        SimpleNamespace(**vars(p) | {"training_stride": stride}) for stride in p.training_strides
    ]


def read(
    folder: Path, p: SimpleNamespace, jobs: Iterable[Job], published: Path | None = None
) -> dict[Job, dict]:
    """The finished ones of `jobs` with these settings, from `folder` or else from one packed file."""
    packed = (
        lzma.decompress(published.read_bytes()).decode().splitlines()
        if published and published.is_file()
        else []
    )
    texts = [*packed, *(path.read_text() for path in sorted(place(folder, p).glob("*.json")))]
    known = (json.loads(text) for text in texts)
    found = {Job(**result["job"]): result for result in known if result["settings"] == settings(p)}
    return {job: found[job] for job in jobs if job in found}


def pack(results: Iterable[dict]) -> bytes:
    """Results as one file, a line each; equal results give equal bytes."""
    return lzma.compress(
        "".join(json.dumps(result, sort_keys=True) + "\n" for result in results).encode(), preset=9
    )


@dataclass(frozen=True)
class Setup:
    """What all runs share: the tokens trained on, the documents held out, where they run."""

    stream: np.ndarray
    documents: list[corpus.Document]
    device: torch.device

    @property
    def precision(self) -> str:
        """bfloat16 products on a GPU."""
        return "bf16" if self.device.type == "cuda" else "float32"


def opened(p: SimpleNamespace, device: torch.device):
    """(model, tokenizer) that fine-tuning starts from, in float32."""
    return load.open(
        "without" if p.model == "embedded" else p.model, device=device, dtype="float32"
    )


def prepare(p: SimpleNamespace, tokenizer, device: torch.device) -> Setup:
    """Read the declared part of the training text, every `training_stride`-th document, and the
    held-out documents.
    """
    options = dict(source=p.corpus_source, allow_partial=p.allow_partial)
    rows = corpus.manifest().query("split == 'train'").iloc[:: p.training_stride]
    stream = corpus.stream(corpus.encode(corpus.read(rows, **options), tokenizer))
    held_out = corpus.held_out(p.documents_per_domain, p.tokens_per_document, tokenizer, **options)
    return Setup(stream, held_out, device)


def work(
    folder: Path,
    p: SimpleNamespace,
    jobs: Sequence[Job],
    worker: int = 0,
    workers: int = 1,
    published: Path | None = None,
) -> None:
    """Do what is missing of a queue's share (every `workers`-th run) on each of `texts`, until
    `time_budget_s` would be exceeded (one run is always done, but none where it is 0).  What is
    `published` is not missing.

    A run that was broken off goes on from its checkpoint, where `checkpoint_every` leaves any.  One
    that diverges ends with one line, which is its result.
    """
    device, mine = (
        load.device(p.device),
        [job for number, job in enumerate(jobs) if number % workers == worker],
    )
    done = [read(folder, part, mine, published) for part in texts(p)]
    missing = [
        (part, job)
        for part, known in zip(texts(p), done, strict=True)
        for job in mine
        if job not in known
    ]
    if p.deterministic:
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # without it torch refuses products
    torch.use_deterministic_algorithms(p.deterministic)
    began, slowest, setup = time.monotonic(), 0.0, None
    for number, (part, job) in enumerate(missing if p.time_budget_s else []):
        spent = time.monotonic() - began
        if number and spent + slowest > p.time_budget_s:
            tqdm.write(
                f"finetune: {len(missing) - number} of {len(mine) * len(done)} runs left after {spent:.0f} s: the same command goes on"
            )
            break
        if setup is None or part is not missing[number - 1][0]:
            setup = prepare(part, opened(part, torch.device("cpu"))[1], device)
        target = place(folder, part)
        target.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        result = run(job, part, setup, target / f".{job.name}")
        slowest = max(slowest, time.monotonic() - started)
        if objective.place()[0] == 0:
            temporary = target / f".part-{job.name}.json"
            temporary.write_text(json.dumps(result) + "\n")
            os.replace(temporary, target / f"{job.name}.json")
            shutil.rmtree(target / f".{job.name}", ignore_errors=True)


def plan(job: Job, p: SimpleNamespace) -> train.Plan:
    """The training of one run: warm-up for a tenth of the steps, then a cosine."""
    steps = p.finetune_steps
    return train.Plan(
        steps=steps,
        batch_sequences=p.finetune_sequences,
        sequence_tokens=p.sequence_tokens,
        loss=job.loss,
        learning_rate=p.finetune_learning_rate,
        warmup_steps=max(1, steps // 10),
        coefficient=job.coefficient,
        seed=p.seed + job.seed,
        log_every=max(1, steps // CURVE),
        evaluate_every=steps,
    )


def run(job: Job, p: SimpleNamespace, setup: Setup, folder: Path) -> dict:
    """Train and evaluate one run; `folder` holds its checkpoints while it is under way."""
    model, began = opened(p, setup.device)[0], time.monotonic()
    result: dict = {"job": asdict(job), "settings": settings(p), "curve": [], "diverged": ""}
    if job.loss != "start":
        try:
            torch.manual_seed(p.seed + job.seed)
            history = train.run(
                model,
                setup.stream,
                plan(job, p),
                precision=setup.precision,
                title=job.name,
                folder=folder if p.checkpoint_every else None,
                checkpoint_every=p.checkpoint_every,
            )
        except FloatingPointError as error:
            tqdm.write(f"finetune: {job.name}: {error}")
            return result | {"diverged": str(error)}
        result["curve"] = json.loads(
            history.drop(columns="held_out").to_json(orient="records", double_precision=4)
        )
    trained = time.monotonic()
    facts = pretrain.facts(setup.device, {}, trained - began) | {"precision": setup.precision}
    return result | {
        "held_out": worth(model, p, setup),
        "provenance": facts | {"evaluation_s": round(time.monotonic() - trained, 1)},
    }


def worth(model: torch.nn.Module, p: SimpleNamespace, setup: Setup) -> dict:
    """What a model is worth on held-out text: nats per document and domain, and per layer how its
    router spreads them.

    max_violation_p95: the 95th percentile over batches of `batch_tokens` tokens, per layer.
    """
    size = 65_536 if setup.device.type == "cuda" else 8_192
    with objective.biased(model):
        table, routes = evaluate.routed(
            model, setup.documents, serving_tokens=p.batch_tokens, seed=p.seed, batch_tokens=size
        )
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


def main(
    folder: str, given: str, worker: str = "0", workers: str = "1", published: str = ""
) -> None:
    """Work on a queue's share; under torchrun (WORLD_SIZE > 1) every run is spread over the
    processes instead.
    """
    p = SimpleNamespace(**json.loads(given))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        cuda = torch.cuda.is_available() and p.device != "cpu"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        jobs = queue(p.coefficients, p.training_seeds)
        work(
            Path(folder), p, jobs, int(worker), int(workers), Path(published) if published else None
        )
    except (ValueError, OSError) as error:
        sys.exit(f"finetune: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
