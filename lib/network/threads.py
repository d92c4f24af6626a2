"""Independent parts of a computation side by side, where what they call lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def number() -> int:
    """How many threads to use: OMP_NUM_THREADS, else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def each(function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """function(item) of every item, in their order; an error ends it.  Answers do not depend on the
    number of threads: each is computed whole by one.
    """
    parts = list(items)
    count = min(number(), len(parts))
    if count < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, parts))
