"""What others recorded, whoever wrote it: an engine's file, a trace of this book or a table of
counts, as routes or as counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from lib.engines import importing
from lib.engines.recording import Recording
from lib.routing import others, trace


def counts(path: Path, experts: int = 0, top_k: int = 0, layers: int = 0) -> pd.DataFrame:
    """Counts in a file, a table of others.COLUMNS: of an engine (`importing.read`), of a trace
    (.npz), or what others.read takes.

    experts, top_k, layers: what the file may leave untold (0: not given).  Refused in one line: any
    other file, and routes of which nobody tells the number of experts: it is no smaller than the
    highest seen, but may be larger.  Dense layers of an engine are left out with a warning.
    """
    if path.suffix == ".npz":
        t = trace.load(path)
        return others.of_trace(t, t.model)
    found = None
    if path.suffix != ".csv":
        found = importing.read(path, experts=experts, top_k=top_k, layers=layers)
    if found is None:
        return others.read(path, experts, top_k)
    if not found.told:
        seen = f"{found.experts} are seen ({found.source})"
        raise ValueError(f"counts: {path}: does not tell the number of experts: {seen}")
    if dense := sorted({*range(found.of)} - {*map(int, found.layer)}):
        layers_ = ", ".join(map(str, dense))
        words = f"{path.name}: left out, without an assignment: layers {layers_}"
        warnings.warn(words, stacklevel=2)
    try:
        return others.checked(table(found, path.stem), path, experts, top_k)
    except ValueError as error:
        raise ValueError(f"counts: {path}: {error}") from None


def table(found: Recording, model: str) -> pd.DataFrame:
    """The counts of a recording as a table of others.COLUMNS, its layers by their numbers."""
    load = found.load
    layer = np.repeat(found.layer, found.experts)
    tokens = np.repeat(
        load.sum(1) // found.top_k if found.top_k else load.sum(1) * 0, found.experts
    )
    about = dict(model=model, experts=found.experts, top_k=found.top_k, domain="all", layer=layer)
    expert = np.tile(np.arange(found.experts), len(load))
    return pd.DataFrame(about | dict(tokens=tokens, expert=expert, count=load.ravel()))


def known(source: str, experts: int = 0, top_k: int = 0) -> pd.DataFrame:
    """others.judged of other routers: "published", or the file that `counts` reads."""
    if source == "published":
        return others.published()
    return others.judged(counts(path_of(source), experts, top_k))


def path_of(source: str) -> Path:
    """The file that a parameter names."""
    return Path(source).expanduser()


def routes(path: Path, experts: int = 0, top_k: int = 0, layers: int = 0) -> trace.Trace:
    """Routes in a file as a trace: one of this book (.npz), or an engine's recording of every
    token; its documents are the requests, or the forward passes where no requests are told.

    Refused in one line: a file without routes.
    """
    if path.suffix == ".npz":
        return trace.load(path)
    found = importing.read(path, experts=experts, top_k=top_k, layers=layers)
    if found is None or found.routes is None or found.step is None:
        kind = "no recording" if found is None else f"counts ({found.source})"
        raise ValueError(f"trace: {path}: is {kind}: must have the routes of every token")
    _, document = np.unique(found.step, return_inverse=True)
    number = int(document.max()) + 1
    return trace.Trace(
        expert_index=found.routes,
        document=document,
        position=np.asarray(found.position),
        domain=np.zeros(len(document), int),
        token=np.maximum(np.asarray(found.token), 0),
        cluster=np.arange(number),
        domains=np.array(["recorded"]),
        clusters=np.array([f"{found.source} {at}" for at in range(number)]),
        experts=found.experts,
        model=path.stem,
    )
