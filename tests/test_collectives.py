"""The measuring code on gloo with 2 and 4 processes: right bytes, the right layer, whole files, an
end when a rank dies.
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

from lib import choices, stats
from lib.measure import calibrate, grid, records
from lib.network import cost

DELIVERED = """
import numpy as np, torch, torch.distributed as dist
from lib.measure import parallel
dist.init_process_group("gloo")
me, n = dist.get_rank(), dist.get_world_size()

def told(rows, source, target, seed):
    return torch.full((int(rows[source, target]), 3), 100.0 * seed + 10 * source + target)

for seed in range(5):
    rows = np.random.default_rng(seed).integers(0, 6, (n, n))
    send = torch.cat([told(rows, me, j, seed) for j in range(n)]).to(torch.bfloat16)
    receive = torch.empty(int(rows[:, me].sum()), 3, dtype=torch.bfloat16)
    parallel.exchange(send, receive, rows[me].tolist(), rows[:, me].tolist())
    wanted = torch.cat([told(rows, i, me, seed) for i in range(n)]).to(torch.bfloat16)
    assert torch.equal(receive, wanted), (me, seed)
send, receive = torch.arange(2.0 * n)[:, None] + 100 * me, torch.empty(2 * n, 1)
parallel.exchange(send, receive, None, None)
assert receive[:, 0].tolist() == [100 * i + 2 * me + j for i in range(n) for j in range(2)]
dist.barrier()
dist.destroy_process_group()  # else the last threads may end the process with an error
"""

LAYER = """
import numpy as np, torch, torch.distributed as dist
from torch.nn import functional
from lib.measure import parallel
from lib.network import cost
dist.init_process_group("gloo")
me, n = dist.get_rank(), dist.get_world_size()
shape, tokens = cost.Shape(8, 6, 8, 2), 12
rng = np.random.default_rng(0)

def routes(home):
    drawn = rng.permuted(np.tile(np.arange(8), (n * tokens, 1)), axis=1)[:, :2]
    return drawn, np.tile([home.argmin(), 7], (n * tokens, 1))

homes = np.arange(8) * n // 8, rng.permutation(np.arange(8) * n // 8)
for home, index in ((home, index) for home in homes for index in routes(home)):
    torch.manual_seed(1)
    x, share = torch.randn(n * tokens, 8), torch.rand(n * tokens, 2)
    up, down = parallel.weights(shape, range(8), "cpu", torch.float32)
    wanted = torch.zeros_like(x)
    for t in range(n * tokens):
        for j, e in enumerate(index[t]):
            gate, value = (up[e] @ x[t]).chunk(2)
            wanted[t] += share[t, j] * (down[e] @ (functional.silu(gate) * value))
    own = parallel.weights(shape, np.flatnonzero(home == me), "cpu", torch.float32)
    part = slice(me * tokens, (me + 1) * tokens)
    plan = parallel.plan(index, home, me, n, "cpu")
    got = parallel.layer(x[part], plan, *own, share[part])
    torch.testing.assert_close(got, wanted[part], rtol=1e-5, atol=1e-6)
dist.barrier()
dist.destroy_process_group()  # else the last threads may end the process with an error
"""

NATIVE = """
import numpy as np, torch, torch.distributed as dist
from lib.measure import grid, native
dist.init_process_group("gloo")
n, shape = dist.get_world_size(), grid.SHAPES["tiny"]
torch.manual_seed(0)
spread = native.block(shape, torch.device("cpu"))
torch.manual_seed(0)
alone = native.whole(shape).model.layers[0].mlp.eval()
for level in (0.0, *native.LEVELS):
    index = native.routed(shape, level, 8 * n, seed=1)
    x = native.steered(shape, index, seed=1)
    with torch.inference_mode():
        assert (alone.gate(x)[2].numpy() == index).all(), level
        torch.testing.assert_close(spread(x[None]), alone(x[None]), rtol=0.05, atol=1e-3)
dist.barrier()
dist.destroy_process_group()  # else the last threads may end the process with an error
"""


def start(devices, *arguments):
    """One process per rank, as torchrun starts them, without its own lines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(devices),
        "CUDA_VISIBLE_DEVICES": "",
        "MOE_COMMIT": "c0ffee",
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**shared, "RANK": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(devices)
    ]


@pytest.mark.parametrize(
    ("program", "devices"),
    [(DELIVERED, 4), (LAYER, 4), (NATIVE, 2)],
    ids=["bytes", "our layer", "transformers' layer"],
)
def test_on_gloo(program, devices):
    for process in start(devices, "-c", program):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    traces = [str(path) for path in sorted((ROOT / "data/reference/01").glob("trace_*.npz"))]
    devices, seed = 2, 1
    arguments = (
        "-m",
        "lib.measure.collectives",
        str(out),
        "--tiny",
        "--budget-s",
        "8",
        "--seed",
        str(seed),
        "--trace",
        *traces,
    )
    for process in start(devices, *arguments):
        said, errors = process.communicate(timeout=300)
        assert process.returncode == 0, said + errors[-2000:]
    return devices, f"cpu-x{devices}-seed{seed}", out


