"""Node-limited routes, forwarded bytes, counts, and popularities carried over: by brute force, by definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import stats
from lib.network import fabric, fluid, placement, traffic


@pytest.mark.parametrize("most", [1, 2, 4])
def test_node_limited_routes_are_the_best_that_are_allowed(most):
    score, node = np.random.default_rng(most).random((60, 16)), np.arange(16) // 4
    found = traffic.node_limited(score, node, 4, most)
    for row, experts in zip(score, found, strict=True):
        sums = [np.sort(row[node == n])[-4 // most :].sum() for n in range(4)]
        open_ = np.isin(node, np.argsort(sums)[-most:])
        assert set(experts) == set(np.argsort(np.where(open_, row, -1))[-4:]) and len(set(node[experts])) <= most


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]))
@settings(max_examples=40, deadline=None)
def test_forwarded_bytes_are_those_of_a_brute_force_count(seed, per_node):
    rng, devices = np.random.default_rng(seed), 8
    index, home = rng.random((24, 16)).argsort(1)[:, :5], placement.random(16, devices, rng)
    expected = np.zeros((devices, devices))
    for token, experts in enumerate(index):
        i = token * devices // 24
        for node in {home[e] // per_node for e in experts}:
            relay = node * per_node + i % per_node if node != i // per_node else i
            if relay != i:
                expected[i, relay] += 7  # crosses the network once per node
            for device in {home[e] for e in experts if home[e] // per_node == node}:
                expected[relay, device] += 7  # and is forwarded inside it, once per device; to itself it stays
    np.testing.assert_array_equal(traffic.forwarded(index, home, devices, per_node, 7), expected)


def test_a_limit_on_nodes_and_forwarding_save_the_network():
    rng = np.random.default_rng(0)
    score, home = traffic.scores(traffic.inclusion(64, 8, 0.3), 512, rng), placement.contiguous(64, 32)
    free, limited = (traffic.node_limited(score, home // 4, 8, most) for most in (8, 2))
    net = fabric.nodes(32, 4)
    node = np.arange(32) // 4
    across = node[:, None] != node
    plain, once, few = (m[across].sum() for m in (traffic.matrix(free, home, 32, 1), traffic.forwarded(free, home, 32, 4, 1), traffic.forwarded(limited, home, 32, 4, 1)))
    assert few < once < plain and few <= 2 * 512
    times = [fluid.exchange_s(m, net) for m in (traffic.matrix(free, home, 32, 1e4), traffic.forwarded(limited, home, 32, 4, 1e4))]
    assert times[1] < times[0]


def test_one_device_a_node_leaves_nothing_to_forward():
    rng = np.random.default_rng(0)
    index, home = rng.random((32, 16)).argsort(1)[:, :4], placement.contiguous(16, 8)
    sent, plain = traffic.forwarded(index, home, 8, 1, 3.0), traffic.matrix(index, home, 8, 3.0, deduplicate=True)
    away = ~np.eye(8, dtype=bool)
    np.testing.assert_array_equal(sent[away], plain[away])


def test_bytes_of_a_token():
    assert traffic.row_bytes(7168, "bf16") == 14336
    assert traffic.row_bytes(7168, "fp8") + 16 == 7408  # DeepEP's table has 16 bytes of its own header
    with pytest.raises(ValueError, match="form = 'fp4': must be bf16 or fp8"):
        traffic.row_bytes(8, "fp4")


@pytest.mark.parametrize(("level", "experts", "k"), [(0.0, 8, 2), (0.6, 16, 3), (0.93, 32, 2)])
def test_counts_have_the_moments_of_drawn_tokens(level, experts, k):
    probability, rng, tokens = traffic.inclusion(experts, k, level), np.random.default_rng(0), 40
    found = traffic.counts(probability, k, tokens, 4000, rng)
    drawn = np.stack([np.bincount(traffic.sample(probability, k, tokens, rng).ravel(), minlength=experts) for _ in range(4000)])
    assert (found.sum(1) == tokens * k).all() and found.min() >= 0 and found.max() <= tokens
    np.testing.assert_allclose(found.mean(0), tokens * probability, atol=5 * np.sqrt(tokens / 4 / 4000) + 1e-9)
    np.testing.assert_allclose(np.cov(found.T), np.cov(drawn.T), atol=0.06 * tokens * 0.25 * 4)
    np.testing.assert_allclose(np.diag(np.cov(found.T)), tokens * probability * (1 - probability), rtol=0.15, atol=0.02 * tokens * 0.25)


@pytest.mark.parametrize(("experts", "k"), [(16, 2), (64, 8), (128, 8), (8, 2), (256, 4)])
def test_a_carried_popularity_keeps_its_share_of_the_largest_gini(experts, k):
    rng = np.random.default_rng(1)
    index = rng.permutation(16)[traffic.sample(traffic.inclusion(16, 2, 0.4, "lognormal"), 2, 5000, rng)]
    measured = traffic.recorded(index[None], 16)[0]
    assert measured.sum() == pytest.approx(2)
    carried = traffic.carried(measured, experts, k)
    assert carried.sum() == pytest.approx(k) and carried.max() <= 1 + 1e-12 and (np.diff(carried) <= 1e-15).all()
    assert stats.gini(carried) / (1 - k / experts) == pytest.approx(stats.gini(measured) / (1 - 2 / 16), abs=1e-9)
    if (experts, k) == (16, 2):
        np.testing.assert_array_equal(carried, np.sort(measured)[::-1])
    drawn = traffic.sample(carried, k, 20_000, rng)
    assert stats.gini(np.bincount(drawn.ravel(), minlength=experts)) == pytest.approx(stats.gini(carried), abs=0.02)


def test_dead_experts_and_even_ones_are_carried():
    dead = np.array([1.0, 0.6, 0.4, 0, 0, 0, 0, 0])
    assert np.isfinite(traffic.carried(dead, 32, 2)).all()
    np.testing.assert_allclose(traffic.carried(np.full(8, 0.25), 32, 4), 0.125)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: traffic.carried(np.array([0.5, 0.4]), 8, 2), "sum 0.9: must be from 0 to 1 and sum to a whole k < 2"),
        (lambda: traffic.carried(np.array([1.5, 0.5, 0]), 8, 2), "must be from 0 to 1"),
        (lambda: traffic.carried(np.full(4, 0.5), 8, 8), "top_k = 8: must be from 1 to num_experts − 1 = 7"),
        (lambda: traffic.node_limited(np.ones((2, 8)), np.arange(8) // 2, 4, 3), "k = 4, most = 3"),
        (lambda: traffic.node_limited(np.ones((2, 8)), np.arange(8) // 2, 4, 1), "nodes of one size that hold k experts"),
        (lambda: traffic.forwarded(np.zeros((4, 1), int), np.zeros(8, int), 8, 3, 1), "devices = 8: must be a multiple of per_node = 3"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_time_rises_with_the_level_at_every_size():
    """Mean over seeds, expert-parallel groups of 8 and more, by counts."""
    for devices in (8, 16, 32):
        star, home, means = fabric.star(devices), placement.contiguous(64, devices), []
        for level in (0.0, 0.2, 0.4, 0.6, 0.8):
            found = []
            for seed in range(60):
                rng = np.random.default_rng(seed)
                labels = rng.permutation(64)
                sent = traffic.counts(traffic.inclusion(64, 8, level), 8, 64, devices, rng)[:, labels]
                found.append(fluid.exchange_s(sent @ placement.share(home, 64, devices) * 4096, star))
            means.append(np.mean(found))
        assert (np.diff(means) > 0).all(), devices
