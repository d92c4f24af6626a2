"""SimGrid as a judge of the fluid model: families of matrices, fabrics, and its program, compiled where it is installed."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lib.network import fabric, traffic


def families(devices: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Matrices [devices, devices] of whole bytes, one per family."""
    zipf = rng.permutation(1 / np.arange(1, devices + 1))
    hot = np.full((devices, devices), 1e5)
    hot[:, rng.integers(devices)] *= devices
    setting = dict(experts=4 * devices, k=8, tokens=64 * devices, devices=devices, bytes_per_token=7168, seeds=1)
    return {
        "balanced": np.full((devices, devices), 1e6),
        "zipf": np.round(1e8 * np.outer(rng.permutation(zipf), zipf)) + 1,
        "hot": hot,
        "moe": traffic.level_matrices(0.5, **setting)[0],
        "lognormal": np.round(rng.lognormal(13, 1.5, (devices, devices))) + 1,
    }


NETS = {
    "star": lambda devices: fabric.star(devices, 450e9),
    "oversubscribed": lambda devices: fabric.nodes(devices, 8 if devices > 8 else 4, 450e9, 50e9, oversubscription=3),
    "rail": lambda devices: fabric.rail(devices, 8 if devices > 8 else 4, 450e9, 50e9),
}


def compiled(folder: Path) -> Path:
    """The program of simgrid_judge.cpp, built in `folder`; skips where there is no compiler or no SimGrid."""
    if shutil.which("g++") is None:
        pytest.skip("SimGrid: no g++ (apt-get install g++ libsimgrid-dev)")
    source, program = Path(__file__).parent / "simgrid_judge.cpp", folder / "judge"
    built = subprocess.run(
        ["g++", "-O2", "-o", program, source, "-lsimgrid"], capture_output=True, text=True, check=False
    )
    if "simgrid/s4u.hpp" in built.stderr or "-lsimgrid" in built.stderr:
        pytest.skip("SimGrid is not installed (apt-get install libsimgrid-dev)")
    assert built.returncode == 0, built.stderr
    return program


def judge(program: Path, sent: np.ndarray, net: fabric.Fabric) -> tuple[np.ndarray, float]:
    """SimGrid's completion times [devices, devices] in seconds of whole bytes `sent`, and its CPU seconds."""
    pairs = [(i, j) for i, j in np.argwhere(sent > 0).tolist() if i != j]
    lines = [f"{net.devices} {len(net.capacity_bytes_per_s)} {len(pairs)}"]
    links = zip(net.capacity_bytes_per_s.tolist(), net.latency_s.tolist(), strict=True)
    lines += [f"{c / 1e3!r} {t * 1e3!r}" for c, t in links]  # in ms: the precision of its time is absolute
    for i, j in pairs:
        route = net.routes(i, j)
        lines.append(" ".join(map(str, (i, j, int(sent[i, j]), len(route), *route))))
    quiet = [program, "--log=root.thres:error"]
    done = subprocess.run(quiet, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *finish, cpu_s = map(float, done.stdout.split())
    times = np.zeros_like(sent)
    times[tuple(np.transpose(pairs))] = np.array(finish) / 1e3
    return times, cpu_s
