"""Chapters as jobs of a cluster's scheduler, which a Snakemake workflow profile names.

What a chapter asks of a machine stands here, for every profile; a profile's `set-resources` and
`set-threads` go before it.  Progress travels through the run's folder, which all machines share.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from lib import provenance
from lib.paper import chapters, settings

PROFILES = chapters.ROOT / "notebooks" / "profiles"
THREADS = 2  # cores of a job, as many as chapters' budgets are told on
MEMORY_MB = 8000  # of a job: twice the most that a chapter of the published run has held
TIMES, LEAST_MIN = (
    20,
    60,
)  # a job's time: so many times the budget at the defaults, at least so much
LOOK_S = 1.0  # between two looks at the progress
PATIENCE_S = 120.0  # in which Snakemake must have cancelled its jobs


def profile(name: str) -> Path:
    """The folder of a profile, by its path or its name below notebooks/profiles; refused: one
    without Snakemake's config.yaml, one that says what is no option of it, and one whose executor
    is not installed.
    """
    places = (Path(name), PROFILES / name)
    found = next((place for place in places if (place / "config.yaml").is_file()), None)
    if found is None or not name:
        hint = provenance.nearest(name, [path.name for path in PROFILES.glob("*/")])
        raise ValueError(
            f"run: --profile {name or repr(name)}: must be a folder with a config.yaml, "
            f"or one of notebooks/profiles{hint}"
        )
    where = f"run: --profile {name}: config.yaml"
    try:
        content = yaml.safe_load((found / "config.yaml").read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{where}: must be YAML: {line}{reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must be options of Snakemake with their values")
    executor = str(content.get("executor", "local"))
    if not re.fullmatch(r"[a-z][a-z0-9-]*", executor):
        raise ValueError(f"{where}: executor: {executor!r}: must be the name of a plugin")
    package = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in ("local", "dryrun", "touch") and not importlib.util.find_spec(package):
        pinned = found / "requirements.txt"
        what = f"-r {pinned}" if pinned.is_file() else package.replace("_", "-")
        raise ValueError(
            f"run: --profile {name}: its executor, {executor}, must be installed: "
            f"{sys.executable} -m pip install {what}"
        )
    known = _options()
    for key in content:
        if key not in known:
            hint = provenance.nearest(str(key), sorted(known))
            raise ValueError(f"{where}: {key}: must be an option of Snakemake{hint}")
    return found.resolve()


def _options() -> set[str]:
    """What a profile may say: Snakemake's options and those of its installed plugins."""
    from snakemake.cli import get_argument_parser

    actions = get_argument_parser()._actions
    return {option.lstrip("-") for action in actions for option in action.option_strings}


def gpus(chapter: str, given: dict) -> int:
    """GPUs of a chapter's job: one where the chapter's metadata say so, unless the device given is
    the CPU.
    """
    return int(chapters.on_gpu(chapter) and settings.own(chapter, given).get("device") != "cpu")


def minutes(chapter: str, given: dict) -> int:
    """Minutes after which a scheduler may end a chapter's job: `TIMES` its budget, at least
    `LEAST_MIN`, and a time budget that was given on top.
    """
    more = settings.own(chapter, given).get("time_budget_s", 0)
    more = more if isinstance(more, int | float) and math.isfinite(more) else 0
    return max(LEAST_MIN, math.ceil((TIMES * chapters.budget_s(chapter) + more) / 60))


def progress(folder: Path, chapter: str) -> Path:
    """The file in which a chapter's job tells its progress."""
    return folder / "logs" / f"{chapter}.progress"


def run(folder: Path, command: Sequence[str], held: int | None, environment: dict) -> int:
    """Run Snakemake to its end while showing what its jobs tell; its exit code.

    What stops this process reaches it once, as an interrupt: it then cancels its jobs.
    """
    (folder / "logs").mkdir(exist_ok=True)
    for old in (folder / "logs").glob("*.progress"):
        old.unlink()
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:  # the command line has its own
        signal.signal(signal.SIGTERM, _interrupted)
    process = subprocess.Popen(
        command,
        env=environment,
        pass_fds=() if held is None else (held,),
        start_new_session=True,
    )
    try:
        with _shown(folder):
            return process.wait()
    except BaseException:  # Ctrl-C, or what the command line makes of a signal
        print("run: cancelling its jobs", file=sys.stderr, flush=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal would: jobs of this machine end too
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _shown(folder: Path) -> Iterator[None]:
    """Inside it the progress of all jobs goes to the standard error, a chapter's number first."""
    over, seen = threading.Event(), dict[Path, int]()

    def follow() -> None:
        while not over.wait(LOOK_S):
            _tell(folder, seen)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _tell(folder, seen)


def _tell(folder: Path, seen: dict[Path, int]) -> None:
    """Print what is new: whole lines, and of a bar that is drawn over only its last state."""
    for path in sorted((folder / "logs").glob("*.progress")):
        with path.open("rb") as file:
            file.seek(seen.get(path, 0))
            new = file.read()
        end = max(new.rfind(b"\n"), new.rfind(b"\r")) + 1
        seen[path] = seen.get(path, 0) + end
        lines = re.split(r"\r?\n", new[:end].decode(errors="replace"))
        for line in (line.rstrip("\r").rpartition("\r")[2].strip() for line in lines):
            if line:
                print(f"{path.stem[:2]}: {line}", file=sys.stderr, flush=True)


def ends_with_leader() -> None:
    """Interrupt this process, Snakemake's own, and its children when the command that started it
    is gone, so that its jobs do not outlive it; jobs, which may run on other machines, do not know
    that command.
    """
    leader = os.environ.pop("PAPER_LEADER", "")
    if leader:
        when_gone(int(leader), lambda: os.killpg(os.getpgrp(), signal.SIGINT))


def when_gone(leader: int, act: Callable[[], None]) -> None:
    """Act once when the process `leader` is gone."""
    import psutil

    def watch() -> None:
        while psutil.pid_exists(leader) and psutil.Process(leader).status() != "zombie":
            time.sleep(0.5)
        act()

    threading.Thread(target=watch, daemon=True).start()
