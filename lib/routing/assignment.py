"""What another assignment does in one forward pass: quality per document, balance per routing
group, and whether it looks ahead.

Two protocols.  *prefix*: the first half of every document is its prompt, routed as one group
(legal: all its tokens are there); the second half is decoded, position by position, each position
one group across all documents.  One teacher-forced pass does both, and only the second half is
scored.  *prefill*: groups of consecutive tokens of the stream of documents; a strategy that looks
at the whole group then sees the future, so its quality is flattered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.routing import adapter, bind, scoring, slicing

PROBED = 256  # tokens of a document of which all logits are compared


class Text(Protocol):
    """A document: its name, its domain, its cluster (the unit of resampling), its tokens."""

    @property
    def name(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def token_ids(self) -> Sequence[int]: ...


Document = TypeVar("Document", bound=Text)


def grid(documents: Sequence[Document], tokens: int) -> tuple[list[Document], np.ndarray]:
    """The documents that have `tokens` tokens, and these [documents, tokens]; refused: fewer than
    two.
    """
    whole = [doc for doc in documents if len(doc.token_ids) >= tokens]
    if len(whole) < 2:
        raise ValueError(
            f"assignment.grid: {len(whole)} documents of {tokens} tokens: must be at least 2"
        )
    return whole, np.array([doc.token_ids[:tokens] for doc in whole])


def in_turn(documents: Sequence[Document], count: int) -> list[int]:
    """The numbers of at most `count` documents: domains take turns, in the order in which they
    first appear, each with its documents in their own order.
    """
    domains = pd.Series([doc.domain for doc in documents], dtype=object)
    return np.argsort(domains.groupby(domains).cumcount(), kind="stable")[:count].tolist()


def prefix_groups(documents: int, tokens: int) -> np.ndarray:
    """[documents × tokens] group of every token in the prefix protocol: prompts 0 … documents − 1,
    then positions.
    """
    group = np.broadcast_to(np.arange(documents)[:, None], (documents, tokens)).copy()
    group[:, tokens // 2 :] = documents + np.arange(tokens - tokens // 2)
    return group.ravel()


def prefill_groups(documents: int, tokens: int, size: int) -> np.ndarray:
    """[documents × tokens] group of every token in the prefill protocol: `size` consecutive ones of
    the stream.
    """
    return np.arange(documents * tokens) // size


class _Tally:
    """What an assignment did to the scored tokens [tokens] of routing groups `group` [tokens]."""

    def __init__(self, group: Tensor, scored: Tensor) -> None:
        self.scored, self.groups = scored[:, None], torch.unique(group[scored])
        self.place = torch.searchsorted(self.groups, group)[:, None]
        self.tokens = torch.bincount(self.place[scored, 0], minlength=len(self.groups))
        self.load: dict[int, Tensor] = {}
        self.sums = np.zeros(4)  # choices not used, choices; gates used, gates chosen

    def add(self, scores: Tensor, call: adapter.Call, index: Tensor, weight: Tensor) -> None:
        """Count one layer's assignment, on the device of that layer."""
        scored, place = (part.to(index.device) for part in (self.scored, self.place))
        used, experts = (weight != 0) & scored, scores.shape[1]
        asked = (place * experts + index)[used]
        load = torch.bincount(asked, minlength=len(self.groups) * experts)
        self.load[call.layer] = load.view(-1, experts)
        mine = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, index, used)
        own = torch.zeros_like(mine).scatter_(1, call.index, True) & scored
        parts = (own & ~mine, own, scores * mine, scores * own)
        self.sums += [float(part.sum()) for part in parts]

    def told(self) -> dict:
        """What `run` returns of balance and choice."""
        load = torch.stack([self.load[number].cpu() for number in sorted(self.load)]).double()
        layers, _, experts = load.shape
        slots = self.sums[1] / layers / int(self.scored.sum())  # k
        nominal = self.tokens.cpu().double() * slots / experts
        return dict(
            load=load.numpy(),
            max_over_nominal=(load.amax(2) / nominal).numpy(),
            churn=self.sums[0] / self.sums[1],
            kept=self.sums[2] / self.sums[3],
            dropped=1 - float(load.sum()) / self.sums[1],
        )


