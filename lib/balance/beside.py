"""Runs of a queue side by side on the cores of a machine without a GPU.

A step of a small model has little that several threads can share: two runs with a thread each take
less time than two in turns with two threads.  Each worker is a process, ``python -m
lib.balance.beside``: it reads the study from its input, then one run a line, and answers each by a
line.  When its input ends, as it does when whoever started it is gone, so does it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, cast

import torch

from lib import provenance
from lib.balance import finetune, setup
from lib.balance.study import Job, Study
from lib.model import load

Run = tuple[int, Job]  # on the text of a stride
LIBRARIES = (
    "OMP",
    "MKL",
    "OPENBLAS",
)  # a workflow sets the threads of each, and each goes before OMP
PROCESS = 1.5e9  # bytes of a process besides what training needs: the libraries, the evaluation


def abreast(study: Study, runs: int) -> int:
    """How many of `runs` go on at a time: a thread each, as memory allows; 1 where there is a
    GPU.
    """
    if load.device(study.device).type != "cpu" or runs < 2:
        return 1
    need = setup.memory(study)
    each = PROCESS + (need.everything if study.trained == "all" else need.routers)
    return max(1, min(runs, torch.get_num_threads(), int(need.available / each)))


def work(
    folder: Path,
    study: Study,
    jobs: Sequence[Job],
    published: Path | None = None,
    at_once: int | None = None,
) -> str:
    """What `finetune.work` does and returns, with several runs at a time (`at_once`, or as many as
    `abreast` says).  Where a worker fails the rest is done here, one after the other.
    """
    done = finetune.finished(folder, study, jobs, published)
    missing = [(stride, job) for stride in done for job in jobs if job not in done[stride]]
    count = abreast(study, len(missing)) if at_once is None else at_once
    if count < 2 or not study.time_budget_s:
        return finetune.work(folder, study, jobs, published=published)
    share = _Share(missing, study.time_budget_s)
    workers = [
        _started(folder, study, max(1, torch.get_num_threads() // count)) for _ in range(count)
    ]
    try:
        with ThreadPoolExecutor(count) as threads:
            whole = all(threads.map(share.serve, workers))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    if not whole:
        return finetune.work(folder, study, jobs, published=published)
    return f"{len(share.waiting)} of {len(jobs) * len(done)} runs left" if share.waiting else ""


class _Share:
    """The runs that wait, handed out one by one until the time is over."""

    def __init__(self, waiting: Sequence[Run], budget_s: float) -> None:
        self.waiting, self.budget_s = list(waiting), budget_s
        self.began, self.slowest = time.monotonic(), 0.0

    def serve(self, worker: subprocess.Popen[str]) -> bool:
        """Let a worker do one run after the other; False where it ended by itself."""
        told, answered = cast(IO[str], worker.stdin), cast(IO[str], worker.stdout)
        while self.waiting and self.spent + self.slowest <= self.budget_s:
            started, (stride, job) = self.spent, self.waiting.pop(0)
            try:
                told.write(json.dumps([stride, asdict(job)]) + "\n")
                told.flush()
            except BrokenPipeError:
                return False
            if not answered.readline():
                return False
            self.slowest = max(self.slowest, self.spent - started)
        return True

    @property
    def spent(self) -> float:
        """Seconds since the first run began."""
        return time.monotonic() - self.began


def _started(folder: Path, study: Study, threads: int) -> subprocess.Popen[str]:
    """A worker that knows the study."""
    paths = [str(provenance.repository()), os.environ.get("PYTHONPATH", "")]
    own = {f"{library}_NUM_THREADS": str(threads) for library in LIBRARIES}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    pipe = subprocess.PIPE
    worker = subprocess.Popen(
        [sys.executable, "-m", "lib.balance.beside", str(folder)],
        env=os.environ | own,
        stdin=pipe,
        stdout=pipe,
        text=True,
    )
    cast(IO[str], worker.stdin).write(json.dumps(asdict(study)) + "\n")
    return worker


def _lines() -> queue.Queue[str]:
    """The lines of the input as they come; the process ends with them."""
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return found


def main(folder: str) -> None:
    """Do the runs that the input names, and say after each that it is done."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is said goes where errors go
    lines = _lines()
    study, text = Study.of(json.loads(lines.get())), None
    with finetune.deterministic(study.deterministic):
        while True:
            stride, job = json.loads(lines.get())
            if text is None or text.settings["training_stride"] != stride:
                text = setup.prepare(study, stride, load.device(study.device))
            finetune.one(Job(**job), study, text, finetune.place(Path(folder), text.settings))
            print("done", file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