def test_a_run_is_whole(measured):
    devices, machine, out = measured
    tables, facts, _ = records.load(out)
    assert set(tables) == {"exchange", "compute", "layer"} and not list(out.rglob(".part-*"))
    for name, table in tables.items():
        known = facts[f"{machine}/{name}"]
        assert (
            known["commit"] == "c0ffee"
            and known["devices"] == devices
            and known["backend"] == "gloo"
        )
        assert "/" not in known["command"] and set(table["rank"]) == {-1, *range(devices)}
        quantiles = table[
            [
                "min_us",
                "p10_us",
                "p25_us",
                "p50_us",
                "p75_us",
                "p90_us",
                "p95_us",
                "p99_us",
                "max_us",
            ]
        ].to_numpy()
        assert (np.diff(quantiles, axis=1) >= 0).all() and (quantiles >= 0).all()
        assert {"fit", "held_out"} >= set(table.part) and (
            table.groupby("phase").size() == len(table) / len(records.PHASES[name])
        ).all()
    assert set(tables["compute"].spread) == {"even", "hot"}
    slowest = tables["layer"][(tables["layer"]["rank"] == -1) & (tables["layer"].phase == "total")]
    assert len(slowest) and (slowest.rank_rows >= slowest.tokens * 2 * slowest.rho * 0.99).all()


def test_a_machine_met_again_is_named_so_and_what_is_half_there_is_refused(measured, tmp_path):
    _, machine, out = measured
    shutil.copytree(out / machine, tmp_path / "a" / machine)
    tables, facts, _ = records.load(out, tmp_path / "a")
    assert (
        set(tables["layer"].machine) == {machine, f"{machine}, again"}
        and len(facts) == 6
        and calibrate.base(tables) == machine
    )
    (tmp_path / "a" / machine / "layer.json").unlink()
    with pytest.raises(ValueError, match="layer.csv.xz: must be"):
        records.load(tmp_path / "a")
    assert records.load(tmp_path / "none") == ({}, {}, [])
    assert "1 GPUs, where at least 2" in records.run(tmp_path, 1, 1, [])


def test_a_rank_that_dies_ends_the_others_with_one_line(tmp_path):
    first, second = start(
        2, "-m", "lib.measure.collectives", str(tmp_path), "--tiny", "--budget-s", "200"
    )
    said = first.stdout.readline()
    assert said.startswith("exchange:")
    second.kill()
    second.communicate()
    began = time.time()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 1 and time.time() - began < 60
    assert [line for line in errors.splitlines() if "collectives:" in line] == [
        errors.splitlines()[-1]
    ]
    assert not list(tmp_path.rglob(".part-*")) and not list(tmp_path.rglob("layer.csv.xz"))


