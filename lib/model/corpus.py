"""The text: sources of the pinned Python packages, read from the installation and never copied into
the repository.

`data/corpus.csv.xz` lists every document (made by `data/corpus_manifest.py`): its package, path,
domain, cluster, split, length and the first `DIGITS` digits (128 bits) of the SHA-256 of its text,
so that everyone computes on the same bytes.  A document of the domain *prose* is the docstrings of
a module, one of *messages* the translations of a gettext catalogue; all others are whole files.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.metadata
import inspect
import lzma
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance

MANIFEST = Path(__file__).parents[2] / "data" / "corpus.csv.xz"
DIGITS = 32
END_OF_TEXT = "<|endoftext|>"
# what the same version holds otherwise elsewhere: numpy on Python 3.12 and later has no distutils,
# and these headers tell how torch was built
VARIES = re.compile(r"^numpy/distutils/|^torch/include/ATen/Config\.h$|^torch/.*cmake_macros\.h$")


@dataclass(frozen=True)
class Document:
    """One text: where it comes from, its domain, its cluster (the unit of resampling), its tokens
    once it has any.
    """

    name: str
    domain: str
    cluster: str
    text: str = field(repr=False)
    token_ids: tuple[int, ...] = field(default=(), repr=False)
    bytes: int = 0  # of UTF-8 text that token_ids stand for


def manifest() -> pd.DataFrame:
    """The table of all documents: package, version, path, domain, cluster, split, bytes, sha256."""
    return pd.read_csv(MANIFEST, dtype={"bytes": int}, keep_default_na=False)


def extract(source: bytes, domain: str) -> str:
    """The text of one file as it enters the corpus; raises UnicodeDecodeError or SyntaxError for
    what is no text.
    """
    text = source.decode("utf-8").replace("\r\n", "\n")
    if domain == "prose":
        return docstrings(text)
    if domain == "messages":
        return translations(text)
    return text


def docstrings(source: str) -> str:
    """All docstrings of a Python module in order of appearance, cleaned of indentation, a blank
    line between two.
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    texts = (ast.get_docstring(node, clean=False) for node in nodes)
    return "\n\n".join(inspect.cleandoc(text) for text in texts if text)


def translations(catalogue: str) -> str:
    """The translated messages (msgstr) of a gettext catalogue, one a line; fuzzy and empty ones are
    left out.
    """
    lines = []
    for block in re.split(r"\n\s*\n", catalogue)[1:]:
        if re.search(r"^#,.*\bfuzzy\b", block, re.M):
            continue
        for match in re.finditer(r'^msgstr(?:\[\d\])?((?:\s*"(?:[^"\\]|\\.)*"\s*)+)', block, re.M):
            parts = re.findall(r'"((?:[^"\\]|\\.)*)"', match[1])
            text = "".join(parts).replace("\\n", "\n").replace('\\"', '"')
            lines += [text.replace("\\\\", "\\").strip()]
    return "\n".join(line for line in lines if line)


