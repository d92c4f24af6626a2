"""Ratios of times, in one run: pytest -m speed -s."""

import time

import numpy as np
import pytest
from judge import NETS, families

from lib.network import fabric, fluid

pytestmark = pytest.mark.speed


def cpu_s(function, repeats: int = 3) -> float:
    """The least CPU seconds of a call."""
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        taken.append(time.process_time() - begin)
    return min(taken)


@pytest.mark.parametrize("net", sorted(NETS))
def test_exact_and_approximate_against_simgrid(simgrid, net):
    """128 devices: on the star with drawn routes at least 20 times SimGrid's speed, and 300 times within 1e-3."""
    made, ratios = NETS[net](128), {}
    fluid.makespan_s(np.ones((128, 128)), made)  # compiles, lists the routes
    for name, sent in families(128, np.random.default_rng(128)).items():
        judged, theirs = simgrid(sent, made)
        exact, near = (cpu_s(lambda w=w, sent=sent: fluid.makespan_s(sent, made, w)) for w in (0.0, 0.003))
        error = fluid.makespan_s(sent, made, 0.003) / judged.max() - 1
        ratios[name] = theirs / exact, theirs / near, error
        print(f"\n{net} {name}: SimGrid {theirs:.2f} s, exact {exact:.3f} s ({theirs / exact:.0f} ×), "
              f"approximate {near:.4f} s ({theirs / near:.0f} ×, error {error:.1e})", end="")  # fmt: skip
        assert abs(error) <= 1e-3
    if net == "star":
        assert ratios["moe"][0] >= 20 and ratios["moe"][1] >= 300


def test_bound_of_a_large_cluster():
    """4,096 devices: at most 1.5 times the two sums that it cannot do without."""
    sent, made = np.random.default_rng(0).random((4096, 4096)), fabric.star(4096)
    bound = cpu_s(lambda: fluid.bottleneck_bound_s(sent, made), 7)
    sums = cpu_s(lambda: (sent.sum(0), sent.sum(1)), 7)
    print(f"\nbound at 4,096: {bound:.4f} s, two sums {sums:.4f} s, ratio {bound / sums:.2f}")
    assert bound <= 1.5 * sums


def test_exact_time_against_size():
    """Printed for 64 to 512 devices."""
    for devices in (64, 128, 256, 512):
        sent, made = families(devices, np.random.default_rng(0))["moe"], fabric.star(devices)
        fluid.makespan_s(sent, made, 0.01)
        exact, near = (cpu_s(lambda w=w, s=sent, m=made: fluid.makespan_s(s, m, w), 1) for w in (0.0, 0.003))
        print(f"\n{devices} devices: exact {exact:.3f} s, approximate {near:.4f} s", end="")
