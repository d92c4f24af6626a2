"""Times of an exchange in the fluid model, where data flow like water through links of fixed capacity.

All flows start together, each after the latency of its path.  At every moment the rates are max-min fair: no flow can
be faster but at the cost of one that is no faster (Bertsekas & Gallager, Data Networks, 1992, section 6.5.2).  Hence
bottleneck_bound_s ≤ makespan_s ≤ envelope_s.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from lib.network.fabric import Array, Fabric, namespace

TIE = 1e-13  # flows that finish within this share of the time finish together
LATE = 0.1  # the coalescing window never shrinks below this share of the time passed


def _shaped(traffic: Array, fabric: Fabric) -> Array:
    """The traffic in floating point [..., devices, devices], its library's own; refuses other shapes."""
    if not hasattr(traffic, "device"):
        traffic = np.asarray(traffic, dtype=float)
    if isinstance(traffic, np.ndarray) and traffic.dtype.kind != "f":
        traffic = traffic.astype(float)
    if traffic.ndim < 2 or tuple(traffic.shape[-2:]) != (fabric.devices, fabric.devices):
        raise ValueError(
            f"fluid: traffic of shape {tuple(traffic.shape)}: must end in [{fabric.devices}, {fabric.devices}], "
            f"the devices of fabric {fabric.name}"
        )
    return traffic


def bottleneck_bound_s(traffic: Array, fabric: Fabric) -> Array:
    """Least time [...] in seconds in which any schedule can deliver traffic [..., devices, devices] in bytes.

    max over links of load / capacity + the least latency of a route through the link.  A lower bound on the max-min
    fair makespan; on a star no schedule does better and a perfect one attains it.  The traffic may be an array of any
    library (a GPU's too); so is the answer.  Refused: other shapes, negative or unfinite bytes, pairs without a route.
    """
    traffic = _shaped(traffic, fabric)
    xp = namespace(traffic)
    load = fabric.load_bytes(traffic)
    like = dict(dtype=load.dtype, device=load.device)
    head = xp.asarray(fabric.least_latency_s, **like) * (load > 0)
    return xp.amax(load / xp.asarray(fabric.capacity_bytes_per_s, **like) + head, -1)


