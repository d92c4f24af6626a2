"""In which order chapters are begun, so that the last of them ends soonest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

from lib.paper import chapters


def soonest(missing: Sequence[str], jobs: int) -> list[str]:
    """`missing` as they are to be begun, `jobs` at a time, by the seconds that each may take: the
    chapter that is read first is begun first, the others in the order whose end is earliest.
    """
    orders = ([missing[0], *others] for others in permutations(missing[1:]))
    return min(orders, key=lambda order: end(order, jobs))


def end(order: Sequence[str], jobs: int) -> float:
    """Seconds until all chapters are done, where a free place begins the first of `order` of whose
    needs none is under way.
    """
    free, done, left = [0.0] * jobs, dict.fromkeys(order, math.inf), list(order)
    while left:
        now = min(free)
        ready = (c for c in left if all(done.get(b, 0.0) <= now for b in chapters.before(c)))
        if chapter := next(ready, None):
            done[chapter] = now + chapters.budget_s(chapter)
            left.remove(chapter)
            free[free.index(now)] = done[chapter]
        else:
            free[free.index(now)] = min(time for time in done.values() if time > now)
    return max(done.values())
