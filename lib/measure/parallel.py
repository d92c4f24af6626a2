"""What is timed: an all-to-all, SwiGLU experts, and an expert-parallel layer made of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from lib.network import cost

Split = list[int] | None  # rows for each rank; None: the same for all


def exchange(send: torch.Tensor, receive: torch.Tensor, out: Split, into: Split) -> None:
    """One all-to-all of the rows of `send` into `receive`: `out` rows to each rank, `into` from
    each; None: evenly.
    """
    dist.all_to_all_single(receive, send, into, out)


def experts(
    rows: torch.Tensor, up: torch.Tensor, down: torch.Tensor, counts: list[int], ends: torch.Tensor
) -> torch.Tensor:
    """SwiGLU experts on rows [n, H] sorted by expert: counts (and `ends`, their running sum, on the
    device) per expert.

    up [E, 2F, H] (gate, then up), down [E, H, F].  Grouped matrix products in bfloat16 where torch
    has them on this device, else a loop over the experts.
    """
    if not len(rows):
        return rows
    if grouped(rows):
        product = getattr(functional, "grouped_mm", None) or torch._grouped_mm
        gate, value = product(rows, up.transpose(1, 2), offs=ends).chunk(2, 1)
        return product(functional.silu(gate) * value, down.transpose(1, 2), offs=ends)
    parts = []
    for part, first, second in zip(rows.split(counts), up, down, strict=True):
        gate, value = (part @ first.T).chunk(2, 1)
        parts.append((functional.silu(gate) * value) @ second.T)
    return torch.cat(parts)


def grouped(rows: torch.Tensor) -> bool:
    """Whether grouped matrix products are used."""
    return rows.is_cuda and rows.dtype == torch.bfloat16 and hasattr(torch, "_grouped_mm")


def weights(
    shape: cost.Shape,
    numbers: Sequence[int] | np.ndarray,
    device: torch.device | str,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices (up, down) of the experts with these numbers; an expert's do not depend on which
    others are asked for.
    """
    up = torch.empty(len(numbers), 2 * shape.width, shape.hidden, device=device, dtype=dtype)
    down = torch.empty(len(numbers), shape.hidden, shape.width, device=device, dtype=dtype)
    for i, number in enumerate(numbers):
        generator = torch.Generator(device).manual_seed(10_007 * seed + int(number))
        up[i].normal_(0, shape.hidden**-0.5, generator=generator)
        down[i].normal_(0, shape.width**-0.5, generator=generator)
    return up, down


@dataclass(frozen=True)
class Plan:
    """What one rank needs to send its share of the routes to the experts' devices and back.

    rows: the token of each row that it sends; out, into: rows to and from each rank; sort, back:
    the order of what arrived by expert, and its inverse; counts, ends: rows of each of its experts,
    and their running sum; slots: where each route of its tokens stands among what comes home.
    """

    k: int
    rows: torch.Tensor
    out: list[int]
    into: list[int]
    sort: torch.Tensor
    back: torch.Tensor
    counts: list[int]
    ends: torch.Tensor
    slots: torch.Tensor


def plan(
    index: np.ndarray, home: np.ndarray, rank: int, devices: int, device: torch.device | str
) -> Plan:
    """The plan of one rank for routes [tokens, k] to experts whose devices are `home` [experts].

    Tokens lie on the ranks in equal consecutive stretches; rows are sent by device, then by expert.
    """
    experts, tokens = len(home), len(index) // devices
    slot = np.empty(experts, dtype=np.int64)
    for i in range(devices):
        slot[home == i] = np.arange((home == i).sum())
    sent = [index[s * tokens : (s + 1) * tokens].reshape(-1) for s in range(devices)]
    own = sent[rank]
    order = np.argsort(home[own] * experts + slot[own], kind="stable")
    mine = np.flatnonzero(home == rank)
    counts = np.stack([np.bincount(part, minlength=experts)[mine] for part in sent])
    arrived = np.concatenate([np.repeat(np.arange(len(mine)), row) for row in counts])
    sort = np.argsort(arrived, kind="stable")

    def move(numbers: np.ndarray, kind: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(numbers), dtype=kind, device=device)

    return Plan(
        k=index.shape[1],
        rows=move(order // index.shape[1]),
        out=np.bincount(home[own], minlength=devices).tolist(),
        into=counts.sum(1).tolist(),
        sort=move(sort),
        back=move(np.argsort(sort)),
        counts=counts.sum(0).tolist(),
        ends=move(np.cumsum(counts.sum(0)), torch.int32),
        slots=move(np.argsort(order)),
    )


def layer(
    x: torch.Tensor,
    p: Plan,
    up: torch.Tensor,
    down: torch.Tensor,
    share: torch.Tensor,
    mark: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """An expert-parallel layer: dispatch, this rank's experts, combine.  x [tokens, H], share
    [tokens, k] → [tokens, H]; `mark` is called at the end of each of the three.

    The exchange of counts that precedes a dispatch in a server is left out: every rank knows the
    routes.
    """
    arrived = x.new_empty(sum(p.into), x.shape[1])
    exchange(x.index_select(0, p.rows), arrived, p.out, p.into)
    mark()
    done = experts(arrived.index_select(0, p.sort), up, down, p.counts, p.ends)
    done = done.index_select(0, p.back)
    mark()
    home = x.new_empty(sum(p.out), x.shape[1])
    exchange(done, home, p.into, p.out)
    result = (home.index_select(0, p.slots).view(len(x), p.k, -1) * share[..., None]).sum(1)
    mark()
    return result
