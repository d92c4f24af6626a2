"""What stands in a file, told by its first bytes and never by its name: plain lists, dicts and
NumPy arrays.

Files of torch.save are read without torch, so that only tensors and plain Python come out of them:
no other class is ever called.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np

# what reading a file that is not whole, or not what it claims to be, ends in
TOLD = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
TYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}


def load(path: Path) -> object:
    """The content of a file: torch.save's archive, .npy, .npz, JSON, or one JSON value a line.

    Refused in one line: a file that is none of these, or holds objects of other classes.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"PK":
            return _archive(raw)
        if raw[:6] == b"\x93NUMPY":
            return np.load(io.BytesIO(raw), allow_pickle=False)
        return _text(raw.decode())
    except TOLD as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"engines: {path}: cannot be read as a recording: {reason}") from None
    except (MemoryError, RecursionError):
        rule = "claims to hold more than the memory does"
        raise ValueError(f"engines: {path}: cannot be read as a recording: {rule}") from None


def _text(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].lstrip().startswith(("{", "[")):
            raise ValueError("neither torch.save's archive, NumPy, JSON nor JSON lines") from None
        return [json.loads(line) for line in lines]


def _archive(raw: bytes) -> object:
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        pickles = [name for name in file.namelist() if name.endswith("/data.pkl")]
        if not pickles:
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                return dict(arrays)
        return _Plain(file, pickles[0].removesuffix("data.pkl")).load()


class _Plain(pickle.Unpickler):
    """Unpickles tensors as arrays and nothing else that is not plain Python (torch 2.13,
    torch/serialization.py: an entry data.pkl, and data/KEY for every storage).
    """

    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(file.read(f"{folder}data.pkl")))
        self.file, self.folder = file, folder

    def find_class(self, module: str, name: str) -> object:
        if f"{module}.{name}" == "torch._utils._rebuild_tensor_v2":
            return _tensor
        if f"{module}.{name}" == "collections.OrderedDict":
            return OrderedDict
        if f"{module}.{name}" in TYPES:
            return TYPES[f"{module}.{name}"]
        raise ValueError(f"holds a {module}.{name}: must be tensors and plain Python")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, type_, key, _, _ = pid
        return np.frombuffer(self.file.read(f"{self.folder}data/{key}"), dtype=type_)


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    if any(number < 0 for number in (offset, *size, *stride)):
        raise ValueError("a tensor lies outside of its storage")
    most = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if all(size) and most >= len(storage):
        raise ValueError("a tensor lies outside of its storage")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()
