"""Who goes where when experts are to be loaded evenly: the algorithms behind
`lib.routing.strategies`.

Matching under a capacity, on scores [groups, tokens, experts]: every group is a batch of its own,
and all are solved at once on the device of the scores.  Places are decided here, weights in
`lib.routing.weighing`.  Ties go to the lower token number, then to the lower expert number, so that
every device gives the same answer.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numba
import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

PRIORITIES = ("position", "choice", "score")


def capacity(tokens: int, experts: int, k: int, gamma: float | str | Fraction) -> int:
    """Places of one expert, C = ⌈γ n k / E⌉, in exact arithmetic from the decimal digits of γ.

    In floats 1.1 · 400 · 2 / 16 is a little above 55 and would give 56.  Refused: γ that is not a
    number > 0.
    """
    try:
        exact = Fraction(str(gamma))
    except ValueError:
        exact = Fraction(0)
    if exact <= 0:
        raise ValueError(f"capacity: gamma = {gamma}: must be a finite number > 0")
    return math.ceil(exact * tokens * k / experts)


def enough(scores: Tensor, k: int, gamma: float | str | Fraction) -> int:
    """The capacity at which all k slots of every token find a place; refuses a γ < 1 that leaves
    too few.
    """
    tokens, experts = scores.shape[-2:]
    size = capacity(tokens, experts, k, gamma)
    if size * experts < tokens * k:
        raise ValueError(
            f"optimal: gamma = {gamma}: {tokens * k} slots have only {size * experts} places: "
            "must be ≥ 1"
        )
    return size


def checked(name: str, scores: Tensor, k: int) -> Tensor:
    """The scores as [groups, tokens, experts]; refuses an empty group, numbers that are not finite,
    and k > E.
    """
    if scores.dim() < 2 or not scores.is_floating_point() or scores.numel() == 0:
        raise ValueError(
            f"{name}: scores {list(scores.shape)}: must be floats [..., tokens ≥ 1, experts ≥ 1]"
        )
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"{name}: k = {k}: must be from 1 to {scores.shape[-1]}, the experts")
    if not bool(scores.isfinite().all()):
        raise ValueError(f"{name}: scores: must be finite numbers")
    return scores.reshape(-1, *scores.shape[-2:])


def best(scores: Tensor, k: int, dim: int = -1) -> Tensor:
    """The numbers of the k largest scores along `dim`, the largest first; ties in ascending order
    of number.
    """
    return scores.argsort(dim=dim, descending=True, stable=True).narrow(dim, 0, k)


def ranks(order: Tensor, dim: int) -> Tensor:
    """The place of every number in `order` along `dim`: the inverse permutation."""
    shape = [-1 if axis == dim % order.dim() else 1 for axis in range(order.dim())]
    place = torch.arange(order.shape[dim], device=order.device).view(shape).expand_as(order)
    return torch.empty_like(order).scatter_(dim, order, place)


def _in_line(expert: Tensor, experts: int) -> Tensor:
    """How many earlier entries of its row ask the same expert, for every entry of `expert` [groups,
    requests].
    """
    order = expert.argsort(dim=1, stable=True)
    count = torch.zeros(len(expert), experts, dtype=torch.int64, device=expert.device)
    count.scatter_add_(1, expert, torch.ones_like(expert))
    start = (count.cumsum(1) - count).gather(1, expert.gather(1, order))
    place = torch.arange(expert.shape[1], device=expert.device) - start
    return torch.empty_like(order).scatter_(1, order, place)


def drop(scores: Tensor, index: Tensor, size: int, priority: str) -> Tensor:
    """Which of the chosen slots `index` [groups, tokens, k] find a place: [groups, tokens, k] bool.

    An expert takes the first `size` that ask, in the order of `priority`: "position", token by
    token in time; "choice", all first choices by position, then all second ones (GShard, arXiv
    2006.16668, algorithm 1); "score", best first.
    """
    if priority not in PRIORITIES:
        raise ValueError(f"drop: priority = {priority!r}: must be one of {', '.join(PRIORITIES)}")
    experts = scores.shape[2]
    if priority == "choice":
        line = _in_line(index.transpose(1, 2).flatten(1), experts)
        return (line < size).view(index.transpose(1, 2).shape).transpose(1, 2)
    asked = index.flatten(1)
    if priority == "position":
        return (_in_line(asked, experts) < size).view(index.shape)
    order = scores.gather(2, index).flatten(1).argsort(dim=1, descending=True, stable=True)
    line = _in_line(asked.gather(1, order), experts)
    return (
        torch.zeros_like(asked, dtype=torch.bool).scatter_(1, order, line < size).view(index.shape)
    )


def refill(
    scores: Tensor, index: Tensor, kept: Tensor, size: int, extra: int, allowed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Slots that were refused try the token's next `extra` experts in turn: (index, kept), both
    [groups, tokens, k].

    Nobody gives way to them: an expert fills the room it has left, best score first.  allowed:
    [groups, tokens, experts] bool, the experts that a token may try, or None for all.
    """
    experts = scores.shape[2]
    closed = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, index, True)
    if allowed is not None:
        closed |= ~allowed
    open_scores = scores.masked_fill(closed, -torch.inf)
    further = best(open_scores, min(extra, experts))
    for turn in further.unbind(2):
        worth = open_scores.gather(2, turn[..., None])[..., 0].masked_fill(kept.all(2), -torch.inf)
        order = worth.argsort(dim=1, descending=True, stable=True)
        asked = turn.masked_fill(
            worth.isinf(), experts
        )  # the last queue is of those who do not ask
        taken = index.masked_fill(~kept, experts).flatten(1)
        room = torch.full((len(index), experts + 1), size, device=index.device)
        room.scatter_add_(1, taken, -torch.ones_like(taken))
        room[:, experts] = 0
        line = torch.empty_like(order).scatter_(
            1, order, _in_line(asked.gather(1, order), experts + 1)
        )
        placed = line < room.gather(1, asked)
        slot = kept.int().argmin(2, keepdim=True)
        index = index.scatter(
            2, slot, torch.where(placed[..., None], turn[..., None], index.gather(2, slot))
        )
        kept = kept.scatter(2, slot, kept.gather(2, slot) | placed[..., None])
    return index, kept


