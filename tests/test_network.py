"""Fabrics, placements, traffic and times: by hand, by definition, by invariance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib import stats
from lib.network import fabric, fluid, placement, traffic

matrices = arrays(float, (6, 6), elements=st.floats(0, 1e9))


def test_star_by_hand():
    sent = np.array([[5.0, 10, 0], [0, 0, 30], [0, 0, 99]])
    star = fabric.star(3, bandwidth_bytes_per_s=10, latency_s=0.5)
    assert fluid.bottleneck_bound_s(sent, star) == pytest.approx(30 / 10 + 0.5)
    assert fluid.exchange_s(sent, star, combine_share=2) == pytest.approx(3.5 + 6.5)
    assert fluid.bottleneck_bound_s(np.diag([1.0, 2, 3]), star) == 0


def test_nodes_by_hand():
    net = fabric.nodes(4, 2, nvlink_bytes_per_s=100, nic_bytes_per_s=10, oversubscription=4)
    inside, across = np.zeros((4, 4)), np.zeros((4, 4))
    inside[0, 1] = across[0, 2] = 50
    assert fluid.bottleneck_bound_s(inside, net) == pytest.approx(0.5)
    assert fluid.bottleneck_bound_s(across, net) == pytest.approx(50 / (2 * 10 / 4))
    free = fabric.nodes(4, 2, nvlink_bytes_per_s=100, nic_bytes_per_s=10)
    assert fluid.bottleneck_bound_s(across, free) == pytest.approx(5)


@given(matrices, st.floats(0.01, 100), st.permutations(range(6)))
@settings(max_examples=60, deadline=None)
def test_scaling_and_permuting(sent, scale, order):
    star = fabric.star(6, 1e9)
    time = fluid.bottleneck_bound_s(sent, star)
    np.testing.assert_allclose(
        fluid.bottleneck_bound_s(scale * sent, star), scale * time, rtol=1e-9
    )
    np.testing.assert_allclose(
        fluid.bottleneck_bound_s(sent[np.ix_(order, order)], star), time, rtol=1e-9
    )
    away = sent - np.diag(np.diag(sent))
    assert time == pytest.approx(max(away.sum(0).max(), away.sum(1).max()) / 1e9)


@given(arrays(float, (4, 6, 6), elements=st.floats(0, 1e9)))
@settings(max_examples=20, deadline=None)
def test_a_batch_is_its_members(batch):
    net = fabric.nodes(6, 3)
    np.testing.assert_allclose(
        fluid.bottleneck_bound_s(batch, net), [fluid.bottleneck_bound_s(m, net) for m in batch]
    )


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (-np.ones((3, 3)), "≥ 0"),
        (np.full((3, 3), np.nan), "finite"),
        (np.full((3, 3), np.inf), "finite"),
        (np.ones((3, 2)), "must end in"),
        (np.ones((4, 4)), "must end in"),
    ],
)
def test_bad_traffic_is_refused(sent, message):
    own = fabric.Fabric(capacity_bytes_per_s=np.ones(6), routes=fabric.star(3).routes, devices=3)
    for net in (fabric.star(3), own):
        for time_s in (fluid.bottleneck_bound_s, fluid.envelope_s, fluid.completion_times_s):
            with pytest.raises(ValueError, match=message):
                time_s(sent, net)


def test_bad_fabrics_are_refused():
    one = np.ones(1)
    own = dict(capacity_bytes_per_s=one, name="x")
    with pytest.raises(ValueError, match="Fabric x: capacity_bytes_per_s: must be finite and > 0"):
        fabric.Fabric(**own | {"capacity_bytes_per_s": 0 * one}, routes={})
    with pytest.raises(ValueError, match="latency_s: must hold 1 numbers ≥ 0"):
        fabric.Fabric(**own, latency_s=-1.0, routes={})
    with pytest.raises(ValueError, match="devices = 0: must be ≥ 1, and given"):
        fabric.Fabric(**own, routes=lambda i, j: [0])
    with pytest.raises(
        ValueError, match=r"route 0 → 1 = \[3\]: must use known devices and links \(2 and 1\)"
    ):
        fabric.Fabric(**own, routes={(0, 1): [3]})
    with pytest.raises(ValueError, match=r"route 0 → 1 = \[0, 0\]: must not pass a link twice"):
        fluid.makespan_s(
            np.ones((2, 2)), fabric.Fabric(**own, devices=2, routes=lambda i, j: [0, 0])
        )
    for time_s in (fluid.bottleneck_bound_s, fluid.envelope_s, fluid.makespan_s):
        with pytest.raises(ValueError, match="from 1 to 0: must have a route in fabric x"):
            time_s(np.ones((2, 2)), fabric.Fabric(**own, routes={(0, 1): [0]}))
    with pytest.raises(ValueError, match="oversubscription = 0: must be > 0"):
        fabric.nodes(8, 4, oversubscription=0)
    with pytest.raises(ValueError, match="name = 'Cray', between = 'tree': must be one of H100, "):
        fabric.preset("Cray", 8)
    with pytest.raises(ValueError, match="devices = 6: must be a multiple"):
        fabric.nodes(6, 4)


def test_placements():
    assert placement.contiguous(8, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    home = placement.random(32, 8, np.random.default_rng(0))
    assert np.bincount(home).tolist() == [4] * 8
    load = np.arange(8.0)
    assert placement.device_load(load, placement.contiguous(8, 4), 4).tolist() == [1, 5, 9, 13]
    with pytest.raises(ValueError, match="experts = 10, devices = 4"):
        placement.contiguous(10, 4)


# the example of github.com/deepseek-ai/EPLB: two layers, 12 experts in 4 groups, 16 slots, 2 nodes,
# 8 devices
EPLB = [
    (
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    ),
    (
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ),
]


@pytest.mark.parametrize(("load", "published"), EPLB)
def test_replication_is_that_of_eplb(load, published):
    slots = placement.replicated(np.array(load), 8, 4, groups=4, nodes=2)
    ours, theirs = (np.reshape(table, (8, 2)).tolist() for table in (slots, published))
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
    assert (
        set(slots[:4].ravel() // 3) & set(slots[4:].ravel() // 3) == set()
    )  # a group stays on its node
    assert placement.device_load(load, slots, 8).sum() == pytest.approx(sum(load))


@given(arrays(float, 16, elements=st.floats(0, 1e6)), st.sampled_from([0, 4, 16]))
@settings(max_examples=50, deadline=None)
def test_packing_and_copying(load, redundant):
    home = placement.packed(load, 4)
    assert np.bincount(home).tolist() == [4] * 4
    most = placement.device_load(load, home, 4).max()
    assert most <= load.sum() / 4 + load.max() + 1e-6
    slots = placement.replicated(load, 4, redundant)
    assert slots.shape == (4, 4 + redundant // 4) and set(slots.ravel()) == set(range(16))
    share = placement.share(slots, 16, 4)
    np.testing.assert_allclose(share.sum(1), 1)
    copies = np.bincount(slots.ravel())
    # no expert could give up a copy without becoming the busiest per copy
    assert ((load / np.maximum(copies - 1, 1))[copies > 1] >= (load / copies).max() - 1e-9).all()
    if redundant == 0:
        assert placement.device_load(load, slots, 4).max() == pytest.approx(most)


def test_copies_take_turns():
    slots = np.array([[0, 1], [0, 2]])
    index = np.array([[0, 1], [0, 2], [0, 1], [1, 2]])
    assert placement.targets(index, slots).tolist() == [[0, 0], [1, 1], [0, 0], [0, 1]]
    assert traffic.matrix(index, slots, 2, 1).tolist() == [[2, 2], [3, 1]]
    assert placement.device_load(np.array([4.0, 2, 1]), slots, 2).tolist() == [4, 3]


def test_bad_placements_are_refused():
    with pytest.raises(
        ValueError,
        match=r"placement.packed: load of shape \(4,\): must be \[experts\], finite and ≥ 0",
    ):
        placement.packed(np.array([1, -1, 2, 3]), 2)
    with pytest.raises(ValueError, match="redundant = 3.*must divide"):
        placement.replicated(np.ones(8), 4, 3)
    with pytest.raises(ValueError, match="groups = 4, nodes = 3: must divide"):
        placement.replicated(np.ones(8), 6, 4, groups=4, nodes=3)
    with pytest.raises(ValueError, match="expert 2: must stand on at least one device"):
        placement.share(np.array([[0, 1], [0, 1]]), 3, 2)
    with pytest.raises(ValueError, match=r"shape \(4,\): must be for 3 experts and 2 devices"):
        placement.device_load(np.ones(3), np.array([0, 0, 1, 1]), 2)


def test_matrix_by_hand():
    index = np.array([[0, 1], [2, 3], [0, 2], [0, 1]])
    home = np.array([0, 0, 1, 1])
    assert traffic.matrix(index, home, 2, 10).tolist() == [[20, 20], [30, 10]]
    assert traffic.matrix(index, home, 2, 10, deduplicate=True).tolist() == [[10, 10], [20, 10]]


@given(st.integers(0, 1000), st.sampled_from([2, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_bytes_are_conserved(seed, devices):
    rng = np.random.default_rng(seed)
    index = rng.random((64, 16)).argsort(1)[:, :3]
    sent = traffic.matrix(index, placement.random(16, devices, rng), devices, 7.0)
    np.testing.assert_allclose(sent.sum(1), 64 // devices * 3 * 7.0)


@pytest.mark.parametrize("family", traffic.FAMILIES)
@pytest.mark.parametrize("level", [0.0, 0.2, 0.45])
def test_a_level_is_what_it_says(family, level):
    probability = traffic.inclusion(32, 2, level, family)
    assert probability.sum() == pytest.approx(2) and probability.max() <= 1
    assert stats.gini(probability) == pytest.approx(level, abs=1e-9)
    index = traffic.sample(probability, 2, 40_000, np.random.default_rng(0))
    assert (np.diff(np.sort(index, axis=1)) > 0).all()
    share = np.bincount(index.reshape(-1), minlength=32) / 40_000
    np.testing.assert_allclose(
        share, probability, atol=4 * np.sqrt(probability.max() / 40_000) + 1e-9
    )
    assert stats.gini(share) == pytest.approx(level, abs=0.02)


def test_the_top_of_the_range_and_beyond():
    assert traffic.inclusion(32, 2, 0.93)[0] == 1
    assert stats.max_violation(traffic.inclusion(32, 2, 0.93)) <= 32 / 2 - 1 + 1e-9
    with pytest.raises(ValueError, match=r"level = 0.9375: must be from 0 to below 0.9375"):
        traffic.inclusion(32, 2, 0.9375)
    with pytest.raises(ValueError, match="family = 'zipf'"):
        traffic.inclusion(32, 2, 0.5, "zipf")
    with pytest.raises(ValueError, match="top_k = 32"):
        traffic.inclusion(32, 32, 0.0)


@pytest.mark.parametrize("family", ["power", "lognormal"])
@pytest.mark.parametrize("k", [1, 8, 128, 250, 255])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999999, 1 - 1e-12])
def test_every_level_of_the_range_is_reached(family, k, share):
    level = share * traffic.highest_level(256, k, family)
    probability = traffic.inclusion(256, k, level, family)
    assert probability.sum() == pytest.approx(k, abs=1e-9) and probability.max() <= 1 + 1e-15
    assert (np.diff(probability) <= 0).all()
    assert stats.gini(probability) == pytest.approx(level, abs=1e-9)


def test_time_rises_with_the_level():
    setting = dict(experts=32, k=2, tokens=1024, devices=8, bytes_per_token=4096, seeds=40)
    star = fabric.star(8)
    means = [
        fluid.exchange_s(traffic.level_matrices(x, **setting), star).mean()
        for x in (0, 0.2, 0.5, 0.8)
    ]
    assert (np.diff(means) > 0).all()
    even = fluid.exchange_s(traffic.even(1024, 2, 8, 4096), star)
    assert even < means[0] < 1.2 * even
    side = traffic.level_matrices(0.5, permute=False, **setting)
    assert fluid.exchange_s(side, star).mean() > means[2]


def test_recorded_routes_meet_random_placements():
    index = np.random.default_rng(0).integers(0, 8, (100, 2))
    sent = traffic.batch_matrices(
        index, np.arange(96).reshape(4, 24), experts=8, devices=4, bytes_per_token=2
    )
    assert sent.shape == (4, 4, 4) and (sent.sum((1, 2)) == 24 * 2 * 2).all()