def digest(text: str) -> str:
    """The first `DIGITS` hexadecimal digits of the SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@cache
def _distribution(package: str) -> importlib.metadata.Distribution:
    return importlib.metadata.distribution(package)


def _installed(row) -> str | None:
    """The text of one manifest row as installed here, or None where package or file is missing or
    not readable.
    """
    try:
        path = Path(str(_distribution(row.package).locate_file(row.path)))
        return extract(path.read_bytes(), row.domain)
    except (importlib.metadata.PackageNotFoundError, OSError, UnicodeDecodeError, SyntaxError):
        return None


def _packed(rows: pd.DataFrame, pack: Path) -> Iterator[str | None]:
    """The texts of `rows` from a file made by `pack`; None for what the file does not hold."""
    head, _, body = lzma.decompress(pack.read_bytes()).partition(b"\n\n")
    held, at = {}, 0
    for line in head.decode().splitlines():
        sha, size = line.split()
        held[sha[:DIGITS]] = body[at : at + int(size)]
        at += int(size)
    for sha in rows.sha256:
        yield held[sha].decode() if sha in held else None


def look(path: Path) -> None:
    """Refuse a file that does not begin as those of `write_pack`, before all of it is read."""
    try:
        with lzma.open(path) as file:
            first = file.readline(100).decode()
    except (lzma.LZMAError, EOFError, UnicodeDecodeError):
        first = ""
    if not re.fullmatch(r"[0-9a-f]{64} [0-9]+\n", first):
        rule = "must be a file that `make corpus` wrote"
        raise ValueError(f"corpus: corpus_source = {str(path)!r}: {rule}")


def write_pack(rows: pd.DataFrame, path: Path) -> None:
    """Write the texts of `rows` into one xz file, for a machine whose installation differs."""
    texts = [doc.text.encode() for doc in read(rows)]
    head = "\n".join(f"{hashlib.sha256(text).hexdigest()} {len(text)}" for text in texts)
    packed = lzma.compress(head.encode() + b"\n\n" + b"".join(texts), preset=9)
    with provenance.writing(path) as part:
        part.write_bytes(packed)


def read(
    rows: pd.DataFrame, *, source: str = "auto", allow_partial: bool = False
) -> list[Document]:
    """The documents of the manifest's `rows`, each verified against its SHA-256.

    source: "auto" reads the installed packages; otherwise the path of a packed file. A text that is
    missing or differs is refused, naming the first one; with `allow_partial` it is left out
    instead. So is, with a warning, training text that `VARIES` with the platform: what was trained
    here had it all, what is trained there has a little less; no held-out text varies.
    """
    if source != "auto" and not Path(source).is_file():
        raise FileNotFoundError(
            f"corpus.read: corpus = {source!r}: must be 'auto' or the path of a packed file"
        )
    texts = map(_installed, rows.itertuples()) if source == "auto" else _packed(rows, Path(source))
    documents, varied = [], 0
    for row, text in zip(rows.itertuples(), texts, strict=True):
        if text is not None and digest(text) == row.sha256:
            documents.append(Document(f"{row.package}/{row.path}", row.domain, row.cluster, text))
        elif source == "auto" and row.split == "train" and VARIES.search(row.path):
            varied += 1
        elif not allow_partial:
            state = "is missing"
            if text is not None:
                state = f"has SHA-256 {digest(text)[:12]}…, not {row.sha256[:12]}…"
            raise ValueError(
                f"corpus.read: {row.package} {row.version}: {row.path} {state}: must match "
                "data/corpus.csv.xz (install requirements.txt, or go on with what matches: "
                "allow_partial=True)"
            )
    if varied:
        words = f"{varied} training texts differ with the platform and are left out"
        warnings.warn(f"corpus.read: {words}", stacklevel=2)
    if not documents:
        raise ValueError("corpus.read: 0 documents match: at least one must")
    return documents


def start(tokenizer) -> tuple[int, ...]:
    """The tokens with which a tokenizer begins every text: those of its own rule; where it has
    none, as this book's, an end-of-text token, if it knows that.
    """
    if tokenizer.post_processor is None:
        known = tokenizer.token_to_id(END_OF_TEXT)
        return () if known is None else (known,)
    whole, plain = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    places = range(len(whole) - len(plain) + 1)
    first = next((i for i in places if whole[i : i + len(plain)] == plain), 0)
    return tuple(whole[:first])


def encode(documents: Iterable[Document], tokenizer, tokens: int | None = None) -> list[Document]:
    """`documents` with `token_ids`, the tokenizer's own `start` first, at most `tokens` of them
    (None: all).

    Padding and truncation that a tokenizer was saved with are switched off.  Refused: a text of
    which the tokenizer makes no token.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    documents, first, encoded = list(documents), start(tokenizer), []
    most = None if tokens is None else tokens - len(first)
    texts = [doc.text if tokens is None else doc.text[: 12 * tokens] for doc in documents]
    codes = tokenizer.encode_batch(texts, add_special_tokens=False)
    for doc, text, code in zip(documents, texts, codes, strict=True):
        if most is not None and len(code.ids) < most and len(text) < len(doc.text):
            code = tokenizer.encode(doc.text, add_special_tokens=False)
        if not code.ids:
            rule = "must be at least one (is the tokenizer the model's?)"
            raise ValueError(f"corpus.encode: {doc.name}: 0 tokens: {rule}")
        ids = code.ids[:most]
        size = len(doc.text[: code.offsets[len(ids) - 1][1]].encode()) if ids else 0
        encoded.append(Document(doc.name, doc.domain, doc.cluster, doc.text, (*first, *ids), size))
    return encoded


