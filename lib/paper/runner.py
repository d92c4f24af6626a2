"""Running chapters: papermill under Snakemake, one process per run."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib import provenance
from lib.paper import chapters, compare, order, reuse, scheduler, stale

# what Snakemake ends every log with, whatever happened
LOOK_ABOVE = ("Exiting because", "Complete log", "Shutting down", "At least one")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")  # of a value, a figure, a claim


def execute(
    folder: Path,
    given: dict,
    only: list[str],
    *,
    jobs: int | None = None,
    origin: str = "",
    held: int | None = None,
    published: bool = False,
    profile: Path | None = None,
) -> bool:
    """Run the chapters that are due, `jobs` at a time (None: `_at_once`) on equal shares of the
    cores, or as jobs of the scheduler that a Snakemake `profile` names; True if all that should be
    there are.

    What another run has already is taken over.  A chapter that fails does not stop those that do
    not need it.  What an interrupted run left half-done is done again.  `origin` names the file of
    the parameters, for the record; `held` is the lock that the work shares; with `published` the
    results that the chapters need are the published ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict = {"name": folder.name, "parameters": given, "parameters_file": origin}
    content |= {"chapters": only, "published": published}
    content |= {"profile": str(profile)} if profile else {}
    with provenance.writing(folder / "run.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    missing = _missing(folder, given, only if published else chapters.with_needs(only))
    if not missing:
        return True
    jobs = jobs or (1 if profile else min(_at_once(), len(missing)))
    threads = scheduler.THREADS if profile else max(1, _cores() // jobs)
    for chapter in missing:
        _log(folder, chapter).unlink(missing_ok=True)
    environment = provenance.environment(
        PAPER_RUN_NAME=folder.name,
        PAPER_PARAMETERS_FILE=origin,
        PAPER_LEADER=str(os.getpid()),
        PAPER_MISSING=" ".join(missing),
        PYTHONUTF8="1",
    )
    where = _profiled(profile, jobs) if profile else _local(jobs * threads)
    command = [*_snakemake(folder), *where, "--forcerun"]
    command += [f"{chapter}.ipynb" for chapter in missing]
    begun = " ".join(order.soonest(missing, jobs))
    command += ["--config", f"threads={threads}", f"order={begun}"]
    if profile:
        code = scheduler.run(folder, command, held, environment)
    else:
        code = _alone(command, environment, held)
    return _ended(folder, missing, code)


def _at_once() -> int:
    """Two chapters use two cores better than one after the other; a GPU they would share."""
    return 1 if Path("/dev/nvidiactl").exists() else min(2, _cores())


def _cores() -> int:
    """The cores of this process, or as many as OMP_NUM_THREADS leaves to it."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return min(cores, int(given)) if given.isdigit() and int(given) else cores


def _ended(folder: Path, missing: list[str], code: int) -> bool:
    """Whether Snakemake made all that was missing; refused is what no chapter explains."""
    for chapter in missing:
        log, began = _log(folder, chapter), scheduler.progress(folder, chapter).is_file()
        if began and not (folder / f"{chapter}.ipynb").is_file() and not _whole(log):
            reason = "its job ended from outside (cancelled, out of time or memory?)"
            stopped(log, chapters.source(chapter), reason)
    mend(folder)
    for chapter in missing:
        if (folder / f"{chapter}.ipynb").is_file():
            _plainly_named(folder, chapter)
            stale.note(folder, chapter)
    failed = any(failure(folder, chapter) for chapter in missing)
    if code and not failed:
        raise RuntimeError(f"run: the workflow itself failed: {_cause(folder, code)}")
    return code == 0 and not failed


def _plainly_named(folder: Path, chapter: str) -> None:
    """A chapter that gave a name which prose, predicates and pages cannot hold as it is has
    failed: a column that a value is called after may come from a user's file.
    """
    record = compare.record(folder, chapter) or {}
    names = (name for part in ("values", "figures", "claims") for name in record.get(part, {}))
    if bad := next((name for name in names if not NAME.fullmatch(name)), None):
        (folder / f"{chapter}.ipynb").unlink()
        (folder / chapter / "values.json").unlink()
        reason = f"the name {bad[:80]!r}: must be of letters, digits, _ . -"
        stopped(_log(folder, chapter), chapters.source(chapter), reason)


def _alone(command: list[str], environment: dict[str, str], held: int | None) -> int:
    """The exit code of a command that runs in a session of its own: what stops this process, Ctrl-C
    at a terminal too, ends all that the command began, and only that.
    """
    import psutil

    held_too = () if held is None else (held,)
    process = subprocess.Popen(command, env=environment, pass_fds=held_too, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(process.pid)
            for child in [own, *own.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.wait()
        raise


def _cause(folder: Path, code: int) -> str:
    """Why the workflow itself failed, in one line: the last error in its log, or its end."""
    logs = sorted((folder / ".snakemake" / "log").glob("*.log"))
    lines = [line.strip() for line in (logs[-1].read_text().splitlines() if logs else [])]
    errors = [line for line in lines if "Error" in line and not line.startswith(LOOK_ABOVE)]
    said = errors or [line for line in lines if line and not line.startswith(LOOK_ABOVE)]
    if not said:
        return f"exit code {code}, no log"
    after = lines[lines.index(said[-1]) + 1 :]
    more = [line for line in after if line and not line.startswith(LOOK_ABOVE)][:2]
    return f"{' '.join([said[-1], *more])[:500]} (exit code {code})"


def _missing(folder: Path, given: dict, wanted: list[str]) -> list[str]:
    """The chapters that must be computed, after what other runs have was taken over."""
    missing: list[str] = []
    for chapter in wanted:
        if set(chapters.before(chapter)) & set(missing):
            missing.append(chapter)
        elif reuse.due(folder, chapter, given):
            if other := reuse.take(folder, chapter, given):
                print(f"== {chapter}: taken over from {other}", file=sys.stderr)
            else:
                missing.append(chapter)
    reuse.in_order(folder, [chapter for chapter in wanted if chapter not in missing])
    return missing


def _snakemake(folder: Path) -> list[str]:
    """Snakemake's command line up to where it works: what follows --forcerun is computed whatever
    it thinks of it, the rest where something that it reads is newer.
    """
    snakefile = str(chapters.ROOT / "notebooks" / "Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile]
    command += ["--directory", str(folder), "--configfile", str(folder / "run.json")]
    command += ["--keep-going", "--nolock", "--rerun-incomplete"]
    return [*command, "--rerun-triggers", "mtime"]


def _local(cores: int) -> list[str]:
    return ["--cores", str(cores), "--quiet", "all"]


def _profiled(profile: Path, jobs: int) -> list[str]:
    """A profile says how many jobs may run at once, unless it is asked for more than one."""
    more = ["--jobs", str(jobs)] if jobs > 1 else []
    return ["--workflow-profile", str(profile), *more, "--quiet", "rules", "progress", "host"]


@contextmanager
def sole(folder: Path) -> Iterator[int]:
    """Hold a run for this process and for those that get the lock, whose descriptor this gives.

    The lock goes with the last of them, so one that was killed leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError:
        raise RuntimeError(f"run: {folder.name}: is being computed by another process") from None
    finally:
        os.close(lock)


def papermill(source: str, target: str, given: str) -> None:
    """Execute one notebook with progress per cell and the progress its cells print; exit code 1 if
    it fails.

    The kernel runs in the current folder, on this interpreter.  Its errors are in the executed
    copy, and so is what stopped it from outside.
    """
    _with_its_leader()
    import logging

    # jsonschema would compile its grammars for 3 seconds, for formats that no notebook has
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill as engine
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").addHandler(logging.StreamHandler())
    missing = os.environ.get("PAPER_MISSING", "").split()
    chapter = Path(source).stem
    place = f" ({missing.index(chapter) + 1} of {len(missing)})" if chapter in missing else ""
    print(f"== {chapter}{place}", file=sys.stderr)
    try:
        engine.execute_notebook(
            source,
            target,
            json.loads(given),
            kernel_name="python3",
            log_output=True,
            progress_bar=True,
            request_save_on_cell_execute=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except PapermillExecutionError as problem:  # a run of several chapters tells it itself
        told = f"{Path(source).stem} failed: {problem.ename}: {problem.evalue}"
        sys.exit(1 if "PAPER_LEADER" in os.environ else told)
    except DeadKernelError:
        stopped(Path(target), Path(source), "its kernel died (memory?)")
        sys.exit(1)


def _with_its_leader() -> None:
    """End this process and its kernel when the command that started it is gone."""
    if "PAPER_LEADER" not in os.environ:
        return
    import psutil

    def end() -> None:
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)

    scheduler.when_gone(int(os.environ["PAPER_LEADER"]), end)


def stopped(log: Path, source: Path, reason: str) -> None:
    """Leave in place of an executed copy the notebook with the reason for which there is none."""
    log.parent.mkdir(exist_ok=True)
    notebook = json.loads(source.read_text())
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    error = {"output_type": "error", "ename": "stopped", "evalue": reason}
    code["outputs"] = [error | {"traceback": [f"stopped: {reason}"]}]
    with provenance.writing(log) as part:
        part.write_text(json.dumps(notebook))


def mend(folder: Path) -> None:
    """What was only half-written, on a full disk say, gives way to one that says so."""
    for log in sorted((folder / "logs").glob("*.ipynb")):
        if not _whole(log):
            stopped(log, chapters.source(log.stem), "its executed copy is cut off (disk full?)")


def _whole(log: Path) -> bool:
    """Whether an executed copy is there and can be read."""
    try:
        return bool(json.loads(log.read_text()))
    except (ValueError, FileNotFoundError):
        return False


def _log(folder: Path, chapter: str) -> Path:
    """Where papermill writes; what ended well is copied from there."""
    return folder / "logs" / f"{chapter}.ipynb"


def failure(folder: Path, chapter: str) -> str | None:
    """Why a chapter failed in a run, in one line per error; None if it did not."""
    log = _log(folder, chapter)
    if (folder / f"{chapter}.ipynb").is_file() or not log.is_file():
        return None
    cells = json.loads(log.read_text())["cells"]
    outputs = [out for cell in cells for out in cell.get("outputs", [])]
    errors = [out for out in outputs if out["output_type"] == "error"]
    if not errors:
        return "stopped before it ended"
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}"


def left(folder: Path, chapter: str) -> str:
    """What a chapter that ended has left to do, with which the same command goes on."""
    record = compare.record(folder, chapter)
    return record.get("left", "") if record else ""


if __name__ == "__main__":  # what the Snakefile calls
    papermill(*sys.argv[1:])
