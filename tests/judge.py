"""SimGrid as a judge of the fluid model: families of matrices, fabrics, and its program, compiled
where it is installed.

python tests/judge.py FILE    writes the agreement on every fabric, size and family as a table, for
the validation chapter

python tests/judge.py costs FILE    writes what drawn routes over a star cost, theirs and ours one
after the other, a row per number of devices and draw, after each draw; the largest take an hour
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lib import provenance
from lib.network import exchange, fabric, fluid, links

SIZES = (8, 32, 64)
DRAWS = {32: 8, 64: 8, 128: 8, 256: 3, 512: 1}  # of drawn routes whose cost is told, by devices
REPEATS = 5  # of our engine, whose median counts: a call takes milliseconds


def drawn(devices: int, seed: int = 0) -> np.ndarray:
    """Bytes [devices, devices] of drawn routes: 64 tokens and four experts a device, top-8."""
    study = exchange.Study(
        experts=4 * devices,
        k=8,
        tokens=64 * devices,
        devices=devices,
        bytes_per_token=7168,
        seeds=1,
        seed=seed,
    )
    return exchange.matrices(study, 0.5)[0]


def families(devices: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Matrices [devices, devices] of whole bytes, one per family."""
    zipf = rng.permutation(1 / np.arange(1, devices + 1))
    hot = np.full((devices, devices), 1e5)
    hot[:, rng.integers(devices)] *= devices
    return {
        "balanced": np.full((devices, devices), 1e6),
        "zipf": np.round(1e8 * np.outer(rng.permutation(zipf), zipf)) + 1,
        "hot": hot,
        "moe": drawn(devices),
        "lognormal": np.round(rng.lognormal(13, 1.5, (devices, devices))) + 1,
    }


NETS = {
    "star": lambda devices: fabric.star(devices, 450e9),
    "oversubscribed": lambda devices: fabric.nodes(
        devices, 8 if devices > 8 else 4, 450e9, 50e9, oversubscription=3
    ),
    "rail": lambda devices: fabric.rail(devices, 8 if devices > 8 else 4, 450e9, 50e9),
}


def compiled(folder: Path) -> Path:
    """The program of simgrid_judge.cpp, built in `folder`; skips where there is no compiler or no
    SimGrid.
    """
    if shutil.which("g++") is None:
        pytest.skip("SimGrid: no g++ (apt-get install g++ libsimgrid-dev)")
    source, program = Path(__file__).parent / "simgrid_judge.cpp", folder / "judge"
    built = subprocess.run(
        ["g++", "-O2", "-o", program, source, "-lsimgrid"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "simgrid/s4u.hpp" in built.stderr or "-lsimgrid" in built.stderr:
        pytest.skip("SimGrid is not installed (apt-get install libsimgrid-dev)")
    assert built.returncode == 0, built.stderr
    return program


def judge(program: Path, sent: np.ndarray, net: links.Fabric) -> tuple[np.ndarray, float]:
    """SimGrid's completion times [devices, devices] in seconds of whole bytes `sent`, and its CPU
    seconds.
    """
    pairs = [(i, j) for i, j in np.argwhere(sent > 0).tolist() if i != j]
    lines = [f"{net.devices} {len(net.capacity_bytes_per_s)} {len(pairs)}"]
    links = zip(net.capacity_bytes_per_s.tolist(), net.latency_s.tolist(), strict=True)
    lines += [
        f"{c / 1e3!r} {t * 1e3!r}" for c, t in links
    ]  # in ms: the precision of its time is absolute
    for i, j in pairs:
        route = net.routes(i, j)
        lines.append(" ".join(map(str, (i, j, int(sent[i, j]), len(route), *route))))
    quiet = [program, "--log=root.thres:error"]
    done = subprocess.run(
        quiet, input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *finish, cpu_s = map(float, done.stdout.split())
    times = np.zeros_like(sent)
    times[tuple(np.transpose(pairs))] = np.array(finish) / 1e3
    return times, cpu_s


def agreement(program: Path) -> Iterator[dict]:
    """Per fabric, size and family: the relative error of the makespan and the largest of a flow,
    exact and approximate.
    """
    for name, make in sorted(NETS.items()):
        for devices in SIZES:
            net = make(devices)
            for family, sent in families(devices, np.random.default_rng(devices)).items():
                times, _ = judge(program, sent, net)
                found, near = (
                    fluid.completion_times_s(sent, net),
                    fluid.makespan_s(sent, net, window=0.003),
                )
                away = times > 0
                yield dict(
                    fabric=name,
                    devices=devices,
                    family=family,
                    flows=int(away.sum()),
                    makespan_us=f"{1e6 * times.max():.6g}",
                    makespan_error=f"{abs(found.max() / times.max() - 1):.2g}",
                    flow_error=f"{abs(found[away] / times[away] - 1).max():.2g}",
                    approximate_error=f"{abs(near / times.max() - 1):.2g}",
                    judge=version(),
                )


def version() -> str:
    """SimGrid's version, as Debian numbers it."""
    asked = ["dpkg-query", "-W", "-f", "${Version}", "libsimgrid-dev"]
    known = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"SimGrid {known.stdout or 'unknown'}"


def cpu_s(call: Callable[[], object]) -> float:
    """The median CPU seconds of a call; not the time that passes, since cores may be shared."""
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return float(np.median(taken))


def costs(program: Path) -> Iterator[dict]:
    """Per number of devices and draw of routes over a star: flows, CPU seconds of SimGrid and of
    our exact and approximate engine, and the relative error of our exact makespan.
    """
    facts = dict(judge=version(), commit=provenance.commit()[:12])
    facts |= dict(date=datetime.now(UTC).strftime("%Y-%m-%d"), hardware=provenance.hardware())
    for devices, draws in DRAWS.items():
        net = fabric.star(devices, 450e9)
        fluid.makespan_s(np.ones((devices, devices)), net, 0.003)  # compiles, lists the routes
        for draw in range(draws):
            sent = drawn(devices, seed=draw)
            times, judge_s = judge(program, sent, net)
            yield dict(
                devices=devices,
                draw=draw,
                flows=int((times > 0).sum()),
                judge_s=f"{judge_s:.4g}",
                exact_s=f"{cpu_s(partial(fluid.makespan_s, sent, net)):.4g}",
                approximate_s=f"{cpu_s(partial(fluid.makespan_s, sent, net, 0.003)):.4g}",
                makespan_error=f"{abs(fluid.makespan_s(sent, net) / times.max() - 1):.2g}",
                **facts,
            )


def write(target: Path, rows: list[dict]) -> None:
    """The rows as a table, whole or not at all."""
    part = target.with_name(f".part-{target.name}")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, target)


if __name__ == "__main__":
    *asked, name = sys.argv[1:] or [""]
    if asked not in ([], ["costs"]) or not name:
        sys.exit("usage: python tests/judge.py [costs] FILE")
    with tempfile.TemporaryDirectory() as folder:
        made = compiled(Path(folder))
        found: list[dict] = []
        for row in (costs if asked else agreement)(made):
            write(Path(name), found := [*found, row])
