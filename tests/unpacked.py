"""Packed results read without this library: NumPy and xz, by the description in `lib.model.rows`.

python tests/unpacked.py FILE     prints a JSON object a line
"""

import json
import lzma
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np


def read(path):
    """The JSON objects of a packed file."""
    raw = Path(path).read_bytes()
    size = int.from_bytes(raw[4:12], "little")
    text, rest = lzma.decompress(raw[12 : 12 + size]).decode(), raw[12 + size :]
    about, *lines = map(json.loads, text.split("\n"))
    ends = np.cumsum([0] + [column["size"] for column in about])
    packed = [rest[a:b] for a, b in pairwise(ends)]
    shapes = [[] for _ in about]
    for line in lines:
        marks(line, lambda mark: shapes[mark[0]].append(mark[1:]))
    columns = [tables(*args) for args in zip(packed, about, shapes, strict=True)]
    return [filled(line, columns) for line in lines]


def marks(value, found):
    """Call `found` with every mark of a column, in the order of the text."""
    if isinstance(value, dict) and "#" in value:
        found(value["#"])
    elif isinstance(value, dict):
        for one in value.values():
            marks(one, found)
    elif isinstance(value, list):
        for one in value:
            marks(one, found)


def tables(packed, about, shapes):
    """The tables of one column, one after the other."""
    fast, total, before, _ = about["order"]
    raw = np.frombuffer(lzma.decompress(packed), np.uint8)
    planes = raw[0] % 128
    numbers = sum(
        plane.astype(np.int64) << (8 * i) for i, plane in enumerate(raw[1:].reshape(planes, -1))
    )
    if raw[0] >= 128:
        numbers = np.where(numbers % 2, -(numbers + 1) // 2, numbers // 2)
    last = None
    for shape in shapes:
        count = int(np.prod(shape))
        own, numbers = numbers[:count], numbers[count:]
        if fast:
            own = np.moveaxis(own.reshape(*shape[1:], shape[0]), -1, 0)
        own = own.reshape(shape).copy()
        if total:
            own[..., -1] -= own[..., :-1].sum(-1)
        if before and last is not None and last.shape == own.shape:
            own = own + last
        last = own
        yield (own if about["digits"] < 0 else own / 10 ** about["digits"]).tolist()


def filled(value, columns):
    """An object with its tables in their places."""
    if isinstance(value, list):
        return [filled(one, columns) for one in value]
    if not isinstance(value, dict):
        return value
    if "#" in value:
        return next(columns[value["#"][0]])
    if "##" in value:
        fields = filled(value["##"], columns)
        return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
    return {name: filled(one, columns) for name, one in value.items()}


if __name__ == "__main__":
    for row in read(sys.argv[1]):
        print(json.dumps(row))
