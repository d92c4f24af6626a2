"""A trace: which experts every token of a text was sent to, in every layer, with where the token
stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lib import choices, provenance

MOST = 2**16  # experts of a layer beyond which a number is no expert


@dataclass(frozen=True)
class Trace:
    """Routes of one model over one text.

    expert_index: [layers, tokens, k] expert numbers in the router's order of choice. document,
    position, domain, token: [tokens] number of the document, place in it, number of its domain,
    token id. domains, clusters: names by number; cluster [documents] the cluster number of each
    document. experts: number of experts; model: name of the model.
    """

    expert_index: np.ndarray
    document: np.ndarray
    position: np.ndarray
    domain: np.ndarray
    token: np.ndarray
    cluster: np.ndarray
    domains: np.ndarray
    clusters: np.ndarray
    experts: int
    model: str

    def __post_init__(self) -> None:
        index = self.expert_index
        if index.ndim != 3 or index.dtype.kind not in "iu":
            rule = "must be whole numbers [layers, tokens, k]"
            raise ValueError(f"trace: expert_index of shape {index.shape}: {rule}")
        if index.size == 0 or int(index.min()) < 0 or int(index.max()) >= self.experts:
            raise ValueError(f"trace: expert_index: must name experts from 0 to {self.experts - 1}")
        order = np.sort(index, axis=2)
        if (twice := order[:, :, 1:] == order[:, :, :-1]).any():
            layer, token, _ = np.argwhere(twice)[0]
            rule = "must name different experts"
            raise ValueError(f"trace: expert_index: layer {layer}, token {token}: {rule}")
        tokens = int(index.shape[1])
        sizes = dict.fromkeys(("document", "position", "domain", "token"), tokens)
        for name, size in (sizes | {"cluster": len(self.cluster)}).items():
            part = getattr(self, name)
            least = part.min(initial=0) if part.dtype.kind in "iu" else -1
            if part.shape != (size,) or size < 1 or least < 0:
                rule = f"must be [{size}] whole numbers ≥ 0"
                raise ValueError(f"trace: {name} of shape {part.shape}: {rule}")
        named = (("document", "cluster"), ("domain", "domains"), ("cluster", "clusters"))
        for name, names in named:
            most, known = int(getattr(self, name).max()), len(getattr(self, names))
            if most >= known:
                rule = f"must be below {known}, the length of {names}"
                raise ValueError(f"trace: {name}: has number {most}: {rule}")

    @property
    def load(self) -> np.ndarray:
        """[layers, experts] assignments."""
        return counts(self.expert_index.reshape(len(self.expert_index), -1), self.experts)

    def per_document(self, layer: int) -> np.ndarray:
        """[documents, experts] assignments of one layer."""
        k, documents = self.expert_index.shape[2], len(self.cluster)
        row = np.repeat(self.document.astype(np.int64), k) * self.experts
        place = row + self.expert_index[layer].reshape(-1)
        found = np.bincount(place, minlength=documents * self.experts)
        return found.reshape(documents, self.experts)

    def holds(self, documents: Sequence) -> bool:
        """Whether every token of `documents` (with token_ids) is counted k times in every layer."""
        tokens = sum(len(doc.token_ids) for doc in documents)
        return bool((self.load.sum(1) == self.expert_index.shape[2] * tokens).all())

    def domain_load(self) -> dict[str, np.ndarray]:
        """By domain, [layers, experts] assignments."""
        parts = {
            name: self.expert_index[:, self.domain == number]
            for number, name in enumerate(self.domains)
        }
        return {
            str(name): counts(part.reshape(len(part), -1), self.experts)
            for name, part in parts.items()
            if part.size
        }

    def document_domain(self) -> np.ndarray:
        """[documents] the domain number of each document."""
        result = np.zeros(len(self.cluster), dtype=int)
        result[self.document] = self.domain
        return result

    def save(self, path: Path) -> None:
        """Write compressed (npz, the routes by `choices.packed`), whole or not at all."""
        parts = vars(self) | choices.packed(self.expert_index, self.token, self.experts)
        parts.pop("expert_index")
        with provenance.writing(path) as temporary:
            np.savez_compressed(temporary, **parts)


def keep(traces: Mapping[str, Trace], folder: Path) -> list[Path]:
    """Write traces by their names as folder/trace_<name>.npz; these files."""
    paths = [folder / f"trace_{name}.npz" for name in traces]
    for own, path in zip(traces.values(), paths, strict=True):
        own.save(path)
    return paths


def counts(index: np.ndarray, experts: int) -> np.ndarray:
    """[rows, experts] how often each expert stands in each row of index [rows, n]."""
    offset = np.arange(len(index))[:, None] * experts
    place = (index.astype(np.int64) + offset).reshape(-1)
    return np.bincount(place, minlength=len(index) * experts).reshape(-1, experts)


def load(path: Path) -> Trace:
    """Read a trace; a file that is none, or lacks a part, is refused in one line."""
    try:
        with np.load(path) as file:
            own = choices.unpacked(file)
            parts = own | {f.name: file[f.name] for f in fields(Trace) if f.name not in own}
        parts |= {"experts": int(parts["experts"]), "model": str(parts["model"])}
        if not 1 <= parts["experts"] <= MOST:
            raise ValueError(f"experts = {parts['experts']}: must be from 1 to {MOST}")
        return Trace(**parts)
    except MemoryError:
        reason = "claims to hold more than the memory does"
    except Exception as error:  # whatever NumPy and zipfile raise at a file of another kind
        reason = str(error).splitlines()[0]
        if "pickle" in reason:
            reason = "is no .npz of plain arrays"
    raise ValueError(f"trace.load: {path}: is not a trace: {reason.removeprefix('trace: ')}")