def reroute(scores: Tensor, k: int, size: int) -> tuple[Tensor, Tensor, int]:
    """Deferred acceptance: (index, kept) [groups, tokens, k], and the number of rounds.

    In each round every token that lost a place asks its k best experts among those that still admit
    it, and every expert keeps the best `size` who ask; whoever ranks behind them is turned away for
    good.  What an expert would take is thus one number, the worst rank it still admits; it never
    rises, since an expert once full stays full.  All but the last round lower it for some expert,
    so at most E (n − C) + 1 rounds are needed.  The outcome is the stable matching that is best for
    the tokens (Gale and Shapley 1962; Roth 1984 for k places).  A token that too many experts turn
    away keeps empty slots: these name the best experts that refused it.
    """
    groups, tokens, experts = scores.shape
    if size >= tokens:
        return best(scores, k), torch.ones_like(scores[..., :k], dtype=torch.bool), 1
    waiting = best(scores.transpose(1, 2).contiguous(), tokens)  # per expert the tokens, best first
    wish = best(scores, experts)  # per token the experts, best first
    number = torch.arange(groups, device=scores.device).view(groups, 1, 1)
    place = ranks(waiting, 2).transpose(1, 2).gather(2, wish).flatten(0, 1)
    queue = (wish + number * experts).flatten(0, 1)
    member = (waiting + number * tokens).flatten(0, 1)
    wish = wish.flatten(0, 1)
    admits = torch.full((groups * experts,), tokens, device=scores.device)
    held = torch.zeros(groups * experts, tokens, dtype=torch.bool, device=scores.device)
    asking, rounds = torch.arange(groups * tokens, device=scores.device), 0
    while len(asking):
        rounds += 1
        mine, rank = queue[asking], place[asking]
        want = _first(rank < admits[mine], k)
        mine, rank = mine[want], rank[want]
        held[mine, rank] = True
        asked = (
            torch.zeros_like(admits, dtype=torch.bool).index_fill_(0, mine, True).nonzero()[:, 0]
        )
        full = asked[held[asked].sum(1) > size]
        count = held[full].cumsum(1, dtype=torch.int32)
        lost = held[full] & (count > size)
        admits[full] = (count < size).sum(1) + 1
        held[full] &= ~lost
        asking = torch.unique(member[full][lost])
    got = _first(place < admits[queue], k)
    index, kept = wish[:, :k].clone(), got[:, :k].clone()
    moved = (~kept.all(1)).nonzero()[:, 0]
    slots = best(got[moved].to(torch.int8), k)
    index[moved], kept[moved] = wish[moved].gather(1, slots), got[moved].gather(1, slots)
    return index.view(groups, tokens, k), kept.view(groups, tokens, k), rounds


