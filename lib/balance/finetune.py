"""Fine-tuning runs against imbalance in a queue that can be resumed.

A run leaves one JSON file.  The files are the queue's memory: what is there is not computed again.
``python -m lib.balance.finetune FOLDER PARAMETERS [WORKER WORKERS [PUBLISHED]]`` works on a part of
a queue, PARAMETERS being those of the chapter as JSON (``python -m lib.paper.given 03_finetune
--whole`` prints them), and under torchrun spreads each run over all processes, on however many
machines that share FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from tqdm import tqdm

from lib import provenance
from lib.balance import losses, objective, setup, trial
from lib.balance.study import Job, Study
from lib.model import load, rows

Results = dict[Job, dict]
USAGE = "usage: python -m lib.balance.finetune FOLDER PARAMETERS [WORKER WORKERS [PUBLISHED]]"


def queue(coefficients: Mapping[str, Sequence[float]], seeds: int) -> list[Job]:
    """All runs, seeds outermost: whatever part is finished holds every loss and coefficient
    (nearly) equally often.
    """
    for loss, values in coefficients.items():
        for value in values:
            losses.check(loss, value)
    arms = [(loss, float(value)) for loss, values in coefficients.items() for value in values]
    return [Job("start", 0.0, 0)] + [Job(*arm, seed) for seed in range(seeds) for arm in arms]


def place(folder: Path, settings: dict) -> Path:
    """Where the results of these settings stand."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return folder / "runs" / digest[:12]


def read(folder: Path, settings: dict, jobs: Iterable[Job], packed: Iterable[dict] = ()) -> Results:
    """The finished ones of `jobs` with these settings, from `folder` or else from `packed`."""
    own = (json.loads(path.read_text()) for path in sorted(place(folder, settings).glob("*.json")))
    known = [result for result in (*packed, *own) if result["settings"] == settings]
    found = {Job(**result["job"]): result for result in known}
    return {job: found[job] for job in jobs if job in found}


def finished(
    folder: Path, study: Study, jobs: Sequence[Job], published: Path | None = None
) -> dict[int, Results]:
    """What is finished on each text of a study, by its stride, in `folder` or else as published."""
    packed = unpack(published) if published and published.is_file() else []
    return {stride: read(folder, study.settings(stride), jobs, packed) for stride in study.strides}


def borrowed(
    folder: Path, study: Study, results: Mapping[int, Results], published: Path
) -> list[Path]:
    """[published] where some of these results stand there alone, else nothing: what they rest on
    besides `folder`.
    """
    own = {stride: place(folder, study.settings(stride)) for stride in results}
    alone = [
        job
        for stride in results
        for job in results[stride]
        if not _file(own[stride], job).is_file()
    ]
    return [published] if alone else []


def _file(home: Path, job: Job) -> Path:
    return home / f"{job.name}.json"


def pack(results: Iterable[dict]) -> bytes:
    """Results as one file; equal results give equal bytes."""
    return rows.pack(results)


def unpack(file: Path) -> list[dict]:
    """The results that were packed in a file."""
    return rows.read(file)


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Inside it torch computes deterministically if `asked`, else as its caller had it; after it,
    as the caller had it.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if asked:
        # without it torch refuses products
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def work(
    folder: Path,
    study: Study,
    jobs: Sequence[Job],
    worker: int = 0,
    workers: int = 1,
    published: Path | None = None,
) -> str:
    """Do what is missing of a queue's share (every `workers`-th run) on each text, until
    `time_budget_s` would be exceeded (one run is always done, but none where it is 0); returns what
    is left, "3 of 9 runs left", or nothing.  What is `published` is not missing.  Of processes that
    train together the first says what is missing and when time is up.

    A run that was broken off goes on from its checkpoint, where `checkpoint_every` leaves any.  One
    that diverges ends with one line, which is its result.
    """
    device, mine = load.device(study.device), jobs[worker::workers]
    done = finished(folder, study, mine, published)
    missing = _agreed([(stride, job) for stride in done for job in mine if job not in done[stride]])
    began, slowest, text = time.monotonic(), 0.0, None
    with deterministic(study.deterministic):
        for number, (stride, job) in enumerate(missing):
            spent = time.monotonic() - began
            late = number and spent + slowest > study.time_budget_s
            if _agreed(not study.time_budget_s or late):
                left = f"{len(missing) - number} of {len(mine) * len(done)} runs left"
                tqdm.write(f"finetune: {left} after {spent:.0f} s: the same command goes on")
                return left
            if text is None or text.settings["training_stride"] != stride:
                text = setup.prepare(study, stride, device)
            started = time.monotonic()
            one(job, study, text, place(folder, text.settings))
            slowest = max(slowest, time.monotonic() - started)
    return ""


def _agreed(said: Any) -> Any:
    """What the first of all processes that train together says, on each of them."""
    box = [said]
    if objective.place()[1] > 1:
        dist.broadcast_object_list(box)
    return box[0]


def one(job: Job, study: Study, text: setup.Setup, target: Path) -> None:
    """Do one run and leave its file in `target`, whole, and beside it its model if that is kept."""
    target.mkdir(parents=True, exist_ok=True)
    unfinished, first = target / f".{job.name}", objective.place()[0] == 0
    result = trial.run(job, study, text, unfinished, kept(target, study, job) if first else None)
    if first:
        with provenance.writing(_file(target, job)) as temporary:
            temporary.write_text(json.dumps(result) + "\n")
        shutil.rmtree(unfinished, ignore_errors=True)


def kept(target: Path, study: Study, job: Job) -> Path | None:
    """Where a run leaves its model, below the place of its text; None where it is not kept."""
    return target / f"{job.name}_model" if job == study.kept() else None


def taken_home(folder: Path, study: Study) -> str:
    """Where the repaired model of a study stands, below the folder of its run; or why there is
    none.
    """
    job = study.kept()
    if job is None:
        return "none is kept"
    target = kept(place(folder, study.settings(study.strides[0])), study, job)
    if target is None or not target.is_dir():
        return "not there yet: the run that leaves it was not made here"
    return target.relative_to(folder.parent).as_posix()


@contextmanager
def _processes(device: str) -> Iterator[None]:
    """Inside it the processes that torchrun started train together."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        cuda = torch.cuda.is_available() and device != "cpu"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(*arguments: str) -> None:
    """Work on a queue's share; under torchrun (WORLD_SIZE > 1) every run is spread over the
    processes instead.  What it cannot do ends it with one line.
    """
    if not 2 <= len(arguments) <= 5:
        sys.exit(USAGE)
    folder, given, worker, workers, published = (*arguments, *("0", "1", "")[len(arguments) - 2 :])
    try:
        study = setup.decided(Study.of(json.loads(given)))[0]
        jobs = queue(study.coefficients, study.training_seeds)
        with _processes(study.device):
            file = Path(published) if published else None
            work(Path(folder), study, jobs, int(worker), int(workers), file)
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"finetune: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