def test_times_are_described_by_hand():
    """Two ranks, two visits of one repetition, two phases that end at these µs, and the total."""
    visits = [1e-6 * np.array([[[1, 3]], [[2, 7]]]), 1e-6 * np.array([[[3, 5]], [[2, 4]]])]
    configs = [dict(shape="tiny", index=0, rank_rows=[5, 3]), dict(shape="unseen")]
    rows = records.table(configs, [visits, []], ["first", "second", "total"])
    assert len(rows) == 9 and set(rows["shape"]) == {"tiny"} and "index" not in rows
    assert set(rows.visits) == {2} and set(rows.n) == {2}
    found = rows.set_index(["rank", "phase"])[["min_us", "p50_us", "max_us"]].T
    assert found[0, "first"].tolist() == pytest.approx([1, 2, 3])
    assert found[0, "second"].tolist() == pytest.approx([2, 2, 2])
    assert found[1, "total"].tolist() == pytest.approx([4, 5.5, 7])
    assert found[-1, "first"].tolist() == pytest.approx([2, 2.5, 3])  # rank 1, then rank 0
    assert found[-1, "total"].tolist() == pytest.approx([5, 6, 7])
    rows = rows.set_index(["rank", "phase"])
    assert rows.between_visits[-1, "total"] == pytest.approx((7 - 5) / 6)
    assert rows.rank_rows[:, "total"].to_dict() == {0: 5, 1: 3, -1: 5}


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_skews_by_definition(devices):
    for skew in grid.SKEWS:
        rows = grid.skewed(skew, 64, devices)
        assert (rows >= 0).all() and rows.sum() == 64 * (1 if skew == "pair" else devices)
    assert (grid.skewed("even", 64, devices) == 64 // devices).all()
    assert (grid.skewed("one", 64, devices)[:, 0] == 64).all()
    assert (
        np.trace(grid.skewed("shift", 64, devices)) == 0
        and np.trace(grid.skewed("home", 64, devices)) == 64 * devices
    )
    assert cost.features(grid.skewed("one", 64, devices)) == dict(
        wire_bytes=64 * (devices - 1), back_bytes=0, own_bytes=64 * devices, messages=devices - 1
    )
    with pytest.raises(ValueError, match="skew = 'odd'"):
        grid.skewed("odd", 64, devices)


@pytest.mark.parametrize("devices", [2, 4])
def test_rho_is_moved_while_gini_stays(devices):
    found = grid.layers(devices, {}, grid.Grid(tokens=(1024,)))
    found = [c for c in found if c["placement"] == "aimed"]
    for c in found:
        load = np.bincount(c["index"].reshape(-1), minlength=len(c["home"]))
        held = np.bincount(c["home"][c["index"].reshape(-1)], minlength=devices)
        assert c["gini"] == pytest.approx(float(stats.gini(load)), abs=1e-4)
        assert (
            abs(held.max() / held.mean() - c["rho_wanted"]) <= 0.05
            and held.tolist() == c["rank_rows"]
        )
        assert (np.bincount(c["home"]) == len(c["home"]) // devices).all()
    by = {}
    for c in found:
        by.setdefault((c["shape"], c["level"], c["seed"]), set()).add(c["rho_wanted"])
    assert sum(len(rhos) >= 3 for rhos in by.values()) >= 8


def test_a_grid_of_ones_own():
    own = grid.Grid(shapes=("olmoe",), tokens=(24,), levels=(0.2, 0.6), rhos=(1.0, 1.45), seed=5)
    found = grid.layers(2, {}, own)
    assert {c["part"] for c in found} == {"held_out"} and {c["tokens"] for c in found} == {24}
    (even,) = (c for c in found if c["routes"] == "even")
    assert even["rho"] == 1 and set(np.bincount(even["index"].reshape(-1))) == {6}
    for c in (c for c in found if c["placement"] == "sorted"):
        load = np.bincount(c["index"].reshape(-1), minlength=64)
        assert load[c["home"] == 0].min() >= load[c["home"] == 1].max()
    exchanges = grid.exchanges(2, grid.Grid(sizes=(6144, 1 << 21), skews=("even", "0.15", "0.9")))
    assert {c["part"] for c in exchanges} == {"held_out"}
    ways = {(c["skew"], c["launch"]) for c in exchanges}
    assert ways == {(s, w) for s in ("even", "0.9") for w in grid.LAUNCHES} | {("0.15", "queued")}


@pytest.mark.parametrize(
    ("name", "value"),
    [("sizes", 1000), ("skews", "1.5"), ("shapes", "trace"), ("tokens", 0), ("levels", 1.0)],
)
def test_a_grid_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"grid.check: {name}: {value!r}: must be"):
        grid.check(grid.Grid(**{name: (value,)}))


def test_recorded_routes_are_layers_too():
    with np.load(ROOT / "data/reference/01/trace_with.npz") as file:
        routes = choices.unpacked(file)["expert_index"]
    found = grid.recorded(4, {"trace_with": routes, "other": routes[:, :, :1]}, (64, 256))
    assert len(found) == 2 * len(routes) and {c["part"] for c in found} == {"held_out"}
    assert all(
        rows <= tiles < rows + 128 * active
        for c in found
        for rows, active, tiles in zip(
            c["rank_rows"], c["rank_active"], c["rank_tile_rows"], strict=True
        )
    )
    assert all(
        sum(c["rank_rows"]) == 4 * c["tokens"] * 2 and c["index"].shape == (4 * c["tokens"], 2)
        for c in found
    )


def test_rows_of_experts():
    assert (
        grid.expert_rows(10, 4, "even", 6).sum() == 10
        and (grid.expert_rows(10, 4, "even", 6)[4:] == 0).all()
    )
    assert grid.expert_rows(10, 3, "hot", 3).tolist() == [5, 2, 3]
    assert grid.expert_rows(1, 1, "even", 2).tolist() == [1, 0]
    assert cost.tiled(np.array([0, 1, 128, 129])) == (0 + 1 + 1 + 2) * 128


def test_parts_hold_each_other_out():
    sizes = {c["size_bytes"] for c in grid.exchanges(2) if c["part"] == "fit"}
    assert min(sizes) == 4096 and all(
        c["part"] == "held_out" for c in grid.exchanges(2) if c["size_bytes"] not in sizes
    )
    assert all(
        c["part"] == "held_out"
        for c in grid.layers(2, {}, grid.Grid(tokens=grid.BATCHES[:4]))
        if c["shape"] == "qwen3" or c["tokens"] not in grid.FIT_BATCHES
    )
    assert {c["size_bytes"] for c in grid.exchanges(8)} == {4096 << i for i in range(18)}
