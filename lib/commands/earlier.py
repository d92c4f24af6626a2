"""What chapters before the synthesis left in this run; of those that were not run, what is
published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from lib.commands import advise, imported, ladder_queue, popularity
from lib.commands.subject import Subject, of_counts, of_trace
from lib.measure import records
from lib.model import load
from lib.network import step, transfer
from lib.paper import values
from lib.routing import others, trace

TABLES = {  # what the synthesis reads: name, chapter and file
    "cost_group": ("02_assignment", "cost_group"),
    "cost_stream": ("02_assignment", "cost_stream"),
    "balance_group": ("02_assignment", "balance_group"),
    "balance_stream": ("02_assignment", "balance_stream"),
    "told": ("02_assignment", "told"),
    "trained": ("03_finetune", "front"),
    "placed": ("04_network", "placements"),
    "fresh": ("05_validation", "declared"),
}


def traces(run_dir: str) -> dict[str, Path]:
    """The routes that the profile recorded, by model."""
    try:
        paths = values.find(run_dir, "01_profile", "trace_*.npz")
    except FileNotFoundError:
        return {}
    return {path.stem.removeprefix("trace_"): path for path in paths}


def tables(run_dir: str, arms: Iterable[str]) -> tuple[dict[str, pd.DataFrame], dict[str, Path]]:
    """The tables of `TABLES` by name, and their files; one that nobody has is left out, and what is
    published where the profiled models, `arms`, are not this book's own.
    """
    found, files = {}, {}
    ours = set(arms) <= set(load.ARMS)
    for name, (chapter, stem) in TABLES.items():
        try:
            path = values.find(run_dir, chapter, f"figures/{stem}.csv")[0]
        except FileNotFoundError:
            continue
        if ours or path.is_relative_to(Path(run_dir)):
            found[name], files[name] = pd.read_csv(path), path
    return found, files


def files(traces: Mapping[str, Path], read: Mapping[str, Path]) -> list[Path]:
    """All files that the synthesis reads: the ladder's results, `traces` and `tables` (read), what
    was measured and what others published.
    """
    ladder, measured = ladder_queue.PUBLISHED.glob("*.packed"), records.load(advise.MEASURED)[-1]
    published = popularity.STAGES, transfer.COUNTS, step.SHAPES
    return [*sorted(ladder), *published, *traces.values(), *read.values(), *measured]


def subjects(paths: dict[str, Path], counts: str, experts: int, top_k: int) -> list[Subject]:
    """Whose imbalance is decided on: the models of the profile, then those of a file of counts, or
    of the published counts of two models.
    """
    found = [of_trace(trace.load(path), arm) for arm, path in paths.items()]
    own = counts != "published"
    path = Path(counts).expanduser() if own else transfer.COUNTS
    frame = imported.counts(path, experts, top_k) if own else others.read(path)
    kind = "measured" if own else "published"
    return found + [of_counts(frame, str(name), kind) for name in dict.fromkeys(frame.model)]
