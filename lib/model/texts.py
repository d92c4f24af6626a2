"""Text to study: the book's held-out text, or the user's own, from files, a folder, or a hub."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from lib.model import corpus
from lib.model.corpus import Document

HELD_OUT = "held-out"


def chosen(text: str, documents: int, *, field: str, split: str, **options) -> list[Document]:
    """The documents that a chapter's `text` names: "held-out" takes `documents` of every domain of
    the corpus (`options` as of `corpus.sample`), anything else `documents` in all, by `read`.
    """
    if text == HELD_OUT:
        return corpus.sample(documents, **options)
    return read(text, documents, field=field, split=split)


def weights(text: str) -> dict[str, float]:
    """By domain, the bytes of training text of the model that was trained on this corpus; of text
    that is not held out from it there is none.
    """
    if text != HELD_OUT:
        return {}
    train = corpus.manifest().query("split == 'train'")
    return {str(name): float(size) for name, size in train.groupby("domain").bytes.sum().items()}


def read(
    source: str, documents: int, *, field: str = "text", split: str = "test"
) -> list[Document]:
    """At most `documents` texts of the user's own: a text file, a folder of them, a JSONL file, or
    a hub's data set.

    In a folder the domain is the subfolder; each file is a document and a cluster.  In JSONL each
    line is an object with `field`, and perhaps "domain" and "cluster".  Anything else is the name
    of a data set, read as a stream from `split`. Refused: what is not UTF-8, a line without the
    field, and a source without any text.
    """
    path = Path(source).expanduser()
    rows: Iterator[tuple]
    if path.suffix == ".jsonl" and path.is_file():
        rows = _lines(path, field)
    elif path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
        rows = (
            (file.relative_to(path).as_posix(), file.parent.name, None, _utf8(file))
            for file in files
        )
    elif path.is_file():
        rows = iter([(path.name, path.parent.name, None, _utf8(path))])
    elif source.startswith((".", "/", "~")):
        raise FileNotFoundError(f"texts.read: text = {source!r}: no such file or folder")
    else:
        rows = _hub(source, field, split)
    found = (
        Document(name, domain, cluster or name, text)
        for name, domain, cluster, text in rows
        if text.strip()
    )
    taken = list(itertools.islice(found, documents))
    if not taken:
        rule = "holds no text: at least one document must"
        raise ValueError(f"texts.read: text = {source!r}: {rule}")
    return taken


def _utf8(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8: the text must be"
        raise ValueError(f"texts.read: {path}: {reason}") from None


def _lines(path: Path, field: str) -> Iterator[tuple]:
    for number, line in enumerate(_utf8(path).splitlines(), 1):
        try:
            row = json.loads(line)
            domain, cluster = row.get("domain", path.stem), row.get("cluster")
            yield f"{path.name}:{number}", domain, cluster, str(row[field])
        except (ValueError, KeyError, AttributeError):
            rule = f"must be an object with {field!r}"
            raise ValueError(f"texts.read: {path}: line {number}: {rule}") from None


def _hub(name: str, field: str, split: str) -> Iterator[tuple]:
    import datasets  # only where it is asked for: it takes seconds to import

    try:
        stream = datasets.load_dataset(name, split=split, streaming=True)
        for number, row in enumerate(stream):
            yield f"{name}:{number}", name.rpartition("/")[2], None, str(row[field])
    except Exception as error:  # of a dozen types and many lines
        reason = str(error).strip().splitlines()[0][:200]
        raise OSError(
            f"texts.read: text = {name!r}: no such file, and not read as a data set: {reason}"
        ) from None
