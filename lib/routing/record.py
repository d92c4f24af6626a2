"""What is kept of the routes of forward passes, and how it is filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lib.routing import hooks
from lib.routing.layer import Layer


@dataclass
class Record:
    """What was routed where, over all forward passes since the recording began (or since `clear`).

    load: [layers, experts] int64, assignments counted on the model's device; each token is counted
    once for each of its k slots whose weight is not 0 (a router may leave slots unused).  indices:
    per layer a list (one entry per forward pass) of [tokens, k] expert numbers in the router's
    order.  weights: likewise, the combine weights [tokens, k].  scores: likewise, the router's raw
    logits [tokens, experts], with their gradient if the forward pass has one.  broken: likewise,
    with `indices`, [tokens] whether what reached the experts or its weights is no finite number.
    Rows that the attention mask marks as padding are left out of all five.
    """

    layers: int
    experts: int
    device: torch.device
    k: int = 0
    indices: list[list[Tensor]] = field(init=False)
    weights: list[list[Tensor]] = field(init=False)
    scores: list[list[Tensor]] = field(init=False)
    broken: list[list[Tensor]] = field(init=False)
    _counts: dict[int, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._counts = {}
        self.indices = [[] for _ in range(self.layers)]
        self.weights = [[] for _ in range(self.layers)]
        self.scores = [[] for _ in range(self.layers)]
        self.broken = [[] for _ in range(self.layers)]

    @property
    def load(self) -> Tensor:
        """[layers, experts] int64 on `device`."""
        none = torch.zeros(self.experts, dtype=torch.int64, device=self.device)
        return torch.stack([self._counts.get(i, none).to(self.device) for i in range(self.layers)])

    def index(self, layer: int) -> Tensor:
        """[tokens, k] expert numbers of one layer over all recorded passes (needs
        ``indices=True``).
        """
        return torch.cat(self.indices[layer])

    def first_broken(self) -> tuple[int, int] | None:
        """The first token that is `broken`, of the layer that it is broken in first: (layer, token
        over all recorded passes), or None.
        """
        for layer, parts in enumerate(self.broken):
            found = torch.cat(parts) if parts else torch.zeros(0)
            if bool(found.any()):
                return layer, int(found.float().argmax())
        return None

    def count(self, layer: int, index: Tensor, used: Tensor) -> None:
        """Add the assignments [tokens, k] of one layer where `used`, on its own device and without
        waiting for it.
        """
        if layer not in self._counts:
            self._counts[layer] = torch.zeros(self.experts, dtype=torch.int64, device=index.device)
        self._counts[layer].scatter_add_(0, index.reshape(-1).long(), used.reshape(-1).long())


class Recording:
    """Fills a record with what passes in the forward pass under way."""

    def __init__(self, rec: Record, now: hooks.Pass, indices: bool, weights: bool) -> None:
        self.rec, self.now, self.indices, self.weights = rec, now, indices, weights

    def call(self, number: int, layer: Layer, args: tuple, kwargs: dict) -> None:
        """Experts of a layer are called with an assignment, or an index is looked up."""
        parts = [part.reshape(-1, part.shape[-1]) for part in hooks.passing(layer, args, kwargs)]
        index = parts[len(parts) // 2]
        weight = parts[2] if len(parts) == 3 else None
        self.assignment(number, index, weight, [part for part in parts if part is not index])

    def chosen(self, number: int, top: Any) -> None:
        """A top-k chooses experts."""
        index, values = (part.reshape(-1, part.shape[-1]) for part in (top.indices, top.values))
        self.assignment(number, index, None, [values])

    def assignment(
        self, number: int, index: Tensor, weight: Tensor | None, finite: Sequence[Tensor]
    ) -> None:
        """Count and keep index [tokens, k]; weight [tokens, k], where it is seen; what must be
        `finite` [tokens, …].
        """
        if not self.now.running:
            return
        index = index.detach()
        used = torch.ones_like(index, dtype=torch.bool) if weight is None else weight.detach() != 0
        keep = self.now.kept(len(index), index.device)
        self.rec.k = index.shape[1]
        self.rec.count(number, index, used if keep is None else used & keep[:, None])
        if self.indices:
            self.rec.indices[number].append(self.now.rows(index))
            sound = [part.detach().isfinite().all(-1) for part in finite]
            if sound:
                self.rec.broken[number].append(self.now.rows(~torch.stack(sound).all(0)))
        if self.weights and weight is not None:
            self.rec.weights[number].append(self.now.rows(weight.detach()))

    def logits(self, number: int, value: Tensor) -> None:
        """The router's logits are seen."""
        if self.now.running:
            rows = self.now.rows(value.reshape(-1, value.shape[-1]))
            kind = torch.promote_types(rows.dtype, torch.float32)
            self.rec.scores[number].append(rows.to(kind))
