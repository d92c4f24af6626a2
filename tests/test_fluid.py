"""Completion times of the fluid model: by hand, by invariance, between their bounds, and against
SimGrid.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from judge import NETS, families

from lib.network import fabric, fluid, links

sizes = arrays(
    float,
    (8, 8),
    elements=st.one_of(st.just(0.0), st.integers(1, 20).map(float), st.floats(1, 1e9)),
)
FABRICS = {
    "star": fabric.star(8, 10e9),
    "tree": fabric.nodes(8, 4, 450e9, 50e9),
    "oversubscribed": fabric.nodes(8, 2, 450e9, 50e9, oversubscription=4),
    "rail": fabric.rail(8, 4, 450e9, 50e9),
    "late": fabric.rail(8, 4, 450e9, 50e9, latency_s=1e-3),
}


def own(net: links.Fabric, order=None, scale: float = 1.0) -> links.Fabric:
    """The same fabric as a list of routes, without its closed form; devices renamed by `order`."""
    new = np.arange(net.devices) if order is None else np.argsort(order)
    pairs = [(i, j) for i in range(net.devices) for j in range(net.devices) if i != j]
    routes = {(int(new[i]), int(new[j])): net.routes(i, j) for i, j in pairs}
    return links.Fabric(
        capacity_bytes_per_s=scale * net.capacity_bytes_per_s,
        latency_s=net.latency_s,
        routes=routes,
    )


def test_fair_shares_by_hand():
    """0→1 shares the way out of 0 with 0→2, and that the way into 2 with 1→2; 1→2 takes what 0→2
    leaves.
    """
    sent = np.array([[9.0, 100, 50], [0, 0, 30], [0, 0, 0]])
    found = fluid.completion_times_s(sent, fabric.star(3, 10))
    np.testing.assert_allclose(found, [[0, 15, 10], [0, 0, 6], [0, 0, 0]])
    own_links = links.Fabric(
        capacity_bytes_per_s=[10, 4], latency_s=[0, 1], routes={(0, 1): [0], (2, 1): [0, 1]}
    )
    sent = np.array([[0, 34.0, 0], [0, 0, 0], [0, 8, 0]])
    # alone until 1 s: 24 left; then 6 and 4 a second; the second ends at 3 s: 12 left at 10 a
    # second
    np.testing.assert_allclose(fluid.completion_times_s(sent, own_links)[[0, 2], 1], [4.2, 3.0])


def test_what_a_link_gained_by_settling_together_is_given_back():
    """0→2 ends at 99 s and 1→4 at 101 s, settled together at 100 s: what 0→3 lost by the second
    that 0→2 stayed too long, and 1→5 gained, is made good.
    """
    sent = np.zeros((6, 6))
    sent[[0, 0, 1, 1], [2, 3, 4, 5]] = [99, 300, 101, 340]
    for window in (0.0, 0.05):
        found = fluid.completion_times_s(sent, fabric.star(6, 2), window)
        np.testing.assert_allclose(found[[0, 0, 1, 1], [2, 3, 4, 5]], [99, 199.5, 101, 220.5])


def test_nothing_takes_no_time():
    for net in FABRICS.values():
        sent = np.diag(np.arange(8.0))
        assert (
            fluid.makespan_s(sent, net)
            == fluid.bottleneck_bound_s(sent, net)
            == fluid.envelope_s(sent, net)
            == 0
        )
        sent[1, 2] = 1e9
        times = fluid.completion_times_s(sent, net)
        assert np.flatnonzero(times).tolist() == [10]


@given(sizes, st.sampled_from(sorted(FABRICS)))
@settings(max_examples=300, deadline=None)
def test_between_bound_and_envelope(sent, name):
    net = FABRICS[name]
    bound, span, most = (
        time_s(sent, net)
        for time_s in (fluid.bottleneck_bound_s, fluid.makespan_s, fluid.envelope_s)
    )
    assert bound <= span * (1 + 1e-12) and span <= most * (1 + 1e-12)
    times = fluid.completion_times_s(sent, net)
    away = ~np.eye(8, dtype=bool) & (sent > 0)
    assert ((times > 0) == away).all()
    # no link carries more than its capacity in the time: what has arrived by t is at most capacity
    # × t
    for t in np.unique(times):
        assert (
            net.load_bytes(np.where(times <= t, sent, 0))
            <= net.capacity_bytes_per_s * t * (1 + 1e-9)
        ).all()


@given(sizes, st.sampled_from(sorted(FABRICS)), st.permutations(range(8)), st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_renaming_and_scaling(sent, name, order, scale):
    net = FABRICS[name]
    times = fluid.completion_times_s(sent, net)
    renamed = fluid.completion_times_s(sent[np.ix_(order, order)], own(net, order))
    np.testing.assert_allclose(renamed, times[np.ix_(order, order)], rtol=1e-9)
    if not net.latency_s.any():
        np.testing.assert_allclose(
            fluid.completion_times_s(scale * sent, net), scale * times, rtol=1e-9
        )
        np.testing.assert_allclose(
            fluid.completion_times_s(sent, own(net, scale=2)), times / 2, rtol=1e-9
        )


@given(sizes, st.sampled_from(sorted(FABRICS)))
@settings(max_examples=100, deadline=None)
def test_closed_forms_are_their_routes(sent, name):
    net, listed = FABRICS[name], own(FABRICS[name])
    np.testing.assert_allclose(net.load_bytes(sent), listed.load_bytes(sent), rtol=1e-12)
    np.testing.assert_allclose(net.load_bytes(sent.T), listed.load_bytes(sent.T), rtol=1e-12)
    np.testing.assert_array_equal(net.least_latency_s, listed.least_latency_s)


def test_ten_thousand_matrices_keep_the_order():
    rng = np.random.default_rng(0)
    for net in FABRICS.values():
        sent = rng.lognormal(10, rng.uniform(0, 3, (2000, 1, 1)), (2000, 8, 8)) * (
            rng.random((2000, 8, 8)) < 0.7
        )
        bound, span, most = (
            fluid.bottleneck_bound_s(sent, net),
            fluid.makespan_s(sent, net),
            fluid.envelope_s(sent, net),
        )
        assert (bound <= span * (1 + 1e-12)).all() and (span <= most * (1 + 1e-12)).all()
        assert (
            net is FABRICS["late"] or (span > bound * (1 + 1e-6)).any()
        )  # fair sharing is not optimal


def test_another_library_gives_the_same_bound():
    torch = pytest.importorskip("torch")
    sent = np.random.default_rng(0).random((3, 8, 8))
    for net in (*FABRICS.values(), own(FABRICS["rail"])):
        found = fluid.bottleneck_bound_s(torch.tensor(sent), net)
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.numpy(), fluid.bottleneck_bound_s(sent, net), rtol=1e-12)


def test_large_fabrics_sum_in_stretches():
    sent = np.random.default_rng(0).random((256, 256))
    for net in (fabric.star(256), fabric.nodes(256, 8, oversubscription=2), fabric.rail(256, 8)):
        listed = links.Fabric(
            capacity_bytes_per_s=net.capacity_bytes_per_s, routes=net.routes, devices=256
        )
        np.testing.assert_allclose(net.load_bytes(sent), listed.load_bytes(sent), rtol=1e-12)


def test_presets():
    assert fabric.preset("GB200 NVL72", 64).capacity_bytes_per_s.tolist() == [900e9] * 128
    assert (fabric.preset("H800", 16).capacity_bytes_per_s[:32] == 160e9).all()
    across = np.zeros((16, 16))
    across[0, 9] = 50e9
    assert fluid.makespan_s(across, fabric.preset("H100", 16)) == pytest.approx(1)
    assert fluid.makespan_s(across, fabric.preset("H200", 16, between="rail")) == pytest.approx(1)
    with pytest.raises(ValueError, match="devices = 12: must be a multiple of per_node = 8"):
        fabric.preset("PCIe box", 12)


@pytest.mark.parametrize("devices", [8, 32, 64])
@pytest.mark.parametrize("net", sorted(NETS))
def test_simgrid_agrees(simgrid, net, devices):
    made = NETS[net](devices)
    for name, sent in families(devices, np.random.default_rng(devices)).items():
        judged, _ = simgrid(sent, made)
        times = fluid.completion_times_s(sent, made)
        assert times.max() == pytest.approx(judged.max(), rel=1e-9), name
        np.testing.assert_allclose(times, judged, rtol=1e-6, err_msg=name)
        assert fluid.makespan_s(sent, made, window=0.003) == pytest.approx(
            judged.max(), rel=1e-3
        ), name


def test_simgrid_agrees_on_latency(simgrid):
    """One latency for all: SimGrid weighs flows by their latency, the fluid model does not."""
    sent, made = (
        families(8, np.random.default_rng(0))["lognormal"],
        fabric.star(8, 450e9, latency_s=2e-6),
    )
    judged, _ = simgrid(sent, made)
    np.testing.assert_allclose(fluid.completion_times_s(sent, made), judged, rtol=1e-6)
