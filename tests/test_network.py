"""Fabrics, routes, traffic and times: by hand, by definition, by invariance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib import stats
from lib.network import fabric, fluid, links, placement, synthetic, threads, traffic

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
        fluid.bottleneck_bound_s(scale * sent, star), scale * time, rtol=1e-9, atol=1e-300
    )
    np.testing.assert_allclose(
        fluid.bottleneck_bound_s(sent[np.ix_(order, order)], star), time, rtol=1e-9, atol=1e-300
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
    own = links.Fabric(capacity_bytes_per_s=np.ones(6), routes=fabric.star(3).routes, devices=3)
    for net in (fabric.star(3), own):
        for time_s in (fluid.bottleneck_bound_s, fluid.envelope_s, fluid.completion_times_s):
            with pytest.raises(ValueError, match=message):
                time_s(sent, net)


def test_bad_fabrics_are_refused():
    one = np.ones(1)
    own = dict(capacity_bytes_per_s=one, name="x")
    with pytest.raises(ValueError, match="Fabric x: capacity_bytes_per_s: must be finite and > 0"):
        links.Fabric(**own | {"capacity_bytes_per_s": 0 * one}, routes={})
    with pytest.raises(ValueError, match="latency_s: must hold 1 numbers ≥ 0"):
        links.Fabric(**own, latency_s=-1.0, routes={})
    with pytest.raises(ValueError, match="devices = 0: must be ≥ 1, and given"):
        links.Fabric(**own, routes=lambda i, j: [0])
    with pytest.raises(
        ValueError, match=r"route 0 → 1 = \[3\]: must use known devices and links \(2 and 1\)"
    ):
        links.Fabric(**own, routes={(0, 1): [3]})
    with pytest.raises(ValueError, match=r"route 0 → 1 = \[0, 0\]: must not pass a link twice"):
        fluid.makespan_s(
            np.ones((2, 2)), links.Fabric(**own, devices=2, routes=lambda i, j: [0, 0])
        )
    for time_s in (fluid.bottleneck_bound_s, fluid.envelope_s, fluid.makespan_s):
        with pytest.raises(ValueError, match="from 1 to 0: must have a route in fabric x"):
            time_s(np.ones((2, 2)), links.Fabric(**own, routes={(0, 1): [0]}))
    with pytest.raises(ValueError, match="oversubscription = 0: must be > 0"):
        fabric.nodes(8, 4, oversubscription=0)
    with pytest.raises(ValueError, match="name = 'Cray', between = 'tree': must be one of H100, "):
        fabric.preset("Cray", 8)
    with pytest.raises(ValueError, match="devices = 6: must be a multiple"):
        fabric.nodes(6, 4)


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


@pytest.mark.parametrize("family", synthetic.FAMILIES)
@pytest.mark.parametrize("level", [0.0, 0.2, 0.45])
def test_a_level_is_what_it_says(family, level):
    probability = synthetic.inclusion(32, 2, level, family)
    assert probability.sum() == pytest.approx(2) and probability.max() <= 1
    assert stats.gini(probability) == pytest.approx(level, abs=1e-9)
    index = synthetic.sample(probability, 2, 40_000, np.random.default_rng(0))
    assert (np.diff(np.sort(index, axis=1)) > 0).all()
    share = np.bincount(index.reshape(-1), minlength=32) / 40_000
    np.testing.assert_allclose(
        share, probability, atol=4 * np.sqrt(probability.max() / 40_000) + 1e-9
    )
    assert stats.gini(share) == pytest.approx(level, abs=0.02)


def test_the_top_of_the_range_and_beyond():
    assert synthetic.inclusion(32, 2, 0.93)[0] == 1
    assert stats.max_violation(synthetic.inclusion(32, 2, 0.93)) <= 32 / 2 - 1 + 1e-9
    with pytest.raises(ValueError, match=r"level = 0.9375: must be from 0 to below 0.9375"):
        synthetic.inclusion(32, 2, 0.9375)
    with pytest.raises(ValueError, match="family = 'zipf'"):
        synthetic.inclusion(32, 2, 0.5, "zipf")
    with pytest.raises(ValueError, match="top_k = 32"):
        synthetic.inclusion(32, 32, 0.0)


@pytest.mark.parametrize("family", ["power", "lognormal"])
@pytest.mark.parametrize("k", [1, 8, 128, 250, 255])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999999, 1 - 1e-12])
def test_every_level_of_the_range_is_reached(family, k, share):
    level = share * synthetic.highest_level(256, k, family)
    probability = synthetic.inclusion(256, k, level, family)
    assert probability.sum() == pytest.approx(k, abs=1e-9) and probability.max() <= 1 + 1e-15
    assert (np.diff(probability) <= 0).all()
    assert stats.gini(probability) == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize(("experts", "k"), [(8, 2), (32, 2), (128, 8), (16, 15)])
@pytest.mark.parametrize(("tokens", "share"), [(64, 16), (70, 16), (5, 8)])
def test_counts_are_those_of_the_sample(experts, k, tokens, share):
    for level in (0.0, 0.4 * synthetic.highest_level(experts, k)):
        chances = synthetic.inclusion(experts, k, level)
        given = chances, k, tokens
        routes = synthetic.sample(*given, np.random.default_rng(3), share)
        parts = [routes[first : first + share] for first in range(0, tokens, share)]
        wanted = [np.bincount(part.reshape(-1), minlength=experts) for part in parts]
        found = synthetic.counts(*given, np.random.default_rng(3), share)
        np.testing.assert_array_equal(found, wanted)


def test_probabilities_must_sum_to_k():
    rng, half = np.random.default_rng(0), np.full(8, 0.2)
    for draw in (synthetic.sample, synthetic.counts):
        with pytest.raises(ValueError, match="must sum to k = 3"):
            draw(half, 3, 8, rng, 4)


def test_counted_routes_send_and_compute_what_listed_ones_do():
    rng = np.random.default_rng(0)
    index = rng.random((60, 16)).argsort(1)[:, :3]
    home = placement.random(16, 4, rng)
    counts = [np.bincount(part.reshape(-1), minlength=16) for part in np.split(index, 4)]
    sent, rows = traffic.counted(np.array(counts), home, 7.0)
    np.testing.assert_array_equal(sent, traffic.matrix(index, home, 4, 7.0))
    np.testing.assert_array_equal(rows, traffic.slots(index, home, 4, 16))


NETS = {
    "star": fabric.star(12, 1e9),
    "tree": fabric.nodes(12, 4, 4e9, 1e9),
    "shared": fabric.nodes(12, 4, 4e9, 1e9, oversubscription=3),
}


@given(arrays(float, (12, 12), elements=st.floats(0, 1e9)), st.sampled_from(sorted(NETS)))
@settings(max_examples=40, deadline=None)
def test_a_mirrored_fabric_takes_as_long_both_ways(sent, name):
    net = NETS[name]
    assert net.mirrored
    there, back = fluid.makespan_s(sent, net), fluid.makespan_s(sent.T, net)
    assert back == pytest.approx(there, rel=1e-12)


def test_rails_are_not_mirrored():
    """0 → 3 rides to position 1 of its own node first, and leaves by the card that 1 → 3 takes;
    back, 3 → 0 leaves by the card of position 0.
    """
    net, sent = fabric.rail(4, 2, nvlink_bytes_per_s=10, nic_bytes_per_s=10), np.zeros((4, 4))
    sent[0, 3] = sent[1, 3] = 10
    assert not net.mirrored
    assert fluid.makespan_s(sent, net) == pytest.approx(2)
    assert fluid.makespan_s(sent.T, net) == pytest.approx(1)


def test_a_tree_that_never_blocks_is_one_of_wide_links():
    """The same nodes with the links of the tree listed, each as wide as its node's cards."""
    net, rng = fabric.nodes(8, 4, 4e9, 1e9), np.random.default_rng(0)
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    tree = {(i, j): [32 + i // 4, 34 + j // 4] if i // 4 != j // 4 else [] for i, j in pairs}
    listed = links.Fabric(
        capacity_bytes_per_s=np.append(net.capacity_bytes_per_s, np.full(4, 4e9)),
        routes={pair: [*net.routes(*pair), *tree[pair]] for pair in pairs},
    )
    for sent in rng.lognormal(10, 2, (5, 8, 8)):
        times = fluid.completion_times_s(sent, net)
        np.testing.assert_allclose(times, fluid.completion_times_s(sent, listed), rtol=1e-9)


def test_clusters_have_the_rates_given():
    made = fabric.clusters(400e9, 50e9, per_node=4)
    assert list(made) == [
        "NVLink throughout",
        "nodes of 4, fat tree",
        "nodes of 4, tree 3 : 1",
        "nodes of 4, rails",
    ]
    sent = np.zeros((8, 8))
    sent[:4, 4:] = 50e9 / 4  # every device of the first node sends what its card takes in a second
    times = [float(fluid.bottleneck_bound_s(sent, make(8))) for make in made.values()]
    assert times == pytest.approx([50 / 400, 1, 3, 1])


def test_parts_side_by_side_keep_their_order(monkeypatch):
    for number in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        assert threads.number() == int(number)
        assert threads.each(lambda x: x * x, range(7)) == [0, 1, 4, 9, 16, 25, 36]
        with pytest.raises(ZeroDivisionError):
            threads.each(lambda x: 1 / x, [1, 0])
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.number() >= 1
