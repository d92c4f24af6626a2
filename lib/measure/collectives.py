"""Measuring on the hardware at hand: skewed all-to-all, expert compute, and whole expert-parallel
layers.

    torchrun --standalone --nproc-per-node N -m lib.measure.collectives OUT

runs on N GPUs (NCCL), or on N processes of a CPU (gloo: a test of the code, its times mean
nothing).  Writes per experiment <OUT>/<device>-x<N>/<experiment>.csv.xz and, before it,
<experiment>.json, its provenance; each is whole or absent.  Times are of the device's own clock
(CUDA events) on every rank, from a barrier on the device to the end of the call; the host runs
ahead, so its launch times are not in them, but where a launch says so.  --sizes, --skews, --shapes,
--tokens, --levels, --rhos and --seed measure another grid than the declared one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

# NVLink multicast can put GPUs that others share out of service
os.environ["NCCL_NVLS_ENABLE"] = "0"

import numpy as np
import torch
import torch.distributed as dist

from lib import choices
from lib.measure import clock, grid, native, parallel, records
from lib.measure.clock import Operation

SHARES = {"exchange": 0.2, "compute": 0.25, "layer": 0.55, "native": 1.0}  # of the budget
USUAL = ("exchange", "compute", "layer")  # measured where no other experiment is named
Routes = dict[str, np.ndarray]  # recorded routes [layers, tokens, k] by name
Work = Callable[[dict], Operation]  # of a configuration the operation that is timed


# ---- the experiments: what is declared, and per configuration its operation ----


def exchange(
    given: argparse.Namespace, routes: Routes, device: torch.device
) -> tuple[list[dict], Work]:
    """All-to-alls; buffers are shared.  launch: "queued", the call waits on the device while the
    host runs ahead; "graph", the same replayed from a CUDA graph; "call", made from Python once the
    device is idle, so that its launch is in its time.  A CPU has no graph, and calls it.
    """
    rank, devices, seed = dist.get_rank(), dist.get_world_size(), given.seed
    configs = grid.exchanges(devices, given.grid)
    graphs: dict[tuple, torch.cuda.CUDAGraph] = {}
    most = max(c["own_bytes"] for c in configs) // 2 + 8
    send, receive = (torch.zeros(most, dtype=torch.bfloat16, device=device) for _ in range(2))

    def work(c: dict) -> Operation:
        rows = grid.skewed(c["skew"], c["size_bytes"] // c["row_bytes"], devices, seed)
        width = c["row_bytes"] // 2
        sent, got = rows[rank].tolist(), rows[:, rank].tolist()
        if not c["aligned"]:  # one number (2 bytes) more to the first rank and one less to the last
            shift = [1] + [0] * (devices - 2) + [-1] if devices > 1 else [0]
            sent = [n * width + s for n, s in zip(sent, shift, strict=True)]
            got = [n * width + shift[rank] for n in got]
            width = 1
        out = send[: sum(sent) * width].view(-1, width)
        into = receive[: sum(got) * width].view(-1, width)
        splits = (sent, got) if c["call"] == "split" else (None, None)

        def once() -> None:
            parallel.exchange(out, into, *splits)

        again = once
        if c["launch"] == "graph" and device.type == "cuda":
            key = c["size_bytes"], c["skew"]
            graphs[key] = graphs.get(key) or captured(once)
            again = graphs[key].replay

        def run(mark: Callable[[], None]) -> None:
            again()
            mark()

        return run

    return configs, work


def captured(once: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of what `once` starts; other threads (NCCL's watchdog) may go on meanwhile."""
    once()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        once()
    return graph


def compute(
    given: argparse.Namespace, routes: Routes, device: torch.device
) -> tuple[list[dict], Work]:
    """Experts on this device alone."""
    configs, made = grid.computes(given.tiny), {}
    for name in {c["shape"] for c in configs}:
        shape = grid.SHAPES[name]
        made[name] = parallel.weights(shape, range(shape.experts), device, seed=given.seed)

    def work(c: dict) -> Operation:
        shape = grid.SHAPES[c["shape"]]
        counts = grid.expert_rows(c["rows"], c["active"], c["spread"], shape.experts)
        ends = torch.as_tensor(np.cumsum(counts), dtype=torch.int32, device=device)
        rows = torch.randn(c["rows"], shape.hidden, device=device, dtype=torch.bfloat16)
        matrices, each = made[c["shape"]], counts.tolist()

        def run(mark: Callable[[], None]) -> None:
            parallel.experts(rows, *matrices, each, ends)
            mark()

        return run

    return configs, work


