"""Progressive filling, event by event, compiled by numba: when each flow of an exchange ends.

At every moment all flows not yet stopped rise together until a link is full, which stops those that
pass it; a completion starts the filling again, from the level that it touches.
"""

from __future__ import annotations

from collections import namedtuple

import numba
import numpy as np

TIE = 1e-13  # flows that finish within this share of the time finish together
GAP = 1e-9  # levels closer than this share may be equal but for rounding
LATE = 0.1  # the coalescing window never shrinks below this share of the time passed

_jit = numba.njit(cache=True, error_model="numpy", nogil=True)
_inline = numba.njit(error_model="numpy", inline="always")  # a fifth faster than a call


# Per link l: its active flows, in the first count[l] places of `member` from start[l]; `level`, the
# rate of those that it holds up (inf: it is not full); `first`, when the first of them finishes.
# In one filling: the `room` not yet taken, the flows `waiting` to be stopped, `key`: the level at
# which it would be full if nothing else stopped any, `heap`: by key.
_Links = namedtuple("_Links", "capacity start count member level first room waiting key heap")
# Per flow: the links of its path, its place in each one's list, its rate, when it would finish at
# that rate, whether the filling has stopped it; `gone`: those of one completion.
_Flows = namedtuple("_Flows", "path place rate finish frozen gone")


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
    """Set back to `base` the links that were not full there, and heap them by key; returns how
    many.
    """
    size = 0
    links.first[links.count == 0] = np.inf
    for link in np.flatnonzero((links.count > 0) & (links.level >= base)):
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
    soonest, path, room, waiting, finish = (
        np.inf,
        flows.path,
        links.room,
        links.waiting,
        flows.finish,
    )
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
def _gap(level, base):
    """The least level that rounding could have parted from `base`, or from another such: ties must
    be filled together.
    """
    least = 0.0
    while least != base:
        least = base
        for link in range(len(level)):
            if least * (1 - GAP) <= level[link] < base:
                base = level[link]
    return base


@_jit
def _refill(links, flows, now, base):
    """Raise all flows not slower than `base` together until each is stopped by a full link.

    A completion at rate r leaves every link of a level below r as it was: filling starts again from
    there, not from 0.
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
def _complete(links, flows, end):
    """Collect in `gone` the flows that finish up to `end`, their rate set to 0: how many, the least
    of their rates, and the moment at which they may all be said to stop, the mean of their ends
    weighted by rate.
    """
    size, base, weight, moment = 0, np.inf, 0.0, 0.0
    links.room[:], links.waiting[:] = 0.0, 0
    for link in np.flatnonzero(links.first <= end):
        level = links.level[link]
        base = min(base, level)
        for flow in links.member[links.start[link] : links.start[link] + links.count[link]]:
            if flows.rate[flow] == level and flows.finish[flow] <= end:
                flows.gone[size] = flow
                size += 1
                flows.rate[flow] = 0.0
                links.room[link] += flows.finish[flow]
                links.waiting[link] += 1
        weight += links.waiting[link] * level
        moment += links.room[link] * level
    return size, base, moment / weight


@_jit
def _settle(links, flows, now, most):
    """What each link's finished flows sent too much or too little by stopping at `now`, the flows
    that it still holds up make good in equal parts, each at most what it sends in `most` seconds.
    """
    for link in range(len(links.count)):
        credit = links.waiting[link] * now - links.room[link]
        members = links.member[links.start[link] : links.start[link] + links.count[link]]
        stay = (flows.rate[members] == links.level[link]).sum() if links.waiting[link] else 0
        shift = max(-most, min(most, credit / stay)) if stay else 0.0
        if shift:
            for flow in members:
                if flows.rate[flow] == links.level[link]:
                    flows.finish[flow] = max(now, flows.finish[flow] - shift)


@_jit
def _state(path, capacity):
    """Empty lists for flows along `path` [flows, hops]."""
    flows, links = len(path), len(capacity)
    start, whole, real = (
        np.zeros(links + 1, np.int64),
        np.zeros((3, links), np.int64),
        np.full((4, links), np.inf),
    )
    for link in path.ravel():
        start[link + 1] += link >= 0
    start = np.cumsum(start)
    member, place, rate = (
        np.empty(start[-1], np.int32),
        np.empty(path.shape, np.int32),
        np.ones(flows),
    )
    return (
        _Links(
            capacity,
            start,
            whole[0],
            member,
            real[0],
            real[1],
            real[2],
            whole[1],
            real[3],
            whole[2],
        ),
        _Flows(
            path, place, rate, np.empty(flows), np.zeros(flows, np.bool_), np.empty(flows, np.int32)
        ),
    )


@_jit
def completed(bytes_, arrival, path, capacity, window, top):
    """Completion times [flows] in seconds of flows of `bytes_` that start at `arrival` along `path`
    [flows, hops].
    """
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
            size, base, now = _complete(links, flows, end)
            if window:
                _settle(links, flows, now, end - due)
            for flow in flows.gone[:size]:
                _remove(flow, links, path, flows.place)
            active -= size
        _refill(links, flows, now, _gap(links.level, base))
    return flows.finish
