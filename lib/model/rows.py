"""Results as JSON objects, packed: their numbers apart from their text, not a digit lost.

Decimal text costs bytes that no packer gets back.  So every list of whole numbers, or of decimals
of few digits, is taken out of its object (a list of like objects counts as one list per field); the
lists that stand at the same place of all objects are one column, stored as whole numbers, their low
bytes apart from their high ones.  Of several orders (`ORDERS`) the one that packs smallest is kept.
A packed file is `HEAD`, the length of the packed text, the text (xz: the columns, then an object a
line), and a stream of xz for each column.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

HEAD = b"rows"  # what a packed file begins with
XZ = b"\xfd7zXZ"  # what an xz file does
MARK = "#"  # the field of the object that stands for a list: its column, its shape
LIKE = "##"  # the field of the object that stands for a list of like objects: lists by field
LEAST = 4  # numbers that a list must have
DIGITS = 6  # of decimals, at most
# of each list: whether its first axis runs fastest, whether its last number along the last axis
# gives way to their sum, whether it is its difference from the list before it in the column
ORDERS = [(False, False, False), (False, False, True), (True, True, False), (True, True, True)]
CONTEXTS = (4, 0)  # bits of the byte before by which xz tells numbers apart


def pack(rows: Iterable[dict]) -> bytes:
    """`rows` packed; equal rows give equal bytes.  Refused: a field named `MARK` or `LIKE`."""
    columns: dict[tuple, list[np.ndarray]] = {}
    taken = [_take(row, (), columns) for row in rows]
    found = [_smallest(lists) for lists in columns.values()]
    about = [
        {"digits": key[-1], "order": order, "size": len(stream)}
        for key, (order, stream) in zip(columns, found, strict=True)
    ]
    lines = [json.dumps(row, separators=(",", ":"), sort_keys=True) for row in [about, *taken]]
    text = lzma.compress("\n".join(lines).encode(), preset=9)
    return b"".join([HEAD, len(text).to_bytes(8, "little"), text, *(stream for _, stream in found)])


def unpack(packed: bytes, where: str = "rows.unpack") -> list[dict]:
    """What was packed, number by number.  Refused: what is damaged, named by `where`."""
    start = len(HEAD) + 8
    at = start + int.from_bytes(packed[len(HEAD) : start], "little")
    try:
        if packed[: len(HEAD)] != HEAD:
            raise ValueError(packed[: len(HEAD)])
        about, *lines = lzma.decompress(packed[start:at]).decode().split("\n")
        rows, columns = [json.loads(line) for line in lines], json.loads(about)
        shapes: list[list[tuple]] = [[] for _ in columns]
        for row in rows:
            _shapes(row, shapes)
        lists = []
        for column, known in zip(columns, shapes, strict=True):
            stream = packed[at : at + column["size"]]
            lists.append(iter(_lists(stream, column["order"], column["digits"], known)))
            at += column["size"]
        return [_give(row, lists) for row in rows]
    except (lzma.LZMAError, ValueError, LookupError, TypeError, EOFError):
        raise ValueError(f"{where}: must be whole, it is damaged") from None


def read(path: Path) -> list[dict]:
    """The objects of a file: packed by `pack`, or JSON lines, plain or as xz."""
    content = path.read_bytes()
    if content.startswith(HEAD):
        return unpack(content, str(path))
    try:
        text = lzma.decompress(content) if content.startswith(XZ) else content
        return [json.loads(line) for line in text.decode().splitlines()]
    except (lzma.LZMAError, ValueError, EOFError):
        raise ValueError(f"{path}: must be whole, it is damaged") from None


def _take(value, place: tuple, columns: dict):
    """`value` without its lists of numbers, which are added to `columns`."""
    if isinstance(value, dict):
        if MARK in value or LIKE in value:
            raise ValueError(f"rows.pack: a field {MARK} or {LIKE}: must have another name")
        return {name: _take(value[name], (*place, name), columns) for name in sorted(value)}
    if not isinstance(value, list):
        return value
    if fields := _fields(value):
        return {LIKE: _take(fields, place, columns)}
    numbers = _whole(value)
    if numbers is None:
        return [_take(one, place, columns) for one in value]
    known = columns.setdefault((*place, numbers[1]), [])
    known.append(numbers[0])
    return {MARK: [list(columns).index((*place, numbers[1])), *numbers[0].shape]}


def _fields(value: list) -> dict[str, list] | None:
    """A list of objects that have the same fields, none nested, by field; else None."""
    if len(value) < LEAST or not all(isinstance(row, dict) and row for row in value):
        return None
    names = value[0].keys()
    if any(row.keys() != names for row in value):
        return None
    if any(isinstance(one, dict | list) for row in value for one in row.values()):
        return None
    return {name: [row[name] for row in value] for name in names}


def _whole(value: list) -> tuple[np.ndarray, int] | None:
    """(whole numbers, digits) such that numbers / 10^digits is `value`, -1 digits where it is of
    whole numbers itself; None where it is no full table of such numbers.
    """
    try:
        table = np.array(value)
    except ValueError:
        return None
    if table.size < LEAST or table.dtype.kind not in "if" or len(_kinds(value, table.ndim)) > 1:
        return None
    if table.dtype.kind == "i":
        return table, -1
    if not (np.abs(table) < 2**52 / 10**DIGITS).all() or (np.signbit(table) & (table == 0)).any():
        return None
    for digits in (2, 4, DIGITS):
        whole = np.rint(table * 10**digits)
        if (whole / 10**digits == table).all():
            return whole.astype(np.int64), digits
    return None


def _kinds(value: list, depth: int) -> set[type]:
    if depth == 1:
        return set(map(type, value))
    return set().union(*(_kinds(one, depth - 1) for one in value))


def _smallest(lists: Sequence[np.ndarray]) -> tuple[Sequence[int], bytes]:
    """The order and context that pack `lists` smallest, and them packed."""
    tried = {(*order, CONTEXTS[0]): b"" for order in ORDERS}
    for key in tried:
        tried[key] = _stream(lists, key)
    order = min(tried, key=lambda key: len(tried[key]))
    tried |= {key: _stream(lists, key) for key in ((*order[:-1], bits) for bits in CONTEXTS[1:])}
    best = min(tried, key=lambda key: len(tried[key]))
    return best, tried[best]


def _stream(lists: Sequence[np.ndarray], order: Sequence[int]) -> bytes:
    """The lists packed: a byte (planes of bytes, + 128 where the sign is the lowest bit), then the
    planes.
    """
    fast, total, before, bits = order
    parts, last = [], np.zeros(0)
    for table in lists:
        own = table.copy()
        if before and last.shape == table.shape:
            own -= last
        if total:
            own[..., -1] = own.sum(-1)
        parts.append((np.moveaxis(own, 0, -1) if fast else own).ravel())
        last = table
    whole = np.concatenate(parts)
    signed = bool((whole < 0).any())
    if signed:
        whole = np.where(whole < 0, -2 * whole - 1, 2 * whole)
    planes = max(1, (int(whole.max()).bit_length() + 7) // 8)
    octets = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :planes].T
    return lzma.compress(
        bytes([planes + 128 * signed]) + octets.tobytes(),
        filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": bits, "pb": 0}],
    )


def _lists(stream: bytes, order: Sequence[int], digits: int, shapes: list[tuple]) -> Iterator:
    """The lists of a column, one after the other."""
    fast, total, before, _ = order
    content = np.frombuffer(lzma.decompress(stream), np.uint8)
    signed, planes = divmod(int(content[0]), 128)
    octets = np.zeros((sum(map(math.prod, shapes)), 8), np.uint8)
    octets[:, :planes] = content[1:].reshape(planes, -1).T
    whole = octets.view("<i8")[:, 0]
    if signed:
        whole = np.where(whole % 2 == 1, -(whole + 1) // 2, whole // 2)
    last, at = np.zeros(0), 0
    for shape in shapes:
        part, at = whole[at : at + math.prod(shape)], at + math.prod(shape)
        table = np.moveaxis(part.reshape(*shape[1:], shape[0]), -1, 0) if fast else part
        table = table.reshape(shape).copy()
        if total:
            table[..., -1] -= table[..., :-1].sum(-1)
        if before and last.shape == table.shape:
            table += last
        last = table
        yield (table if digits < 0 else table / 10**digits).tolist()


def _shapes(value, known: list[list[tuple]]) -> None:
    """Add the shapes of the lists that were taken out of `value` to those of their columns."""
    if isinstance(value, dict) and MARK in value:
        column, *shape = value[MARK]
        known[column].append(tuple(shape))
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _shapes(one, known)


def _give(value, lists: Sequence[Iterator]):
    """`value` with its lists in their places again."""
    if isinstance(value, dict):
        if MARK in value:
            return next(lists[value[MARK][0]])
        if LIKE in value:
            fields = _give(value[LIKE], lists)
            return [
                dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)
            ]
        return {name: _give(one, lists) for name, one in value.items()}
    return [_give(one, lists) for one in value] if isinstance(value, list) else value
