"""How fast the network engine is, beside SimGrid and beside plain sums, in one run; not collected
by a plain test run: ``make bench``, on the GPU too where there is one.  Ratios are of CPU seconds,
ours and the judge's, in the same run. With ENGINE=FOLDER the costs are left as FOLDER/cost.csv, a
row per engine, fabric, family of matrices and size.
"""

import os
import platform
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from judge import NETS, families

from lib import provenance
from lib.network import fabric, fluid

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


COSTS: list[dict] = []


def note(engine: str, net: str, family: str, devices: int, seconds: float, on: str = "CPU") -> None:
    """One matrix's cost: CPU seconds, on a GPU seconds."""
    COSTS.append(
        dict(
            engine=engine,
            fabric=net,
            family=family,
            devices=devices,
            seconds=float(f"{seconds:.4g}"),
            on=on,
        )
    )


@pytest.fixture(scope="module", autouse=True)
def recorded():
    yield
    if (folder := os.environ.get("ENGINE")) and COSTS:
        path = Path(folder) / "cost.csv"
        facts = dict(
            commit=provenance.commit()[:12],
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            torch=torch.__version__,
            python=platform.python_version(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(COSTS).assign(**facts).to_csv(path, index=False)


def cpu_s(call, repeats: int = 5) -> float:
    """The least CPU seconds of a call."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize("net", sorted(NETS))
def test_against_simgrid(benchmark, simgrid, net):
    """128 devices, every family of matrices: exact, and within 1e-3 of it."""
    made, ratios = NETS[net](128), {}
    fluid.makespan_s(np.ones((128, 128)), made)  # compiles, lists the routes
    matrices = families(128, np.random.default_rng(128))
    for name, sent in matrices.items():
        judged, theirs = simgrid(sent, made)
        exact, near = (
            cpu_s(partial(fluid.makespan_s, sent, made, window)) for window in (0.0, 0.003)
        )
        error = fluid.makespan_s(sent, made, 0.003) / judged.max() - 1
        assert (
            fluid.makespan_s(sent, made) == pytest.approx(judged.max(), rel=1e-9)
            and abs(error) <= 1e-3
        )
        ratios[name] = theirs / exact, theirs / near
        for engine, seconds in {"SimGrid": theirs, "exact": exact, "approximate": near}.items():
            note(engine, net, name, 128, seconds)
        print(
            f"\n{net}, {name}: SimGrid {theirs:.2f} s, "
            f"exact {exact:.3f} s ({theirs / exact:.0f} ×), "
            f"approximate {near:.4f} s ({theirs / near:.0f} ×, error {error:.1e})",
            end="",
        )
    worst = [min(ratios, key=lambda name, i=i: ratios[name][i]) for i in (0, 1)]
    print(
        f"\n{net}: drawn routes {ratios['moe'][0]:.0f} × exact, "
        f"{ratios['moe'][1]:.0f} × approximate; worst family "
        f"{ratios[worst[0]][0]:.0f} × ({worst[0]}), {ratios[worst[1]][1]:.0f} × ({worst[1]})"
    )
    benchmark.extra_info |= {
        name: [round(ratio, 1) for ratio in pair] for name, pair in ratios.items()
    }
    benchmark.pedantic(fluid.makespan_s, (matrices["moe"], made), rounds=5)


@pytest.mark.parametrize("net", ["star", "tree", "rail"])
def test_bound_of_a_large_cluster(benchmark, net):
    """4,096 devices, beside the two sums over the matrix that no bound can do without."""
    sent = np.random.default_rng(0).random((4096, 4096))
    made = {
        "star": fabric.star,
        "tree": partial(fabric.nodes, per_node=8),
        "rail": partial(fabric.rail, per_node=8),
    }[net](4096)
    benchmark.pedantic(fluid.bottleneck_bound_s, (sent, made), rounds=7, warmup_rounds=1)
    bound, sums = (
        cpu_s(partial(fluid.bottleneck_bound_s, sent, made), 7),
        cpu_s(lambda: (sent.sum(0), sent.sum(1)), 7),
    )
    benchmark.extra_info["over two sums"] = round(bound / sums, 2)
    note("bound", net, "uniform", 4096, bound)
    note("two sums", net, "uniform", 4096, sums)
    print(
        f"\n{net}, 4,096 devices: bound {1e3 * bound:.1f} ms, two sums {1e3 * sums:.1f} ms, "
        f"ratio {bound / sums:.2f}"
    )


@pytest.mark.parametrize("device", DEVICES)
def test_many_small_matrices(benchmark, device):
    """Bounds of 64 devices, in one call."""
    number = 2**14 if device == "cuda" else 2**9
    sent, made = torch.rand(number, 64, 64, device=device), fabric.star(64)

    def bounds():
        fluid.bottleneck_bound_s(sent, made)
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(bounds, rounds=7, warmup_rounds=2)
    note(
        "many bounds",
        "star",
        "uniform",
        64,
        benchmark.stats["min"] / number,
        "CPU" if device == "cpu" else torch.cuda.get_device_name(),
    )
    print(f"\n{device}: {number / benchmark.stats['min']:.3g} matrices of 64 devices a second")


@pytest.mark.parametrize("devices", [64, 256, 512])  # 128 stands above
def test_exact_time_against_size(benchmark, devices):
    sent, made = families(devices, np.random.default_rng(0))["moe"], fabric.star(devices)
    fluid.makespan_s(sent, made, 0.01)
    benchmark.pedantic(fluid.makespan_s, (sent, made), rounds=3)
    near = cpu_s(partial(fluid.makespan_s, sent, made, 0.003), 2)
    note("exact", "star", "moe", devices, cpu_s(partial(fluid.makespan_s, sent, made), 2))
    note("approximate", "star", "moe", devices, near)
    print(f"\n{devices} devices: exact {benchmark.stats['min']:.3f} s, approximate {near:.4f} s")


@pytest.mark.parametrize("devices", [64, 256, 1024])
def test_bound_against_size(devices):
    sent, made = np.random.default_rng(0).random((devices, devices)), fabric.star(devices)
    fluid.bottleneck_bound_s(sent, made)
    note(
        "bound",
        "star",
        "uniform",
        devices,
        cpu_s(lambda: [fluid.bottleneck_bound_s(sent, made) for _ in range(20)]) / 20,
    )
    note(
        "two sums",
        "star",
        "uniform",
        devices,
        cpu_s(lambda: [(sent.sum(0), sent.sum(1)) for _ in range(20)]) / 20,
    )