@torch.no_grad()
def run(
    model: torch.nn.Module,
    ids: Tensor,
    strategy: adapter.Strategy,
    group: Tensor,
    *,
    first: int,
    layer: int | None = None,
) -> dict:
    """One pass over ids [documents, tokens] under a strategy; tokens from position `first` on are
    scored.

    Returns nats and correct [documents] (sums over scored tokens), tokens (per document); over
    groups that hold a scored position load [layers, groups, experts] and max_over_nominal [layers,
    groups]; churn: share of the router's own choices that were not used; kept: gates used over
    gates chosen; dropped: share of the k slots that stayed empty.  layer: assign in this layer
    only.
    """
    documents, width = ids.shape
    scored = (torch.arange(width, device=ids.device) >= first).expand(documents, width).reshape(-1)
    tally = _Tally(group, scored)

    def watched(scores: Tensor, call: adapter.Call) -> tuple[Tensor, Tensor]:
        changed = layer in (None, call.layer)
        index, weight = strategy(scores, call) if changed else (call.index, call.weights)
        tally.add(scores, call, index, weight)
        return index, weight

    start = max(first, 1)
    with (
        adapter.assign(model, watched),
        slicing.sliced(model),
        scoring.headless(model, start - 1) as states,
    ):
        logits = model(input_ids=ids, use_cache=False).logits[:, start - 1 : -1]
    if states:
        nats, correct = scoring.score(model, ids, states[0], start)
    else:
        nats, correct = scoring.scored(logits, ids[:, start:]).cpu().numpy()
    return dict(nats=nats, correct=correct, tokens=width - start) | tally.told()


@torch.no_grad()
def unchanged(model: torch.nn.Module, ids: Tensor) -> bool:
    """Whether the native choice, put in by hand, gives the same logits bit for bit (of at most
    `PROBED` tokens of each document).
    """
    ids = ids[:, :PROBED]
    plain = model(input_ids=ids, use_cache=False).logits
    with adapter.assign(model, adapter.native):
        return torch.equal(model(input_ids=ids, use_cache=False).logits, plain)


@torch.no_grad()
def leak(
    model: torch.nn.Module,
    ids: Tensor,
    other: Tensor,
    settings: Sequence[Mapping],
    fits: bind.Fits,
) -> pd.DataFrame:
    """Per setting, the largest change (`leak`) of a logit of the first half of ids [tokens] when
    its second half becomes that of `other`; causal: whether it should be none.

    The whole sequence is one group.  Experts are computed token by token (`batched_mm`), so that
    what is computed for a token cannot depend on how many others its expert has; a causal strategy
    then leaks exactly 0.  rounding: what arithmetic alone may move, 0 there; of a family that
    cannot compute so, 1e-4 of the largest logit.
    """
    half = len(ids) // 2
    group = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
    texts = (ids, torch.cat([ids[:half], other[half:]]))
    rows = []
    with _token_by_token(model) as exact:
        for setting in settings:
            with adapter.assign(model, bind.bound(setting, group, fits)):
                one, two = (model(input_ids=t[None], use_cache=False).logits[0] for t in texts)
            moved = float((one - two)[:half].abs().max())
            rounding = 0.0 if exact else 1e-4 * float(one.abs().max())
            rows.append((setting["name"], bind.causal(setting), moved, rounding))
    return pd.DataFrame(rows, columns=["setting", "causal", "leak", "rounding"])


@contextmanager
def _token_by_token(model: torch.nn.Module) -> Iterator[bool]:
    """Inside, the experts of every token are computed apart; whether the model can do that.

    Every slot has its own copy of its expert then, so that tokens are taken a few at a time.
    """
    implemented = cast(Any, model)
    before = getattr(implemented.config, "_experts_implementation", None)
    try:
        implemented.set_experts_implementation("batched_mm")
        exact = before is not None
    except (AttributeError, ValueError):  # its class has one way only
        exact = False
    try:
        with slicing.sliced(model, slicing.copies if exact else slicing.activations):
            yield exact
    finally:
        if exact:
            implemented.set_experts_implementation(before)
