"""A recording of a serving engine or a trainer: which experts its tokens took, or how many took
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 4096  # experts of a layer beyond which a number is no expert


@dataclass(frozen=True)
class Recording:
    """What was recorded of a model's mixture-of-experts layers, by logical expert.

    source: the engine and its kind of file.  steps [steps, layers, experts]: assignments, counted
    in each forward pass, snapshot or request.  layer [layers]: its number in the model, counted
    from 0 over the layers that the engine numbers (dense ones too where it does); of: how many it
    numbers.  routes [layers, tokens, k]: expert numbers of every token, None where only counts were
    recorded; then top_k is `k`.  step, position, token [tokens]: the step it stands in, its place
    in the text, its id (-1: not recorded).  told: whether the file or its reader says how many
    experts a layer has; else they are those up to the highest number seen.  k: experts of a token
    where the file tells them without routes.
    """

    source: str
    steps: np.ndarray
    layer: np.ndarray
    of: int
    routes: np.ndarray | None = None
    step: np.ndarray | None = None
    position: np.ndarray | None = None
    token: np.ndarray | None = None
    told: bool = True
    k: int = 0

    @property
    def load(self) -> np.ndarray:
        """[layers, experts] assignments."""
        return self.steps.sum(0)

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return self.steps.shape[2]

    @property
    def top_k(self) -> int:
        """Experts of a token; 0: not recorded."""
        return self.k if self.routes is None else self.routes.shape[2]


def counted(source: str, steps: Sequence[np.ndarray] | np.ndarray, k: int = 0) -> Recording:
    """The recording of counts [steps, layers, experts]; layers without any are left out (dense
    ones).  k: experts of a token, where the file tells them.

    Refused: counts below 0 or not whole, none at all.
    """
    loads = np.asarray(steps)
    if loads.ndim != 3 or loads.dtype.kind not in "iuf":
        raise ValueError(f"counts of shape {loads.shape}: must be numbers [steps, layers, experts]")
    if not np.isfinite(loads).all() or (loads < 0).any() or (loads != np.rint(loads)).any():
        raise ValueError("counts: must be whole numbers ≥ 0")
    used = loads.any((0, 2))
    if not used.any():
        raise ValueError("counts: there are none")
    whole = np.rint(loads).astype(np.int64)
    return Recording(source, whole[:, used], np.flatnonzero(used), loads.shape[1], k=k)


def routed(
    source: str,
    parts: Sequence[np.ndarray],
    *,
    experts: int = 0,
    position: Sequence[np.ndarray] | None = None,
    token: Sequence[np.ndarray] | None = None,
) -> Recording:
    """The recording of routes, one part [tokens, layers, k] per step (a pass or a request).

    Numbers below 0 are padding: columns, tokens and layers that hold nothing else are left out, and
    so are layers in which every token has one and the same number k times (dense ones).  experts:
    of a layer; 0: up to the highest number.

    Refused: a token that took an expert twice, or only some of k experts; numbers that are no
    expert's; parts of different shapes.
    """
    if not parts or len({part.shape[1:] for part in parts}) > 1:
        raise ValueError("routes: parts must be [tokens, layers, k] with the same layers and k")
    index = np.concatenate(parts).astype(np.int64)
    step = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    kept, layer, index = _without_padding(index)
    known = experts or int(index.max()) + 1
    if known > MOST or int(index.max()) >= known:
        raise ValueError(f"routes: expert {index.max()}: must be below {experts or MOST}")
    if not distinct(index):
        raise ValueError("routes: a token that takes an expert twice: must be k different ones")
    row = step[kept, None] * known
    counted = [
        np.bincount((row + own).ravel(), minlength=len(parts) * known)
        for own in index.swapaxes(0, 1)
    ]
    steps = np.stack(counted).reshape(len(layer), len(parts), known).swapaxes(0, 1)
    places = [np.arange(len(part)) for part in parts] if position is None else position
    ids = [np.full(len(part), -1) for part in parts] if token is None else token
    return Recording(
        source,
        steps,
        layer,
        parts[0].shape[1],
        routes=np.ascontiguousarray(index.swapaxes(0, 1)).astype(np.int32),
        step=step[kept],
        position=np.concatenate(places)[kept].astype(np.int64),
        token=np.concatenate(ids)[kept].astype(np.int64),
        told=experts > 0,
    )


def _without_padding(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens kept, layers kept, routes [tokens kept, layers kept, k]) of [tokens, layers, k]."""
    real = index >= 0
    dense = (index == index[:1, :, :1]).all((0, 2)) & (index.shape[2] > 1) & (len(index) > 1)
    columns, layer = real.any((0, 1)), np.flatnonzero(real.any((0, 2)) & ~dense)
    kept = np.flatnonzero(real[:, layer].any((1, 2)))
    if not len(kept) or not len(layer):
        raise ValueError("routes: there are none")
    index = index[np.ix_(kept, layer, np.flatnonzero(columns))]
    if (index < 0).any():
        raise ValueError(
            "routes: a token has fewer than k experts in a layer: must have all or none"
        )
    return kept, layer, index


def distinct(index: np.ndarray) -> bool:
    """Whether the numbers [..., k] of every token differ."""
    ordered = np.sort(index, axis=-1)
    return bool((ordered[..., 1:] != ordered[..., :-1]).all())


def folded(counts: np.ndarray, logical: np.ndarray) -> np.ndarray:
    """[..., layers, experts] counts by logical expert, of counts [..., layers, slots] by physical
    one and their map [layers, slots].

    Refused: a map of another shape, or one that leaves an expert out.
    """
    counts, logical = np.asarray(counts), mapped(logical)
    if counts.shape[-2:] != logical.shape:
        raise ValueError(
            f"counts of shape {counts.shape}: must end in {list(logical.shape)}, as their map"
        )
    found = np.zeros((*counts.shape[:-1], int(logical.max()) + 1), counts.dtype)
    for layer, experts in enumerate(logical):
        holds = np.zeros((len(experts), found.shape[-1]), counts.dtype)
        holds[np.arange(len(experts)), experts] = 1
        found[..., layer, :] = counts[..., layer, :] @ holds
    return found


def mapped(content: object) -> np.ndarray:
    """A map [layers, slots] of logical experts, checked."""
    logical = np.asarray(content)
    if logical.ndim != 2 or logical.dtype.kind not in "iu" or logical.min(initial=0) < 0:
        raise ValueError(f"map of shape {logical.shape}: must be experts ≥ 0 [layers, slots]")
    if logical.max() >= MOST:
        raise ValueError(f"map: expert {logical.max()}: must be below {MOST}")
    for layer, experts in enumerate(logical):
        missing = np.setdiff1d(np.arange(int(logical.max()) + 1), experts)
        if len(missing):
            raise ValueError(f"map: layer {layer}: expert {missing[0]} stands in no slot")
    return logical
