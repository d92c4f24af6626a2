"""Text to study: the book's held-out text, or the user's own, from files, a folder, or a hub."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lib import provenance
from lib.model import corpus, files
from lib.model.corpus import Document

HELD_OUT = "held-out"
PARTS = {HELD_OUT: "held-out", "training": "train", "whole": "held-out"}  # and the corpus' split
STREAMED = 10_000  # texts of a hub's data set among which is chosen


class _Found(NamedTuple):
    """A document, where it stands (domain, file, cluster), and the SHA-256 of its text."""

    document: Document
    place: tuple[str, str, str]
    sha256: str


def chosen(
    text: str,
    documents: int,
    *,
    field: str,
    split: str,
    part: str = HELD_OUT,
    source: str = "auto",
    allow_partial: bool = False,
) -> list[Document]:
    """The documents that a chapter's `text` names: "held-out" takes `documents` of every domain of
    the corpus (`source`, `allow_partial`: as of `corpus.sample`), anything else `documents` in all
    of the user's own (`field`, `split`: as of `read`).

    part: "held-out", or "training" for what is fitted to text.  The corpus has its own split; text
    of the user's own is split by document: sorted by domain and within it by the SHA-256 of the
    text, every second document is for training, the others are held out, a text that stands twice
    counts once.  So neither names nor order matter, and a domain of two or more is in both parts.
    "whole" takes all of the user's own, of the corpus what is held out.  Refused: a part of text
    that is a single document.
    """
    if part not in PARTS:
        raise ValueError(f"texts.chosen: part = {part!r}: must be one of {', '.join(PARTS)}")
    if text == HELD_OUT:
        own = PARTS[part]
        return corpus.sample(documents, split=own, source=source, allow_partial=allow_partial)
    found = _found(text, field, split)
    if part != "whole":
        found = _split(found)[part]
        if not found:
            rule = f"is one document: needs 2, one of them for the {part} part"
            raise ValueError(f"texts.chosen: text = {text!r}: {rule}")
    return [one.document for one in _in_turn(found)[:documents]]


def described(text: str) -> str:
    """What a chapter's `text` is, in words; of a file or folder its name."""
    if text == HELD_OUT:
        return "the held-out text of this book"
    return f"the text {provenance.portable(str(Path(text).expanduser()))}"


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
    """At most `documents` texts of the user's own: a file, a folder of them, or a hub's data set.

    Files are read by `files.read`.  In a folder the domain is the subfolder, hidden files and
    folders are left out; a row may name its domain and cluster itself, else each text is a cluster.
    Anything that is no path is the name of a data set, of whose `split` the first `STREAMED` texts
    are looked at.  Domains take turns, in each its files, in each its clusters, which give their
    texts in order of SHA-256.  Refused: what `files.read` refuses, and a source without any text.
    """
    return [one.document for one in _in_turn(_found(source, field, split))[:documents]]


def _found(source: str, field: str, split: str) -> list[_Found]:
    """All documents with some text, of a path or of a hub."""
    rows: Iterable[tuple[Document, tuple[str, str, str]]]
    if places := paths(source):
        rows = _local(places, Path(source).expanduser(), field)
    elif source.startswith((".", "/", "~")):
        raise FileNotFoundError(f"texts.read: text = {source!r}: no such file or folder")
    elif ":" in source:
        rule = "is an address: must be a file, a folder or the name of a hub's data set"
        raise ValueError(f"texts.read: text = {source!r}: {rule}")
    else:
        rows = _hub(source, field, split)
    found = [
        _Found(document, place, corpus.digest(document.text))
        for document, place in rows
        if document.text.strip()
    ]
    if not found:
        rule = "holds no text: at least one document must"
        raise ValueError(f"texts.read: text = {source!r}: {rule}")
    return found


def paths(source: str) -> list[Path]:
    """The files of a text of the user's own, in order of their names; none where it is no path.
    Refused: a folder without any.
    """
    path = Path(source).expanduser()
    if path.is_file() or not path.is_dir():
        return [path] if path.is_file() else []
    inside = (file for file in path.rglob("*") if file.is_file())
    shown = [
        file
        for file in inside
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not shown:
        raise ValueError(f"texts.read: text = {source!r}: holds no file: must hold some text")
    return sorted(shown)


def _local(places: list[Path], home: Path, field: str) -> Iterator[tuple]:
    for path in places:
        inside = path.relative_to(home) if path != home else Path(path.name)
        above = inside.parts[0] if len(inside.parts) > 1 else home.resolve().name
        for row in files.read(path, field):
            name = f"{inside.as_posix()}:{row.place}" if row.place else inside.as_posix()
            alone = path.stem if row.place else path.resolve().parent.name
            domain = row.domain or (alone if path == home else above)
            document = Document(name, domain, row.cluster or name, row.text)
            yield document, (domain, inside.as_posix(), row.cluster)


def _hub(name: str, field: str, split: str) -> list[tuple]:
    import datasets  # only where it is asked for: it takes seconds to import

    try:
        stream = datasets.load_dataset(name, split=split, streaming=True)
        rows = list(itertools.islice(stream, STREAMED))
    except Exception as error:  # of a dozen types and many lines
        reason = str(error).strip().splitlines()[0][:200]
        raise OSError(
            f"texts.read: text = {name!r}: no such file, and not read as a data set: {reason}"
        ) from None
    domain = name.rpartition("/")[2]
    texts = [
        files.text_of(row, field, f"text = {name!r}: row {number}")
        for number, row in enumerate(rows)
    ]
    places = [f"{name}:{number}" for number in range(len(texts))]
    return [
        (Document(place, domain, place, text), (domain, name, ""))
        for place, text in zip(places, texts, strict=True)
    ]


def _split(found: list[_Found]) -> dict[str, list[_Found]]:
    """Both parts of text of the user's own; no part where there is a single text."""
    order = sorted(found, key=lambda one: (one.place[0], one.sha256, one.document.name))
    once = {one.sha256: one for one in reversed(order)}  # the first of equal ones stays
    kept = [one for one in order if once[one.sha256] is one]
    alone = len(kept) == 1
    return {HELD_OUT: [] if alone else kept[::2], "training": kept[1::2]}


def _in_turn(found: list[_Found]) -> list[_Found]:
    """The same in the order in which they are taken, which is that of neither names nor lines."""
    order = sorted(found, key=lambda one: (one.sha256, one.document.name))
    for depth in (3, 2, 1):  # clusters take turns in a file, files in a domain, domains
        taken: Counter = Counter()
        turns = []
        for one in order:
            turns.append(taken[one.place[:depth]])
            taken[one.place[:depth]] += 1
        order = [order[i] for i in sorted(range(len(order)), key=turns.__getitem__)]
    return order
