"""Where a result comes from: commit, versions, hardware, files, time and memory."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import lzma
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MACHINE = {
    "run_dir",
    "device",
    "corpus_source",
    "time_budget_s",
}  # parameters that say where and how long, not what, is computed
PLACES = {
    "model",
    "remote_code",
    "text",
    "trace",
    "counts",
    "measured",
    "fabric",
    "corpus_source",
}  # parameters that may name a file or folder of the user's
WORDS = {"", "auto", "embedded", "held-out", "published"}  # what they may hold that names none
PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "numba",
    "matplotlib",
    "seaborn",
    "papermill",
)


def repository() -> Path:
    """The root of the repository, wherever Python was started."""
    return Path(__file__).parents[1]


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and is removed
    when it does not.
    """
    temporary = path.with_name(f".part-{path.name}")  # the suffix stays: writers go by it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def text(path: Path) -> str:
    """The text of a file, packed by xz or not."""
    content = path.read_bytes()
    return (lzma.decompress(content) if path.suffix == ".xz" else content).decode()


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint " (did you mean X?)" for a misspelt name, or nothing if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content(path: Path) -> str:
    """SHA-256 of what a file holds, or a folder: of the names below it and the SHA-256 of its
    files, hidden ones left out.  Neither depends on where it lies or what it is called.
    """
    if path.is_file():
        return _unchanged(path)
    inside = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    shown = [file for file in inside if not any(part.startswith(".") for part in file.parts)]
    told = "\n".join(f"{_unchanged(path / file)} {file.as_posix()}" for file in shown)
    return hashlib.sha256(told.encode()).hexdigest()


def _unchanged(path: Path) -> str:
    """`sha256`, computed once in a process for as long as a file stays as it is."""
    about = path.stat()
    return _known(path.resolve(), about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@cache
def _known(path: Path, *_state: int) -> str:
    return sha256(path)


def located(name: str, value: object) -> object:
    """A parameter as a run is given it: of `PLACES` the absolute path where it names a file or
    folder that there is, seen from the current folder, as a run is computed in another one.
    """
    if isinstance(value, list):
        return [located(name, item) for item in value]
    if name not in PLACES or not isinstance(value, str) or value in WORDS:
        return value
    path = Path(value).expanduser()
    return os.path.abspath(path) if path.exists() else value


def contents(parameters: Mapping[str, object]) -> dict[str, str]:
    """`content` of what each of `PLACES` names among parameters, where it is there, but of those
    that say where, not what, is computed.
    """
    given = {name: parameters[name] for name in sorted(PLACES - MACHINE) if name in parameters}
    places = {name: located(name, value) for name, value in given.items()}
    return {
        name: content(Path(value))
        for name, value in places.items()
        if isinstance(value, str) and os.path.isabs(value) and os.path.exists(value)
    }


def commit() -> str:
    """The commit at this moment, with "+changes" where the tree differs from it; MOE_COMMIT goes
    before what git says, for a copy of the tree without its history.
    """
    if told := os.environ.get("MOE_COMMIT"):
        return told
    git = ["git", "-C", str(repository())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes.strip() else "")


def hardware() -> str:
    """Processor and cores, and the GPU if torch is loaded and sees one."""
    import sys

    torch = sys.modules.get("torch")
    name = f"{_processor()}, {os.cpu_count()} cores"
    return (
        f"{name}, {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else name
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_gpu() -> dict[str, int]:
    """{"peak_gpu_bytes": the most that this process has held on one GPU}; empty without one in use.

    Torch is looked at only where it is loaded.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
    return {"peak_gpu_bytes": max(peaks)}


def environment(**more: str) -> dict[str, str]:
    """The environment for a child process, with `more` in it; with a home below _build where the
    user's cannot be written, as in many containers, since the tools keep what they know there.
    """
    home = repository() / "_build" / "home"
    if not os.access(Path.home(), os.W_OK):
        home.mkdir(parents=True, exist_ok=True)
        more = {"HOME": str(home), **more}
    return {**os.environ, **more}


def portable(value: object) -> object:
    """A parameter as it is published: of an absolute path only the name, which is all that means
    something elsewhere.
    """
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def run() -> dict[str, str]:
    """The run that this process computes for, and the file its parameters came from; empty texts
    outside the workflow.
    """
    return {
        "name": os.environ.get("PAPER_RUN_NAME", ""),
        "parameters_file": os.environ.get("PAPER_PARAMETERS_FILE", ""),
    }