def sample(
    documents_per_domain: int | None,
    *,
    split: str = "held-out",
    source: str = "auto",
    allow_partial: bool = False,
) -> list[Document]:
    """Documents of a split, per domain at most `documents_per_domain` (None: all of them).

    The choice is fixed: clusters take turns, so that few documents still cover many clusters;
    within a cluster the documents come in order of their SHA-256.
    """
    rows = manifest().query("split == @split").sort_values("sha256")
    rows["turn"] = rows.groupby(["domain", "cluster"]).cumcount()
    rows = rows.sort_values(["domain", "turn", "sha256"])
    if documents_per_domain is not None:
        rows = rows.groupby("domain").head(documents_per_domain)
    return read(rows, source=source, allow_partial=allow_partial)


def held_out(
    documents_per_domain: int | None, tokens_per_document: int | None, tokenizer, **options
) -> list[Document]:
    """Held-out documents with at most `tokens_per_document` tokens, chosen by `sample`, or, with
    split="train" among its `options`, documents of the training text.

    Documents shorter than `tokens_per_document` stay, unpadded.
    """
    return encode(sample(documents_per_domain, **options), tokenizer, tokens_per_document)


def stream(documents: Iterable[Document]) -> np.ndarray:
    """All tokens of encoded documents in one row, [tokens], uint16 or, where an id needs more,
    int32; each document begins with its tokenizer's `start`.
    """
    whole = np.concatenate([np.asarray(doc.token_ids, dtype=np.int32) for doc in documents])
    return whole.astype(np.uint16) if whole.max(initial=0) < 2**16 else whole


def summary() -> pd.DataFrame:
    """The corpus by domain and split: domain, split, documents, clusters, megabytes."""
    groups = manifest().groupby(["domain", "split"])
    table = groups.agg(documents=("bytes", "size"), clusters=("cluster", "nunique"))
    return table.assign(megabytes=groups.bytes.sum() / 1e6).reset_index()


def shares(table: pd.DataFrame) -> pd.Series:
    """Of `summary`: held_out_share_left: share of the held-out documents that are no near-copies of
    training text; training_megabytes.
    """
    documents = table.groupby("split").documents.sum()
    left = documents["held-out"] / (documents["held-out"] + documents["copy"])
    trained = table.megabytes[table.split == "train"].sum()
    return pd.Series(dict(held_out_share_left=left, training_megabytes=trained))


def pack(path: Path, strides: list[int]) -> None:
    """Write a packed file: of the training text every document of each stride, and all held-out."""
    table = manifest()
    parts = [table[table.split == "train"].iloc[::stride] for stride in strides]
    parts.append(table[table.split == "held-out"])
    write_pack(pd.concat(parts).drop_duplicates("sha256"), path)


def _stride(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least 1")
    return int(text)


if __name__ == "__main__":
    line = argparse.ArgumentParser(prog="python -m lib.model.corpus", description=pack.__doc__)
    line.add_argument("file", type=Path)
    line.add_argument("strides", type=_stride, nargs="*", default=[1], metavar="stride")
    asked = line.parse_args()
    pack(asked.file, asked.strides)
