"""A trace: which experts every token of a text was sent to, in every layer, with where the token
stood.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np


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
            raise ValueError(
                f"trace: expert_index of shape {index.shape}: must be whole numbers [layers, tokens, k]"
            )
        if index.size == 0 or int(index.min()) < 0 or int(index.max()) >= self.experts:
            raise ValueError(f"trace: expert_index: must name experts from 0 to {self.experts - 1}")
        for name in ("document", "position", "domain", "token"):
            part = getattr(self, name)
            if part.shape != index.shape[1:2] or part.dtype.kind not in "iu" or part.min() < 0:
                raise ValueError(
                    f"trace: {name} of shape {part.shape}: must be [{index.shape[1]}] whole numbers ≥ 0"
                )
        for name, names in (
            ("document", "cluster"),
            ("domain", "domains"),
            ("cluster", "clusters"),
        ):
            most, known = int(getattr(self, name).max()), len(getattr(self, names))
            if most >= known:
                raise ValueError(
                    f"trace: {name}: has number {most}: must be below {known}, the length of {names}"
                )

    @property
    def load(self) -> np.ndarray:
        """[layers, experts] assignments."""
        return counts(self.expert_index.reshape(len(self.expert_index), -1), self.experts)

    def per_document(self, layer: int) -> np.ndarray:
        """[documents, experts] assignments of one layer."""
        k = self.expert_index.shape[2]
        key = np.repeat(self.document.astype(np.int64), k) * self.experts + self.expert_index[
            layer
        ].reshape(-1)
        documents = len(self.cluster)
        return np.bincount(key, minlength=documents * self.experts).reshape(documents, self.experts)

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
        """Write compressed (npz), whole or not at all."""
        temporary = path.with_name(f".part-{path.name}")
        try:
            np.savez_compressed(
                temporary, **{field.name: getattr(self, field.name) for field in fields(self)}
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def counts(index: np.ndarray, experts: int) -> np.ndarray:
    """[rows, experts] how often each expert stands in each row of index [rows, n]."""
    offset = np.arange(len(index))[:, None] * experts
    return np.bincount(
        (index.astype(np.int64) + offset).reshape(-1), minlength=len(index) * experts
    ).reshape(-1, experts)


def load(path: Path) -> Trace:
    """Read a trace; a file that is none, or lacks a part, is refused in one line."""
    try:
        with np.load(path) as file:
            parts = {field.name: file[field.name] for field in fields(Trace)}
    except Exception as error:
        raise ValueError(
            f"trace.load: {path}: is not a trace: {str(error).splitlines()[0]}"
        ) from None
    return Trace(**parts | {"experts": int(parts["experts"]), "model": str(parts["model"])})
