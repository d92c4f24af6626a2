"""What is told when the memory of a GPU runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def lowering(what: str) -> Iterator[None]:
    """Inside, a GPU that runs out of memory ends in a MemoryError of one line: what was asked for,
    what there is, and that `what` must be lowered.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = str(error).strip() or "CUDA out of memory."
        first = ". ".join(told.splitlines()[0].split(". ")[:2]).removesuffix(".")
        raise MemoryError(f"{first}: lower {what}") from None
