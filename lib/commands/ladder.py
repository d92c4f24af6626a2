"""Work on the ladder: ``python -m lib.commands.ladder FOLDER [--queue pairs …] [--runs FILE …]``.

Several processes on every GPU take job after job; each trains one model, evaluates it and leaves
one file below FOLDER.  What FOLDER or an earlier result file holds is not computed again, a job
that was broken off goes on, and none is begun that would hardly end in time.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from lib import provenance
from lib.commands import ladder_profile, ladder_queue, ladder_run
from lib.commands.ladder_measure import Text
from lib.commands.ladder_queue import Job
from lib.commands.ladder_run import say
from lib.model import corpus, load, rows

SHOWN = ["name", "seed", "nats", "gini", "max_violation", "phi", "shared", "specific", "kept_other"]


def prepared(folder: Path, p: SimpleNamespace, source: str) -> Path:
    """A file with the encoded text, made once for all processes and calls."""
    path = ladder_queue.place(folder, p) / "text.pkl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = load.tokenizer()
        listed = corpus.manifest().query("split == 'train'").iloc[:: p.STRIDE]
        documents = corpus.encode(corpus.read(listed, source=source), tokenizer)
        domains = {
            domain: corpus.stream(doc for doc in documents if doc.domain == domain)
            for domain in sorted({doc.domain for doc in documents})
        }
        held_out = corpus.held_out(p.DOCUMENTS_PER_DOMAIN, None, tokenizer, source=source)
        with provenance.writing(path) as part:
            part.write_bytes(pickle.dumps(Text(corpus.stream(documents), domains, held_out)))
    return path


def missing(jobs: Sequence[Job], folder: Path, p: SimpleNamespace, runs: Sequence[Path]) -> list:
    """The jobs of which there is no whole result."""
    done = ladder_queue.read([*runs, ladder_queue.place(folder, p)], p)
    whole = {name: found["job"] for name, found in done.items() if not found.get("failed")}
    return [job for job in jobs if whole.get(job.file) != ladder_queue.described(job)]


def work(
    folder: Path,
    p: SimpleNamespace,
    jobs: Sequence[Job],
    text: Path,
    claims: Path,
    deadline: float,
    device: torch.device,
) -> None:
    """Do jobs that no other process has claimed, until the next would hardly end before `deadline`
    (one is always begun).
    """
    own, slowest = pickle.loads(text.read_bytes()), 0.0
    target = ladder_queue.place(folder, p)
    for job in jobs:
        if slowest and time.monotonic() + slowest > deadline:
            break
        try:
            (claims / job.file).mkdir()
        except FileExistsError:
            continue
        began, under_way = time.monotonic(), target / f".{job.file}"
        say(f"{job.file}: begun")
        try:
            found = ladder_run.result(job, p, own, under_way, device, deadline)
        except ladder_run.Unfinished as reason:
            say(f"{reason}: the same command goes on")
            continue
        with provenance.writing(target / f"{job.file}.json") as part:
            part.write_text(json.dumps(found, separators=(",", ":")) + "\n")
        shutil.rmtree(under_way, ignore_errors=True)
        slowest = max(slowest, time.monotonic() - began)
        say(f"{job.file}: done in {time.monotonic() - began:.0f} s")


def spread(arguments: Sequence[str], workers: int, claims: str, deadline: float) -> int:
    """Start `workers` processes on each visible GPU and wait for them; how many failed."""
    gpus = torch.cuda.device_count()
    processes: list[subprocess.Popen] = []
    for number in range(workers * max(gpus, 1)):
        more = {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {}
        command = [sys.executable, "-m", "lib.commands.ladder", *arguments]
        command += ["--claims", claims, "--deadline", str(deadline)]
        environment = provenance.environment(OMP_NUM_THREADS="1", **more)
        processes.append(subprocess.Popen(command, env=environment))
    return sum(process.wait() != 0 for process in processes)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m lib.commands.ladder", description=__doc__)
    line.add_argument("folder", type=Path)
    line.add_argument("--queue", nargs="+", default=["pairs"])
    line.add_argument("--runs", nargs="*", type=Path, default=[])
    line.add_argument("--corpus", default="auto")
    line.add_argument("--device", default="auto")
    line.add_argument("--workers", type=int, default=1, help="processes on each GPU")
    line.add_argument("--budget-s", type=float, default=530.0)
    line.add_argument("--numbers", default="{}", help="JSON: changed numbers, for a toy run")
    line.add_argument("--only", nargs="*", default=[], help="names of jobs, e.g. none_1")
    line.add_argument("--pack", type=Path, help="folder that receives QUEUE.packed, all results")
    line.add_argument("--claims", type=Path, help=argparse.SUPPRESS)
    line.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    return line.parse_args(arguments)


def pack(folder: Path, queues: Sequence[str], p: SimpleNamespace, found: dict[str, dict]) -> None:
    """Write what was found of each queue to folder/QUEUE.packed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in queues:
        own = [found[job.file] for job in ladder_queue.queue([name], p) if job.file in found]
        if own:
            with provenance.writing(folder / f"{name}.packed") as part:
                part.write_bytes(rows.pack(own))


def main(arguments: Sequence[str]) -> int:
    """Work, pack, and say what is there; the number of processes that failed."""
    a, began = parsed(arguments), time.monotonic()
    p = ladder_queue.numbers(json.loads(a.numbers))
    jobs = [j for j in ladder_queue.queue(a.queue, p) if not a.only or j.file in a.only]
    left, failed = missing(jobs, a.folder, p, a.runs), 0
    device = load.device(a.device)
    one = max(torch.cuda.device_count(), 1) * a.workers == 1
    if a.claims:  # one of several processes
        text = prepared(a.folder, p, a.corpus)
        work(a.folder, p, left, text, a.claims, a.deadline, device)
        return 0
    if left and a.budget_s:
        say(f"{len(left)} of {len(jobs)} jobs to do")
        text = prepared(a.folder, p, a.corpus)
        say(f"text read in {time.monotonic() - began:.0f} s")
        with tempfile.TemporaryDirectory() as claims:
            if one:
                work(a.folder, p, left, text, Path(claims), began + a.budget_s, device)
            else:
                failed = spread(arguments, a.workers, claims, began + a.budget_s)
    found = ladder_queue.read([*a.runs, ladder_queue.place(a.folder, p)], p)
    if a.pack:
        pack(a.pack, a.queue, p, found)
    table = ladder_profile.models(found)
    if len(table):
        print(table[SHOWN].round(3).to_string(index=False), flush=True)
    lacking = " ".join(job.file for job in missing(jobs, a.folder, p, a.runs))
    done = sum(job.file in found for job in jobs)
    say(f"{done} of {len(jobs)} jobs done; lacking: {lacking or 'none'}")
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        sys.exit(f"ladder: {problem}")