def envelope_s(traffic: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Time [...] in seconds that no max-min fair exchange of traffic [..., devices, devices] exceeds.

    max over pairs that send of the sum of load / capacity along the route, plus its latency: while a flow lasts, some
    link of its route is full, and a link is full for at most load / capacity.
    """
    traffic = np.asarray(_shaped(traffic, fabric), dtype=float)
    full_s = fabric.load_bytes(traffic) / fabric.capacity_bytes_per_s
    times = np.where(fabric.paths >= 0, full_s[..., fabric.paths], 0.0).sum(-1) + fabric.path_latency_s
    return np.where((traffic > 0) & (fabric.paths[..., 0] >= 0), times, 0.0).max((-2, -1))


def completion_times_s(traffic: np.ndarray, fabric: Fabric, window: float = 0.0) -> np.ndarray:
    """When each flow of traffic [..., devices, devices] in bytes has arrived, in seconds, [..., devices, devices].

    0 for a pair that sends nothing and for what stays home.  window = 0: exact.  window > 0: completions within this
    share of the time left (to the bottleneck bound) are settled together, and the bytes that a link gained or lost by
    it are given back to the flows that it holds up.  Meant for makespans: window 0.003 stays within 1e-3 of the exact
    makespan on the families that the tests try, a single flow only within a few windows of the makespan.
    Refused: what bottleneck_bound_s refuses, a window outside [0, 1).
    """
    if not 0 <= window < 1:
        raise ValueError(f"fluid.completion_times_s: window = {window}: must be from 0 to below 1")
    traffic = np.asarray(_shaped(traffic, fabric), dtype=float)
    top = np.asarray(bottleneck_bound_s(traffic, fabric)).reshape(-1)
    times = np.zeros_like(traffic).reshape(-1, fabric.devices, fabric.devices)
    for sent, bound, answer in zip(traffic.reshape(times.shape), top, times, strict=True):
        i, j = np.nonzero(sent)
        i, j = i[i != j], j[i != j]
        answer[i, j] = _fill(sent[i, j], fabric.path_latency_s[i, j], fabric.paths[i, j], fabric.capacity_bytes_per_s,
                             float(window), bound)  # fmt: skip
    return times.reshape(traffic.shape)


def makespan_s(traffic: np.ndarray, fabric: Fabric, window: float = 0.0) -> np.ndarray:
    """When the last flow of traffic [..., devices, devices] in bytes has arrived, in seconds, [...].

    window: as in completion_times_s; an approximate answer is never below the bottleneck bound.
    """
    last = completion_times_s(traffic, fabric, window).max((-2, -1))
    return np.maximum(last, bottleneck_bound_s(traffic, fabric)) if window else last


def exchange_s(
    dispatch: np.ndarray, fabric: Fabric, combine_share: float = 1.0, time_s=bottleneck_bound_s
) -> np.ndarray:
    """Time [...] of a dispatch and then its combine (the transposed matrix times `combine_share`), in seconds.

    time_s: the network model, (traffic, fabric) → seconds.
    """
    return time_s(dispatch, fabric) + time_s(combine_share * np.swapaxes(dispatch, -1, -2), fabric)


# ---- progressive filling, event by event, compiled by numba

_jit = numba.njit(cache=True, error_model="numpy", nogil=True)
_inline = numba.njit(error_model="numpy", inline="always")  # a fifth faster than a call


class _Links(NamedTuple):
    """State per link; `member` lists the active flows of all links, those of link l in its first count[l] places from
    start[l].  room, waiting, key, heap: scratch of one filling."""

    capacity: np.ndarray
    start: np.ndarray
    count: np.ndarray
    member: np.ndarray
    level: np.ndarray  # rate of the flows that the link holds up; inf where it is not full
    first: np.ndarray  # when the first of those finishes
    room: np.ndarray  # capacity not yet taken
    waiting: np.ndarray  # flows still rising
    key: np.ndarray  # level at which it would be full if nothing else stopped its flows
    heap: np.ndarray


class _Flows(NamedTuple):
    """State per flow: its links, its places in their lists, its rate, when it would finish at that rate."""

    path: np.ndarray
    place: np.ndarray
    rate: np.ndarray
    finish: np.ndarray
    frozen: np.ndarray  # its rate stands in this filling
    gone: np.ndarray  # scratch: the flows of one completion


@_jit
def _sink(heap, key, size, at):
    """Restore the heap of links, least key on top, below position `at`."""
    link = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        if key[link] <= key[heap[child]]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = link


@_inline
def _remove(flow, links, path, place):
    """Take a flow off the lists of its links; the last of each list takes its place."""
    for hop, link in enumerate(path[flow]):
        if link >= 0:
            links.count[link] -= 1
            moved = links.member[links.start[link] + links.count[link]]
            links.member[place[flow, hop]] = moved
            for back, of in enumerate(path[moved]):
                if of == link:
                    place[moved, back] = place[flow, hop]


@_jit
def _add(flow, links, path, place):
    """Put a flow on the lists of its links."""
    for hop, link in enumerate(path[flow]):
        if link >= 0:
            place[flow, hop] = links.start[link] + links.count[link]
            links.member[place[flow, hop]] = flow
            links.count[link] += 1


@_inline
def _open(links, flows, base):
    """Set back to `base` the links that were not full there, and heap them by key; returns how many."""
    size = 0
    for link in range(len(links.capacity)):
        if links.count[link] == 0:
            links.first[link] = np.inf
        if links.count[link] == 0 or links.level[link] < base:
            continue
        room, waiting = links.capacity[link], 0
        for at in range(links.start[link], links.start[link] + links.count[link]):
            flow = links.member[at]
            flows.frozen[flow] = flows.rate[flow] < base
            if flows.frozen[flow]:
                room -= flows.rate[flow]
            else:
                waiting += 1
        links.level[link], links.first[link] = np.inf, np.inf
        links.room[link], links.waiting[link] = room, waiting
        if waiting:
            links.key[link] = room / waiting
            links.heap[size] = link
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(links.heap, links.key, size, at)
    return size


@_inline
def _freeze(link, links, flows, now, rate):
    """Stop the rising flows of a link at `rate`: it is full."""
    soonest, path, room, waiting, finish = np.inf, flows.path, links.room, links.waiting, flows.finish
    member, frozen, old = links.member, flows.frozen, flows.rate
    for at in range(links.start[link], links.start[link] + links.count[link]):
        flow = member[at]
        if frozen[flow]:
            continue
        frozen[flow] = True
        if old[flow] != rate:
            finish[flow] = now + (finish[flow] - now) * (old[flow] / rate)
            old[flow] = rate
        soonest = min(soonest, finish[flow])
        for hop in range(path.shape[1]):
            other = path[flow, hop]
            if other < 0:
                break
            room[other] -= rate
            waiting[other] -= 1
    links.level[link], links.first[link] = rate, soonest


@_jit
def _refill(links, flows, now, base):
    """Raise all flows not slower than `base` together until each is stopped by a full link.

    A completion at rate r leaves every link of a level below r as it was: filling starts again from there, not from 0.
    """
    heap, key, risen = links.heap, links.key, 0.0
    size = _open(links, flows, base)
    while size:
        link = heap[0]
        if links.waiting[link] > 0:
            share = links.room[link] / links.waiting[link]
            if share > key[link]:  # flows stopped elsewhere left more for the rest: keys only grow
                key[link] = share
                _sink(heap, key, size, 0)
                continue
            risen = max(risen, share)
            _freeze(link, links, flows, now, risen)
        size -= 1
        heap[0] = heap[size]
        _sink(heap, key, size, 0)


@_jit
def _complete(links, flows, now, end):
    """Collect in `gone` the flows that finish up to `end`, their rate set to 0; how many, and the least of their rates.

    What a link's finished flows sent too much or too little, had they stopped at `now`, the flows that it still holds
    up make good in equal parts.
    """
    size, base, rate, finish = 0, np.inf, flows.rate, flows.finish
    for link in range(len(links.count)):
        if links.first[link] > end:
            continue
        level, stay, credit = links.level[link], 0, 0.0
        members = links.member[links.start[link] : links.start[link] + links.count[link]]
        for flow in members:
            if rate[flow] == level and finish[flow] <= end:
                flows.gone[size] = flow
                size += 1
                credit += now - finish[flow]
                rate[flow] = 0.0
            elif rate[flow] == level:
                stay += 1
        base = min(base, level)
        if credit != 0.0 and stay:
            for flow in members:
                if rate[flow] == level:
                    finish[flow] = max(now, finish[flow] - credit / stay)
    return size, base


@_jit
def _state(path, capacity):
    """Empty lists for flows along `path` [flows, hops]."""
    flows, links = len(path), len(capacity)
    start = np.zeros(links + 1, np.int64)
    for link in path.ravel():
        if link >= 0:
            start[link + 1] += 1
    start = np.cumsum(start)
    whole, real = np.zeros(links, np.int64), np.full(links, np.inf)
    state = _Links(capacity, start, whole, np.empty(start[-1], np.int32), real, real.copy(), real.copy(), whole.copy(),
                   real.copy(), whole.copy())  # fmt: skip
    return state, _Flows(path, np.empty(path.shape, np.int32), np.ones(flows), np.empty(flows),
                         np.zeros(flows, np.bool_), np.empty(flows, np.int32))  # fmt: skip


@_jit
def _fill(bytes_, arrival, path, capacity, window, top):
    """Completion times [flows] in seconds of flows of `bytes_` that start at `arrival` along `path` [flows, hops]."""
    links, flows = _state(path, capacity)
    order = np.argsort(arrival)
    come, active = 0, 0
    while come < len(order) or active:
        due = links.first.min()
        if come < len(order) and arrival[order[come]] <= due:
            now, base = arrival[order[come]], 0.0
            links.level[:] = np.inf
            while come < len(order) and arrival[order[come]] <= now:
                flow = order[come]
                flows.finish[flow] = now + bytes_[flow]  # at its first rate of 1
                _add(flow, links, path, flows.place)
                come += 1
                active += 1
        else:
            end = due * (1 + TIE) + window * max(top - due, LATE * due)
            if come < len(order):
                end = min(end, arrival[order[come]])
            now = 0.5 * (due + end) if window else due
            size, base = _complete(links, flows, now, end)
            for flow in flows.gone[:size]:
                _remove(flow, links, path, flows.place)
            active -= size
        _refill(links, flows, now, base)
    return flows.finish
