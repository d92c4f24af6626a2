"""Megatron-LM: what its router replay recorded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lib.engines import recording
from lib.engines.recording import Recording

MOST_K, MOST_EXPERTS = 32, 1024  # of a bare array that is called routes and not counts


def read(content: object, *, experts: int = 0) -> Recording | None:
    """The recording in a file of router replay's data, None if it is none.

    A list (or an object) with a table [tokens, k] per mixture-of-experts layer, as
    RouterReplay.get_recorded_data returns it, or one array [tokens, layers, k], as its static
    buffer holds it; or a list of such, one per batch. A bare array counts as routes only where no
    token takes an expert twice, k is from 2 to 32 and every number below 1,024: counts of experts
    have ties or larger numbers.

    Schema: NVIDIA/Megatron-LM, megatron/core/transformer/moe/router_replay.py, commit 00caa53af309
    (RouterReplay).
    """
    if isinstance(content, Mapping):
        values = list(content.values())
        content = values[0] if len(values) == 1 else values
    one = _batch(content)
    if one is not None:
        parts = [one]
    elif isinstance(content, list) and content:
        batches = [_batch(part) for part in content]
        if any(batch is None for batch in batches):
            return None
        parts = [batch for batch in batches if batch is not None]
    else:
        return None
    return recording.routed("Megatron, router replay", parts, experts=experts)


def _batch(content: object) -> np.ndarray | None:
    """[tokens, layers, k] of one batch."""
    if isinstance(content, list) and content and isinstance(content[0], np.ndarray):
        if any(not isinstance(part, np.ndarray) or part.ndim != 2 for part in content):
            return None
        if len({part.shape for part in content}) > 1:
            shapes = sorted({part.shape for part in content})
            raise ValueError(f"layers of shapes {shapes}: must be [tokens, k], the same in each")
        return _routes(np.stack(content, axis=1), least=1)
    if isinstance(content, list):
        try:
            content = np.asarray(content)
        except ValueError:
            return None
    return _routes(content) if isinstance(content, np.ndarray) and content.ndim == 3 else None


def _routes(index: np.ndarray, least: int = 2) -> np.ndarray | None:
    small = index.size and least <= index.shape[2] <= MOST_K and index.max() < MOST_EXPERTS
    fits = index.dtype.kind in "iu" and small and index.max() >= index.shape[2]
    used = index[(index >= 0).all(2)] if fits else index
    return index if fits and recording.distinct(used) else None
