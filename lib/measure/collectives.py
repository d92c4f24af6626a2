"""Measuring on the hardware at hand: skewed all-to-all, expert compute, and whole expert-parallel
layers.

    torchrun --standalone --nproc-per-node N -m lib.measure.collectives OUT

runs on N GPUs (NCCL), or on N processes of a CPU (gloo: a test of the code, its times mean
nothing).  Writes per experiment <OUT>/<device>-x<N>/<experiment>.csv.gz and, before it,
<experiment>.json, its provenance; each is whole or absent.  Times are of the device's own clock
(CUDA events) on every rank, from a barrier on the device to the end of the call; the host runs
ahead, so its launch times are not in them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["NCCL_NVLS_ENABLE"] = (
    "0"  # NVLink multicast can put GPUs that others share out of service
)

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from lib.measure import grid, records
from lib.network import cost

WARM, FEWEST, MOST, VISIT_S = 3, 8, 100, 0.03  # repetitions of a visit: about VISIT_S of work
ROUNDS = 8  # at most so many visits to each configuration, in an order drawn anew
SHARES = {"exchange": 0.2, "compute": 0.25, "layer": 0.55}  # of the budget
FLUSH_BYTES = 256 << 20  # written before each repetition, so that weights do not wait in the cache
Operation = Callable[
    [Callable[[], None]], object
]  # does the work, calling its argument at the end of each phase


# ---- the work ----


def exchange(
    send: torch.Tensor, receive: torch.Tensor, out: list[int] | None, into: list[int] | None
) -> None:
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
    shape: cost.Shape, numbers, device, dtype=torch.bfloat16, seed: int = 0
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


def plan(index: np.ndarray, home: np.ndarray, rank: int, devices: int, device) -> dict:
    """What one rank needs to send its share of the routes [tokens, k] to the experts' devices and
    back: orders and splits.

    Tokens lie on the ranks in equal consecutive stretches; rows are sent by device, then by expert.
    """
    tokens, k = len(index) // devices, index.shape[1]
    slot = np.empty(len(home), dtype=np.int64)
    for i in range(devices):
        slot[home == i] = np.arange((home == i).sum())
    own = index[rank * tokens : (rank + 1) * tokens].reshape(-1)
    order = np.argsort(home[own] * len(home) + slot[own], kind="stable")
    mine = np.flatnonzero(home == rank)
    sent = [index[s * tokens : (s + 1) * tokens].reshape(-1) for s in range(devices)]
    counts = np.stack(
        [np.bincount(part, minlength=len(home))[mine] for part in sent]
    )  # [source, local expert]
    arrived = np.concatenate([np.repeat(np.arange(len(mine)), row) for row in counts])
    sort = np.argsort(arrived, kind="stable")
    move = lambda x, kind=torch.int64: torch.as_tensor(
        np.ascontiguousarray(x), dtype=kind, device=device
    )
    return dict(
        rows=move(order // k),
        out=np.bincount(home[own], minlength=devices).tolist(),
        into=counts.sum(1).tolist(),
        sort=move(sort),
        back=move(np.argsort(sort)),
        counts=counts.sum(0).tolist(),
        ends=move(np.cumsum(counts.sum(0)), torch.int32),
        slots=move(np.argsort(order)),
        k=k,
    )


def layer(
    x: torch.Tensor,
    p: dict,
    up: torch.Tensor,
    down: torch.Tensor,
    share: torch.Tensor,
    mark=lambda: None,
) -> torch.Tensor:
    """An expert-parallel layer: dispatch, this rank's experts, combine.  x [tokens, H], share
    [tokens, k] → [tokens, H].

    The exchange of counts that precedes a dispatch in a server is left out: every rank knows the
    routes.
    """
    arrived = x.new_empty(sum(p["into"]), x.shape[1])
    exchange(x.index_select(0, p["rows"]), arrived, p["out"], p["into"])
    mark()
    done = experts(
        arrived.index_select(0, p["sort"]), up, down, p["counts"], p["ends"]
    ).index_select(0, p["back"])
    mark()
    home = x.new_empty(sum(p["out"]), x.shape[1])
    exchange(done, home, p["into"], p["out"])
    result = (home.index_select(0, p["slots"]).view(len(x), p["k"], -1) * share[..., None]).sum(1)
    mark()
    return result


# ---- the clock ----


class Clock:
    """Times an operation on every rank: repetitions [n, phases] in seconds, from a barrier to the
    end of each phase.
    """

    def __init__(self, device: torch.device, cold: bool) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self.flush = torch.empty(
            FLUSH_BYTES if cold and self.cuda else 1, dtype=torch.uint8, device=device
        )
        self.one = torch.zeros(1, device=device)

    def _once(self, work: Operation, wait: int = 0) -> list:
        self.flush.zero_()
        if wait:
            torch.cuda._sleep(wait)
        dist.all_reduce(self.one)
        marks = []

        def mark() -> None:
            marks.append(torch.cuda.Event(enable_timing=True) if self.cuda else time.perf_counter())
            if self.cuda:
                marks[-1].record()

        mark()
        work(mark)
        return marks

    def _sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _seconds(self, marks: list) -> list[float]:
        first, *rest = marks
        return [first.elapsed_time(m) / 1e3 if self.cuda else m - first for m in rest]

    def __call__(self, work: Operation) -> np.ndarray:
        self._once(work)
        self._sync()
        start = time.perf_counter()
        warm = [self._once(work) for _ in range(WARM)]
        host_s = (time.perf_counter() - start) / WARM
        self._sync()
        agreed = torch.tensor(
            [max(self._seconds(w)[-1] for w in warm), host_s],
            dtype=torch.float64,
            device=self.device,
        )
        dist.all_reduce(agreed, dist.ReduceOp.MAX)  # every rank must repeat equally often
        taken_s, host_s = agreed.tolist()
        count = int(np.clip(VISIT_S / max(taken_s, 1e-9), FEWEST, MOST if self.cuda else FEWEST))
        wait = (
            int(2e9 * min(1.5 * host_s, 2e-3)) if self.cuda else 0
        )  # device cycles in which the host gets ahead
        marks = [self._once(work, wait) for _ in range(count)]
        self._sync()
        return np.array([self._seconds(m) for m in marks])


def visits(
    configs: list[dict], work: Callable, clock: Clock, start: float, budget_s: float, seed: int
) -> list[list]:
    """Per configuration its visits, each [ranks, repetitions, phases] in seconds (on rank 0); every
    round in a new order.

    Ends after ROUNDS rounds or, between two visits, when the budget since `start` is spent on any
    rank; all end together.
    """
    rng, found = np.random.default_rng(seed), [[] for _ in configs]
    for _ in range(ROUNDS):
        for i in rng.permutation(len(configs)):
            own = clock(work(configs[i]))
            flat = torch.tensor(
                [time.time() - start, *own.reshape(-1)], dtype=torch.float64, device=clock.device
            )
            every = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
            dist.all_gather(every, flat)
            everyone = torch.stack(every).cpu().numpy()
            found[i].append(everyone[:, 1:].reshape(len(every), *own.shape))
            if everyone[:, 0].max() > budget_s:
                return found
    return found


# ---- the experiments: per configuration, its operation ----


def exchange_work(
    configs: list[dict], rank: int, devices: int, device: torch.device, seed: int
) -> Callable[[dict], Operation]:
    """The all-to-all of each configuration; buffers are shared."""
    most = max(c["own_bytes"] for c in configs) // 2 + 8
    send, receive = (torch.zeros(most, dtype=torch.bfloat16, device=device) for _ in range(2))

    def work(c: dict) -> Operation:
        rows = grid.skewed(c["skew"], c["size_bytes"] // c["row_bytes"], devices, seed)
        width = c["row_bytes"] // 2
        sent, got = rows[rank].tolist(), rows[:, rank].tolist()
        if not c["aligned"]:  # one number (2 bytes) more to the first rank and one less to the last
            shift = [1] + [0] * (devices - 2) + [-1] if devices > 1 else [0]
            sent, got = (
                [n * width + s for n, s in zip(sent, shift, strict=True)],
                [n * width + shift[rank] for n in got],
            )
            width = 1
        a, b = (
            send[: sum(sent) * width].view(-1, width),
            receive[: sum(got) * width].view(-1, width),
        )
        splits = (sent, got) if c["call"] == "split" else (None, None)
        return lambda mark: (exchange(a, b, *splits), mark())

    return work


def compute_work(
    configs: list[dict], device: torch.device, seed: int
) -> Callable[[dict], Operation]:
    """The experts of each configuration on this device alone."""
    made = {
        name: weights(grid.SHAPES[name], range(grid.SHAPES[name].experts), device, seed=seed)
        for name in {c["shape"] for c in configs}
    }

    def work(c: dict) -> Operation:
        shape = grid.SHAPES[c["shape"]]
        counts = grid.expert_rows(c["rows"], c["active"], c["spread"], shape.experts)
        ends = torch.as_tensor(np.cumsum(counts), dtype=torch.int32, device=device)
        rows = torch.randn(c["rows"], shape.hidden, device=device, dtype=torch.bfloat16)
        return lambda mark: (experts(rows, *made[c["shape"]], counts.tolist(), ends), mark())

    return work


def layer_work(
    configs: list[dict], rank: int, devices: int, device: torch.device, seed: int
) -> Callable[[dict], Operation]:
    """The expert-parallel layer of each configuration."""
    made = {}
    for name in {c["shape"] for c in configs}:
        shape = grid.SHAPES[name]
        tokens = max(c["tokens"] for c in configs if c["shape"] == name)
        x = torch.randn(tokens, shape.hidden, device=device, dtype=torch.bfloat16)
        share = torch.full((tokens, shape.k), 1 / shape.k, device=device, dtype=torch.bfloat16)
        made[name] = x, share, weights(shape, range(shape.experts // devices), device, seed=seed)

    def work(c: dict) -> Operation:
        x, share, matrices = made[c["shape"]]
        p = plan(c["index"], c["home"], rank, devices, device)
        return lambda mark: layer(x[: c["tokens"]], p, *matrices, share[: c["tokens"]], mark)

    return work


# ---- the run ----


def measure(given: argparse.Namespace, device: torch.device) -> None:
    """Run the experiments and write their files; expert compute alone where there is one device."""
    rank, devices = dist.get_rank(), dist.get_world_size()
    traces = [path.name for path in given.trace]
    routes = {path.stem: np.load(path)["expert_index"] for path in given.trace}
    configs = {
        "exchange": lambda: grid.exchanges(devices, given.tiny, given.seed),
        "compute": lambda: grid.computes(given.tiny),
        "layer": lambda: grid.layers(devices, routes, given.tiny, given.seed),
    }
    names = [name for name in given.experiments if devices > 1 or name == "compute"]
    label = (
        torch.cuda.get_device_name().lower().replace(" ", "-") if device.type == "cuda" else "cpu"
    )
    machine = f"{label}-x{devices}" + (f"-seed{given.seed}" if given.seed else "")
    for name in names:
        began, before, all_of = time.time(), records.card(), configs[name]()
        args = (all_of, rank, devices, device, given.seed)
        work = {
            "exchange": lambda a=args: exchange_work(*a),
            "layer": lambda a=args: layer_work(*a),
            "compute": lambda a=args: compute_work(a[0], device, given.seed),
        }[name]()
        budget_s = given.budget_s * SHARES[name] / sum(SHARES[n] for n in names)
        found = visits(all_of, work, Clock(device, name != "exchange"), began, budget_s, given.seed)
        if rank == 0:
            command = (
                f"torchrun --standalone --nproc-per-node {devices} -m lib.measure.collectives OUT "
            )
            command += f"--budget-s {given.budget_s:g} --seed {given.seed} --experiments {' '.join(given.experiments)}"
            command += (" --trace " + " ".join(traces) if traces else "") + (
                " --tiny" if given.tiny else ""
            )
            facts = dict(
                experiment=name,
                devices=devices,
                device=label,
                backend=dist.get_backend(),
                command=command,
                traces=traces,
                seed=given.seed,
                tiny=given.tiny,
                commit=os.environ.get("MOE_COMMIT", "unknown"),
                date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                seconds=round(time.time() - began, 1),
                declared=len(all_of),
                measured=sum(map(bool, found)),
                fewest_visits=min(map(len, found)),
                warm_up=WARM + 1,
                cache_flushed=name != "exchange",
                experts_path="grouped_mm"
                if grouped(torch.empty(0, dtype=torch.bfloat16, device=device))
                else "loop",
                versions=dict(
                    python=platform.python_version(),
                    torch=torch.__version__,
                    numpy=np.__version__,
                    pandas=importlib.metadata.version("pandas"),
                    cuda=torch.version.cuda,
                    nccl=".".join(map(str, torch.cuda.nccl.version()))
                    if device.type == "cuda"
                    else None,
                ),
                nccl_environment={
                    k: v for k, v in sorted(os.environ.items()) if k.startswith("NCCL_")
                },
                clocks_before=before,
                clocks_after=records.card(),
                topology=records.said("nvidia-smi", "topo", "-m"),
            )
            records.save(
                given.out / machine, name, records.table(all_of, found, records.PHASES[name]), facts
            )
            print(
                f"{name}: {facts['measured']} of {len(all_of)} configurations in {facts['seconds']:.0f} s",
                flush=True,
            )
        del work, args
        torch.cuda.empty_cache()


def main() -> int:
    """What torchrun starts on every rank; an error is one line, and the process ends at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--experiments", nargs="+", choices=list(records.PHASES), default=list(records.PHASES)
    )
    parser.add_argument("--budget-s", type=float, default=390)
    parser.add_argument("--trace", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    rank, cuda = int(os.environ.get("RANK", 0)), torch.cuda.is_available()
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    )
    try:
        if cuda:
            torch.cuda.set_device(device)
        store, rank, devices = next(dist.rendezvous("env://"))
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=devices,
            timeout=timedelta(seconds=45),
        )
        measure(given, device)
        store.set(
            f"end{rank}", ""
        )  # gloo fails where a rank leaves while another still reads its last message
        with contextlib.suppress(RuntimeError):
            store.wait([f"end{i}" for i in range(devices)], timedelta(seconds=45))
        dist.destroy_process_group()
    except Exception as error:  # whatever ends one rank must end all, in one line each
        print(
            f"collectives: rank {rank}: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
