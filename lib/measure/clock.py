"""Times of an operation that all ranks do together, by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

WARM, FEWEST, MOST, VISIT_S = 3, 8, 100, 0.03  # repetitions of a visit: about VISIT_S of work
ROUNDS = 8  # at most so many visits to each configuration, in an order drawn anew
FLUSH_BYTES = 256 << 20  # written before each repetition, so that weights do not wait in the cache
# does the work, calling its argument at the end of each phase
Operation = Callable[[Callable[[], None]], object]


class Clock:
    """Times an operation on every rank: repetitions [n, phases] in seconds, from a barrier to the
    end of each phase.

    cold: whether the cache is emptied before each repetition.
    """

    def __init__(self, device: torch.device, cold: bool) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        size = FLUSH_BYTES if cold and self.cuda else 1
        self.flush = torch.empty(size, dtype=torch.uint8, device=device)
        self.one = torch.zeros(1, device=device)

    def __call__(self, work: Operation, ahead: bool = True) -> np.ndarray:
        """ahead: whether the host runs ahead; else it starts each repetition on an idle device."""
        self._once(work)
        self._sync()
        start = time.perf_counter()
        warm = [self._once(work) for _ in range(WARM)]
        host_s = (time.perf_counter() - start) / WARM
        self._sync()
        longest_s = max(self._seconds(marks)[-1] for marks in warm)
        agreed = torch.tensor([longest_s, host_s], dtype=torch.float64, device=self.device)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)  # every rank must repeat equally often
        taken_s, host_s = agreed.tolist()
        count = int(np.clip(VISIT_S / max(taken_s, 1e-9), FEWEST, MOST if self.cuda else FEWEST))
        # device cycles in which the host gets ahead
        wait = int(2e9 * min(1.5 * host_s, 2e-3)) if self.cuda and ahead else 0
        seen = [self._once(work, wait, idle=not ahead) for _ in range(count)]
        self._sync()
        return np.array([self._seconds(marks) for marks in seen])

    def _once(self, work: Operation, wait: int = 0, idle: bool = False) -> list:
        """Do the work once: the moments of its beginning and of the end of each phase; idle: from
        an idle device on.
        """
        self.flush.zero_()
        if wait:
            torch.cuda._sleep(wait)
        dist.all_reduce(self.one)
        if idle:
            self._sync()
        marks: list[torch.cuda.Event | float] = []

        def mark() -> None:
            marks.append(self._now())

        mark()
        work(mark)
        return marks

    def _now(self) -> torch.cuda.Event | float:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _seconds(self, marks: list) -> list[float]:
        first, *rest = marks
        return [first.elapsed_time(m) / 1e3 if self.cuda else m - first for m in rest]


def visits(
    configs: list[dict],
    work: Callable[[dict], Operation],
    clock: Clock,
    start: float,
    budget_s: float,
    seed: int,
) -> list[list[np.ndarray]]:
    """Per configuration its visits, each [ranks, repetitions, phases] in seconds (on rank 0); every
    round in a new order.

    Ends after ROUNDS rounds or, between two visits, when the budget since `start` is spent on any
    rank; all end together.
    """
    rng = np.random.default_rng(seed)
    found: list[list[np.ndarray]] = [[] for _ in configs]
    for _ in range(ROUNDS):
        for i in rng.permutation(len(configs)):
            own = clock(work(configs[i]), ahead=configs[i].get("launch") != "call")
            told = [time.time() - start, *own.reshape(-1)]
            flat = torch.tensor(told, dtype=torch.float64, device=clock.device)
            every = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
            dist.all_gather(every, flat)
            everyone = torch.stack(every).cpu().numpy()
            found[i].append(everyone[:, 1:].reshape(len(every), *own.shape))
            if everyone[:, 0].max() > budget_s:
                return found
    return found