def _first(mask: Tensor, k: int) -> Tensor:
    """The first k True of every row."""
    return mask & (mask.cumsum(1, dtype=torch.int32) <= k)


def expert_choice(scores: Tensor, size: int) -> Tensor:
    """Every expert takes its best `size` tokens (all, if there are fewer): [groups, tokens,
    experts] bool.
    """
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(
        1, best(scores, min(size, scores.shape[1]), 1), True
    )


def optimal(scores: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
    """max Σ s x with Σ_e x = k, Σ_t x ≤ C, 0 ≤ x ≤ 1: (x [groups, tokens, experts] bool, prices
    [groups, experts]).

    The constraints are totally unimodular, so the vertex that HiGHS' simplex finds is whole.  The
    price of an expert, in units of score, is the multiplier of its capacity: what one more place
    there would add; 0 where places are free.  Solved on the CPU in float64, group by group (BASE
    layers, arXiv 2103.16716).
    """
    tokens, experts = scores.shape[1:]
    per_token = sparse.kron(sparse.identity(tokens), np.ones((1, experts)), format="csc")
    per_expert = sparse.kron(np.ones((1, tokens)), sparse.identity(experts), format="csc")
    chosen, prices = [], []
    for group in scores.detach().double().cpu().numpy():
        found = linprog(
            -group.ravel(),
            per_expert,
            np.full(experts, size),
            per_token,
            np.full(tokens, k),
            (0, 1),
            "highs-ds",
        )
        if found.status:
            raise ValueError(
                f"optimal: {tokens} tokens × {k}, {experts} experts × {size} places: "
                f"must have a solution: {found.message}"
            )
        chosen.append(found.x.reshape(tokens, experts) > 0.5)
        prices.append(-found.ineqlin.marginals)
    device = scores.device
    return torch.from_numpy(np.stack(chosen)).to(device), torch.from_numpy(np.stack(prices)).to(
        device
    )


def optimal_single(scores: Tensor, size: int) -> Tensor:
    """The same for k = 1, as an assignment problem with `size` copies of every expert: index
    [groups, tokens, 1].
    """
    columns = np.repeat(np.arange(scores.shape[2]), size)
    groups = scores.detach().double().cpu().numpy()
    index = [
        columns[linear_sum_assignment(group[:, columns], maximize=True)[1]] for group in groups
    ]
    return torch.from_numpy(np.stack(index)).to(scores.device)[..., None]


def sinkhorn(scores: Tensor, k: int, temperature: float, steps: int) -> Tensor:
    """Log of the plan exp(s/τ + a_t + b_e) whose rows sum to k and columns to n k / E, but for a_t:
    like `scores`.

    Alternating scaling in the log domain and in float64, `steps` times; no entry is held below 1
    (S-BASE, arXiv 2202.01169, section 3.2, for k = 1).
    """
    tokens, experts = scores.shape[1:]
    plan = scores.double() / temperature
    price = torch.zeros_like(plan[:, :1])
    for _ in range(steps):
        token = math.log(k) - (plan + price).logsumexp(2, keepdim=True)
        price = math.log(tokens * k / experts) - (plan + token).logsumexp(1, keepdim=True)
    return plan + price


@numba.njit(cache=True)
def _stream(among: np.ndarray, k: int, load: np.ndarray) -> np.ndarray:
    """Of the candidates `among` [tokens, m], best first, the k least loaded, token after token;
    `load` is moved.
    """
    chosen = np.empty((len(among), k), dtype=np.int64)
    for token in range(len(among)):
        taken = np.argsort(load[among[token]], kind="mergesort")[:k]
        for slot in range(k):
            chosen[token, slot] = among[token, taken[slot]]
            load[chosen[token, slot]] += 1
    return chosen


def least_loaded(among: Tensor, k: int, load: Tensor) -> Tensor:
    """The k least loaded of each token's candidates `among` [tokens, m]: [tokens, k]; adds to
    `load` [experts] int64.

    A stream: token t sees the load that tokens 0 … t − 1 made.  Of equally loaded ones the better
    candidate is taken. Runs on the CPU, as every token waits for the one before.
    """
    counts = load.cpu().numpy().copy()
    chosen = torch.from_numpy(_stream(among.cpu().numpy(), k, counts)).to(among.device)
    load.copy_(torch.from_numpy(counts))
    return chosen
