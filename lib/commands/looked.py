"""What parameters name, opened before anything runs: a run of minutes must not end at a file that
could have been looked into first.

Each function here takes parameters by their names, and refuses in the words of what reads them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib import provenance
from lib.commands import imported
from lib.measure import published, records
from lib.model import corpus, load, texts
from lib.network import step, synthetic
from lib.paper import rules

PUBLISHED = provenance.repository() / "data" / "published"


def a_model(model: str, revision: str, remote_code: str) -> None:
    """Configuration, tokenizer and the names of the weights."""
    if model not in load.OURS:
        load.look(model, revision, remote_code)


def a_text(text: str, text_field: str, text_split: str) -> None:
    """All of it, where it lies here: any document of it may be taken."""
    if text != texts.HELD_OUT and Path(text).expanduser().exists():
        texts.read(text, 1, field=text_field, split=text_split)


def a_corpus(corpus_source: str) -> None:
    """How the packed file begins."""
    if corpus_source != "auto":
        corpus.look(Path(corpus_source))


def a_trace(trace: str) -> None:
    """The whole recording."""
    if trace != "auto":
        imported.routes(Path(trace))


def counts_of(counts: str, counts_experts: int, counts_top_k: int) -> None:
    """The whole table."""
    imported.known(counts, counts_experts, counts_top_k)


def measurements(measured: str) -> None:
    """All tables of the folder."""
    if measured != "auto":
        records.load(Path(measured))


def few_fitted(deepep_fitted: list[int]) -> None:
    """Whether some of the published numbers of devices are left to test."""
    table = _table("deepep", "low latency")
    published.parted(table, deepep_fitted, published.LEAST, "deepep_fitted")


def nodes_fitted(nodes_fitted: list[int]) -> None:
    """The same of the published batches."""
    published.parted(_table("deepep_nodes", "low latency"), nodes_fitted, name="nodes_fitted")


def normal_fitted(normal_fitted: list[int]) -> None:
    """The same of the normal kernels."""
    published.parted(_table("deepep_normal", "normal"), normal_fitted, name="normal_fitted")


def a_level(known_shape: str, known_level: float) -> None:
    """Whether a router of so many experts can be so uneven."""
    shape = step.models()[known_shape].shape
    synthetic.inclusion(shape.experts, shape.k, known_level)


def _table(name: str, kernel: str) -> pd.DataFrame:
    (file,) = PUBLISHED.glob(f"{name}.csv*")
    table = pd.read_csv(file)
    return table[table.kernel == kernel]


# by the parameter that asks for it
LOOKS: dict[str, rules.Look] = {
    "model": a_model,
    "text": a_text,
    "corpus_source": a_corpus,
    "trace": a_trace,
    "counts": counts_of,
    "measured": measurements,
    "deepep_fitted": few_fitted,
    "nodes_fitted": nodes_fitted,
    "normal_fitted": normal_fitted,
    "known_level": a_level,
    "known_shape": a_level,
}
