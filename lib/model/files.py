"""Texts in the user's own files: plain text, rows of JSON, tables; any of them gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One text of a file.  place: its line or row, from 1; 0 where the file is the text.  domain
    and cluster: as the row names them, else empty.
    """

    place: int
    text: str
    domain: str = ""
    cluster: str = ""


def read(path: Path, field: str) -> Iterator[Row]:
    """The texts of one file, by its suffix (in capitals or not, and before ".gz").

    .jsonl and .ndjson: one object a line, lines end at "\\n" alone; .json: such lines, a list of
    objects, or one object; .csv and .tsv with a head; .parquet.  An object or row has `field`, and
    perhaps "domain" and "cluster".  A file of any other name is one text.  A byte-order mark and
    blank lines are no text.  Refused, by file and line: what is not UTF-8, not gzip, not JSON; a
    row without the field, or with more fields than its head names, as a text with a comma has that
    is not quoted; and a field that is no text: null, a number, the list of a chat.
    """
    packed = path.suffix.lower() == ".gz"
    kind = Path(path.stem if packed else path.name).suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        rows = _lines(path, _utf8(path, packed), field)
    elif kind == ".json":
        rows = _json(path, _utf8(path, packed), field)
    elif kind in (".csv", ".tsv"):
        rows = _table(path, _utf8(path, packed), "," if kind == ".csv" else "\t")
    elif kind == ".parquet":
        rows = _parquet(path, packed)
    else:
        yield Row(0, _utf8(path, packed))
        return
    for place, row in rows:
        where = f"{path}: line {place}"
        labels = (_label(row, name, where) for name in ("domain", "cluster"))
        yield Row(place, text_of(row, field, where), *labels)


def text_of(row: object, field: str, where: str) -> str:
    """The text in a row's field; refused is what is none, in one line that begins with `where`."""
    if not isinstance(row, dict) or field not in row:
        has = f", has {', '.join(map(repr, [*row][:4]))}" if isinstance(row, dict) else ""
        raise ValueError(f"texts.read: {where}: must be an object with {field!r}{has}")
    text = row[field]
    if not isinstance(text, str):
        hint = " (a chat: render it by its model's template)" if isinstance(text, list) else ""
        kind = "null" if text is None else type(text).__name__
        raise ValueError(f"texts.read: {where}: {field!r} is {kind}: must be a text{hint}")
    try:
        text.encode()
    except UnicodeEncodeError:  # "\ud800" in JSON
        raise ValueError(f"texts.read: {where}: {field!r} is not UTF-8: must be") from None
    return text


def _label(row: object, name: str, where: str) -> str:
    label = row.get(name) if isinstance(row, dict) else None
    if label is not None and type(label) not in (str, int):
        kind = type(label).__name__
        raise ValueError(f"texts.read: {where}: {name!r} is {kind}: must be a text or whole number")
    return "" if label is None else str(label)


def _utf8(path: Path, packed: bool) -> str:
    try:
        return _bytes(path, packed).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8: the text must be"
    raise ValueError(f"texts.read: {path}: {reason}")


def _bytes(path: Path, packed: bool) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        rule = "is not whole gzip: must be, by its name"
        raise ValueError(f"texts.read: {path}: {rule}") from None


def _lines(path: Path, text: str, field: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                rule = f"must be an object with {field!r}: is no JSON"
                raise ValueError(f"texts.read: {path}: line {number}: {rule}") from None


def _json(path: Path, text: str, field: str) -> Iterator[tuple[int, Any]]:
    """Many files of lines are called .json: so it is lines what is whole in its first one."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _lines(path, text, field)
    return enumerate(whole if isinstance(whole, list) else [whole], 1)


def _table(path: Path, text: str, comma: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    try:
        heads = reader.fieldnames or []
        if twice := [head for head in heads if heads.count(head) > 1]:
            raise ValueError(f"texts.read: {path}: column {twice[0]!r} stands there twice")
        for row in reader:
            if None in row:
                rule = f"has more fields than the {len(heads)} of its head (a comma, not quoted?)"
                raise ValueError(f"texts.read: {path}: line {reader.line_num}: {rule}")
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"texts.read: {path}: line {reader.line_num}: {error}") from None


def _parquet(path: Path, packed: bool) -> Iterator[tuple[int, Any]]:
    import pyarrow  # only where it is asked for
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(io.BytesIO(_bytes(path, True)) if packed else path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"texts.read: {path}: is not parquet: {reason}") from None
