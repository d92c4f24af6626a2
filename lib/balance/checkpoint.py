"""Checkpoints of a training run that is under way: one safetensors file holds all that is needed to
go on.

Tensors: model parameters and buffers (a selection bias among them), the optimizer's state, the
state of every random generator, and what the loop adds.  Facts (JSON in the file's header): step,
which is also the sampler's position and the scheduler's, history, and what the run is.  A file
appears under its final name only when it is whole and on disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

KEEP = 2  # files that stay: the newest, and the one before in case it is damaged


def fingerprint(model: torch.nn.Module, stream: np.ndarray) -> str:
    """SHA-256 of a model's parameters and of a text: what a run starts from."""
    digest = hashlib.sha256(np.ascontiguousarray(stream).tobytes())
    for name, part in sorted(model.named_parameters()):
        digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
        digest.update(part.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def gather(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a model, its optimizer and this process's random generators, by name."""
    tensors = {f"parameter.{name}": part.detach() for name, part in model.named_parameters()}
    tensors |= {f"buffer.{name}": part for name, part in model.named_buffers()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()
        }
    tensors["random.cpu"] = torch.get_rng_state()
    if next(model.parameters()).is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state(next(model.parameters()).device)
    return tensors


@torch.no_grad()
def restore(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put back what `gather` took, in place and bit by bit."""
    for kind, parts in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, part in parts:
            part.copy_(tensors[f"{kind}.{name}"])
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], next(model.parameters()).device)


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict) -> Path:
    """Write step-<step>.safetensors: under a temporary name, forced to disk, then renamed; older
    files but one go.

    Refused in one line: no space left.  Earlier checkpoints are then untouched.
    """
    path = folder / f"step-{step:08d}.safetensors"
    temporary = path.with_suffix(".part")
    content = serialise(
        {name: part.detach().cpu().contiguous() for name, part in tensors.items()},
        metadata={"facts": json.dumps(facts | {"step": step})},
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{path.name}: no space left for {len(content) / 1e6:.1f} MB"
        raise OSError(
            error.errno, f"checkpoint.save: {message}: earlier checkpoints stay"
        ) from None
    _sync(folder)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def _sync(folder: Path) -> None:
    """Force the folder's entries to disk, so that the new name outlives a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def latest(folder: Path, most: int | None = None) -> tuple[dict[str, Tensor], dict] | None:
    """(tensors, facts) of the newest whole checkpoint, of at most step `most`, or None; what is not
    whole is skipped with a line.
    """
    for part in folder.glob("step-*.part"):
        _skip(part, "the run ended while it was written")
        part.unlink(missing_ok=True)
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                if most is not None and facts["step"] > most:
                    continue
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, facts
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            _skip(path, str(error).splitlines()[0][:120])
    return None


def _skip(path: Path, reason: str) -> None:
    print(f"checkpoint: {path.name}: skipped, as it is not whole: {reason}", file=sys.stderr)


def same(folder: Path, facts: dict, expected: dict) -> None:
    """Refuse a checkpoint of another run, in one line that says what differs."""
    for name, value in expected.items():
        if facts.get(name) != value:
            found = _short(facts.get(name))
            raise ValueError(
                f"checkpoint: {folder}: is of another run: its {name} is {found}, "
                f"must be {_short(value)}: take another folder, or remove this one"
            )


def _short(value: object) -> str:
    return str(value)[:12] + "…" if len(str(value)) == 64 else repr(value)
