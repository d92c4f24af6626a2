"""One job of the ladder: train a model, evaluate it in the same call, and hand back one result.

While a job is under way its checkpoints stand in a folder of its own; broken off, or out of time,
it goes on from there.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers

from lib import provenance
from lib.balance import checkpoint, numerics, pretrain, train
from lib.commands import ladder_measure, ladder_mend
from lib.commands.ladder_measure import Text
from lib.commands.ladder_queue import Job, described, settings
from lib.model import load

CURVE = 48  # rows of a training curve
KEPT = 10  # checkpoints of a run, where they are written in a moment
REPAIRED = ("repairs", "cheap")  # starts whose model is trained without a loss, then repaired
LARGE = 50_000_000  # parameters from which on a run leaves a checkpoint only when time is up


MEASURES: dict[str, Callable[[torch.nn.Module, Text, SimpleNamespace], dict]] = {
    "profile": ladder_measure.profile,
    "gain": ladder_measure.gain,
    "prefix": ladder_measure.prefix,
    "decode": ladder_measure.decode,
    "placed": ladder_measure.placed,
}


class Unfinished(Exception):
    """Time is up; what was done stands in the job's folder."""


def result(
    job: Job, p: SimpleNamespace, text: Text, folder: Path, device: torch.device, deadline: float
) -> dict:
    """Everything about one model; raises Unfinished where `deadline` (of time.monotonic) passes
    before its training ends.  A run that diverges is a result that says so; a measure that fails is
    told under "failed", and the others are kept.
    """
    began = time.monotonic()
    found: dict = {"job": described(job), "settings": settings(p), "diverged": "", "failed": {}}
    try:
        model, found["curve"], found["path"] = trained(job, p, text, folder, device, deadline)
    except FloatingPointError as error:
        return found | {"diverged": str(error), "provenance": facts(device, began, began)}
    middle = time.monotonic()
    found["parameters"] = model.num_parameters()
    found["training_tokens"] = len(text.stream)
    if job.start in REPAIRED:
        found["repairs"] = ladder_mend.repaired(
            model, job.start, job.seed, p, text, precision(device)
        )
    for name in job.measures:
        started = time.monotonic()
        try:
            found[name] = MEASURES[name](model, text, p)
        except (ValueError, RuntimeError) as error:  # a GPU without memory left, say
            traceback.print_exc()
            found["failed"][name] = str(error).splitlines()[0]
        say(f"{job.file}: {name} {time.monotonic() - started:.1f} s")
    return found | {"provenance": facts(device, began, middle)}


def say(line: str) -> None:
    """A line of progress."""
    print(f"ladder {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def facts(device: torch.device, began: float, trained_at: float) -> dict:
    """What the run was; the commit may come from the environment."""
    known = pretrain.facts(device, {}, trained_at - began) | {"commit": provenance.commit()}
    known.pop("parameters")
    return known | {
        "evaluation_s": round(time.monotonic() - trained_at, 1),
        "command": typed(sys.argv[2:]),
    }


def typed(arguments: Sequence[str]) -> str:
    """The command as a user types it: without what one process hands another, files of absolute
    paths by their names.
    """
    kept, words = [], iter(arguments)
    for word in words:
        if word in ("--claims", "--deadline"):
            next(words)
        else:
            kept.append(Path(word).name if word.startswith("/") else word)
    return " ".join(["python -m lib.commands.ladder", *kept])


def precision(device: torch.device) -> str:
    """bfloat16 products on a GPU."""
    return "bf16" if device.type == "cuda" else "float32"


def plan(job: Job, p: SimpleNamespace) -> train.Plan:
    """The training of one model, as that of the embedded pair."""
    return train.Plan(
        steps=p.STEPS,
        batch_sequences=p.BATCH_SEQUENCES,
        sequence_tokens=p.SEQUENCE_TOKENS,
        learning_rate=job.learning_rate or p.LEARNING_RATE,
        warmup_steps=min(100, max(1, p.STEPS // 10)),
        loss=job.loss,
        coefficient=job.coefficient,
        seed=job.seed,
        log_every=max(1, p.STEPS // CURVE),
        evaluate_every=p.STEPS,
        bias_decays=True,
    )


def trained(
    job: Job, p: SimpleNamespace, text: Text, folder: Path, device: torch.device, deadline: float
) -> tuple[transformers.PreTrainedModel, list, list]:
    """(model, its curve, its profiles under way), from the job's checkpoint where there is one."""
    if job.start in load.ARMS:
        model = load.embedded(job.start, device=device)[0]
        numerics.use_precision(model, precision(device))
        return model, [], []
    kept = folder.parent / f"start_{job.seed}.pt"
    shape = dict(job.shape) | p.SHAPE
    model = pretrain.untrained(job.seed, device, **shape)
    if job.start in REPAIRED and kept.is_file():
        model.load_state_dict(torch.load(kept, map_location=device))
        numerics.use_precision(model, precision(device))
        return model.eval(), [], []
    curve, path = _train(model, job, p, text, folder, deadline)
    if job.name in ("none", *REPAIRED):
        with provenance.writing(kept) as part:
            torch.save(model.state_dict(), part)
    return model, curve, path


def _train(
    model, job: Job, p: SimpleNamespace, text: Text, folder: Path, deadline: float
) -> tuple[list, list]:
    """Train to the end (curve, path), or to the deadline, which raises Unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = {max(1, round(share * p.STEPS)) for share in p.FRACTIONS} if job.path else set()
    stopped = False

    def pause(step: int) -> bool:
        nonlocal stopped
        if step in marks:
            model.eval()
            seen = {"step": step} | ladder_measure.brief(model, text, p)
            model.train()
            (folder / f"path-{step:08d}.json").write_text(json.dumps(seen))
        stopped = time.monotonic() > deadline and step < p.STEPS
        return stopped

    history = train.run(
        model,
        text.stream,
        plan(job, p),
        precision=precision(next(model.parameters()).device),
        title=job.file,
        folder=folder,
        checkpoint_every=0 if model.num_parameters() > LARGE else max(1, p.STEPS // KEPT),
        pause=pause,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the captured step held
    if stopped:
        done = checkpoint.latest(folder / "0")
        raise Unfinished(f"{job.file}: {done[1]['step'] if done else 0} of {p.STEPS} steps")
    columns = history.drop(columns="held_out").to_json(orient="records", double_precision=4)
    path = [json.loads(file.read_text()) for file in sorted(folder.glob("path-*.json"))]
    return json.loads(columns), path