def layer(
    given: argparse.Namespace, routes: Routes, device: torch.device
) -> tuple[list[dict], Work]:
    """Expert-parallel layers."""
    rank, devices, seed = dist.get_rank(), dist.get_world_size(), given.seed
    configs, made = grid.layers(devices, routes, given.grid), {}
    for name in {c["shape"] for c in configs}:
        shape = grid.SHAPES[name]
        tokens = max(c["tokens"] for c in configs if c["shape"] == name)
        x = torch.randn(tokens, shape.hidden, device=device, dtype=torch.bfloat16)
        share = torch.full((tokens, shape.k), 1 / shape.k, device=device, dtype=torch.bfloat16)
        own = parallel.weights(shape, range(shape.experts // devices), device, seed=seed)
        made[name] = x, share, own

    def work(c: dict) -> Operation:
        x, share, own = made[c["shape"]]
        p = parallel.plan(c["index"], c["home"], rank, devices, device)
        return partial(parallel.layer, x[: c["tokens"]], p, *own, share[: c["tokens"]])

    return configs, work


def beside(
    given: argparse.Namespace, routes: Routes, device: torch.device
) -> tuple[list[dict], Work]:
    """Layers of the first shape by ours and by transformers; see native."""
    devices = dist.get_world_size()
    shape = grid.SHAPES[given.grid.shapes[0]]
    work = native.layers(shape, devices, device, given.seed)
    return native.configs(devices, given.grid), work


# of the grid what the command line may name
CROSSED = dict(sizes=int, skews=str, shapes=str, tokens=int, levels=float, rhos=float)
EXPERIMENTS = dict(exchange=exchange, compute=compute, layer=layer, native=beside)

# ---- the run ----


def measure(given: argparse.Namespace, device: torch.device) -> None:
    """Run the experiments and write their files; expert compute alone where there is one device."""
    routes = {path.stem: choices.unpacked(np.load(path))["expert_index"] for path in given.trace}
    alone = dist.get_world_size() == 1
    names = [name for name in given.experiments if name == "compute" or not alone]
    for name in names:
        budget_s = given.budget_s * SHARES[name] / sum(SHARES[n] for n in names)
        run(name, given, routes, device, budget_s)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def run(
    name: str, given: argparse.Namespace, routes: Routes, device: torch.device, budget_s: float
) -> None:
    """Run one experiment within its budget, and write its files on rank 0."""
    began, before = time.time(), records.card()
    configs, work = EXPERIMENTS[name](given, routes, device)
    timed = clock.Clock(device, cold=name != "exchange")
    found = clock.visits(configs, work, timed, began, budget_s, given.seed)
    if dist.get_rank() == 0:
        facts = dict(
            experiment=name,
            **origin(given, device),
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            seconds=round(time.time() - began, 1),
            declared=len(configs),
            measured=sum(map(bool, found)),
            fewest_visits=min(map(len, found)),
            cache_flushed=name != "exchange",
            clocks_before=before,
            clocks_after=records.card(),
        )
        seed = f"-seed{given.seed}" if given.seed else ""
        machine = f"{facts['device']}-x{facts['devices']}{seed}"
        results = records.table(configs, found, records.PHASES[name])
        records.save(given.out / machine, name, results, facts)
        told = f"{facts['measured']} of {len(configs)} configurations in {facts['seconds']:.0f} s"
        print(f"{name}: {told}", flush=True)


def origin(given: argparse.Namespace, device: torch.device) -> dict:
    """What the experiments of a run share of their provenance: the machine, what it runs on, and
    the command that measures it again.
    """
    cuda, devices = device.type == "cuda", dist.get_world_size()
    sample = torch.empty(0, dtype=torch.bfloat16, device=device)
    return dict(
        devices=devices,
        device=torch.cuda.get_device_name().lower().replace(" ", "-") if cuda else "cpu",
        backend=dist.get_backend(),
        command=command(given, devices),
        traces=[path.name for path in given.trace],
        seed=given.seed,
        tiny=given.tiny,
        commit=os.environ.get("MOE_COMMIT", "unknown"),
        warm_up=clock.WARM + 1,
        experts_path="grouped_mm" if parallel.grouped(sample) else "loop",
        versions=dict(
            python=platform.python_version(),
            torch=torch.__version__,
            numpy=np.__version__,
            pandas=importlib.metadata.version("pandas"),
            cuda=torch.version.cuda,
            transformers=importlib.metadata.version("transformers"),
            nccl=".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
        ),
        nccl_environment={k: v for k, v in sorted(os.environ.items()) if k.startswith("NCCL_")},
        topology=records.said("nvidia-smi", "topo", "-m"),
    )


def command(given: argparse.Namespace, devices: int) -> str:
    """The command that measures the same again; of files only the names."""
    words = ["torchrun --standalone --nproc-per-node", devices, "-m lib.measure.collectives OUT"]
    words += ["--budget-s", f"{given.budget_s:g}", "--seed", given.seed]
    words += ["--experiments", *given.experiments]
    for name in CROSSED:
        values = getattr(given, name)
        words += [f"--{name}", *values] if values else []
    words += ["--trace", *(path.name for path in given.trace)] if given.trace else []
    return " ".join(map(str, words + ["--tiny"] * given.tiny))


def arguments() -> argparse.Namespace:
    """What the command line gives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(records.PHASES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--experiments", nargs="+", choices=names, default=list(USUAL))
    parser.add_argument("--budget-s", type=float, default=390)
    parser.add_argument("--trace", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    for name, kind in CROSSED.items():
        parser.add_argument(f"--{name}", type=kind, nargs="+", help="instead of the declared ones")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> grid.Grid:
    """The grid that the command line names: the declared one, but for what is given.  Refused: what
    grid.check refuses.
    """
    own = {name: tuple(getattr(given, name)) for name in CROSSED if getattr(given, name)}
    made = dataclasses.replace(grid.TINY if given.tiny else grid.Grid(), seed=given.seed, **own)
    grid.check(made)
    return made


def main() -> int:
    """What torchrun starts on every rank; an error is one line, and the process ends at once."""
    given = arguments()
    rank, cuda = int(os.environ.get("RANK", 0)), torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", place) if cuda else torch.device("cpu")
    wait = timedelta(seconds=45)
    try:
        given.grid = chosen(given)
        if cuda:
            torch.cuda.set_device(device)
        store, rank, devices = next(dist.rendezvous("env://"))
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=devices, timeout=wait)
        measure(given, device)
        # gloo fails where a rank leaves while another still reads its last message
        store.set(f"end{rank}", "")
        with contextlib.suppress(RuntimeError):
            store.wait([f"end{i}" for i in range(devices)], wait)
        dist.destroy_process_group()
    except Exception as error:  # whatever ends one rank must end all, in one line each
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"collectives: rank {rank}: {said}", file=sys.stderr, flush=True)
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
