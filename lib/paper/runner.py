"""Running chapters: papermill under Snakemake, one process per run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from lib import provenance
from lib.paper import chapters


def execute(folder: Path, given: dict, only: list[str], *, jobs: int = 1, origin: str = "") -> bool:
    """Run the chapters that are not up to date, `jobs` at a time on equal shares of the cores; True
    if all that should be there are.

    A chapter that fails does not stop those that do not need it.  What an interrupted run left
    half-done is done again. `origin` names the file of the parameters, for the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "run.json"
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    threads = max(1, cores // jobs)
    content = {
        "name": folder.name,
        "parameters": given,
        "parameters_file": origin,
        "chapters": only,
        "threads": threads,
    }
    config.write_text(json.dumps(content, indent=1) + "\n")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(chapters.ROOT / "notebooks" / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(config),
        "--cores",
        str(jobs * threads),
        "--keep-going",
        "--nolock",
        "--rerun-incomplete",
        "--quiet",
        "all",
        "--rerun-triggers",
        "mtime",
        "params",
    ]
    environment = provenance.environment(PAPER_RUN_NAME=folder.name, PAPER_PARAMETERS_FILE=origin)
    done = subprocess.run(command, check=False, env=environment).returncode == 0
    if not done and not any(failure(folder, chapter) for chapter in only):
        logs = sorted((folder / ".snakemake" / "log").glob("*.log"))
        raise RuntimeError(
            "run: the workflow itself failed:\n"
            + (logs[-1].read_text()[-2000:] if logs else "no log")
        )
    return done


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold a run for this process.  The lock goes with the process, so one that was killed leaves
    none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(f"run: {folder.name}: is being computed by another process") from None
    try:
        yield
    finally:
        lock.release()


def papermill(source: str, target: str, given: str) -> None:
    """Execute one notebook with progress per cell and the progress its cells print; exit code 1 if
    it fails.

    The kernel runs in the current folder, on this interpreter.  Its errors are in the executed
    copy.
    """
    import logging

    import papermill.exceptions

    logging.getLogger("papermill").addHandler(logging.StreamHandler())
    print(f"== {Path(source).stem}", file=sys.stderr)
    try:
        papermill.execute_notebook(
            source,
            target,
            json.loads(given),
            kernel_name="python3",
            log_output=True,
            progress_bar=True,
            request_save_on_cell_execute=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except papermill.exceptions.PapermillExecutionError:
        sys.exit(1)


def failure(folder: Path, chapter: str) -> str | None:
    """Why a chapter failed in a run, in one line per error; None if it did not."""
    log = folder / "logs" / f"{chapter}.ipynb"
    if (folder / f"{chapter}.ipynb").is_file() or not log.is_file():
        return None
    outputs = [
        out for cell in json.loads(log.read_text())["cells"] for out in cell.get("outputs", [])
    ]
    errors = [out for out in outputs if out["output_type"] == "error"]
    if not errors:
        return f"{chapter}: stopped before it ended"
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}"


if __name__ == "__main__":  # what the Snakefile calls
    papermill(*sys.argv[1:])
