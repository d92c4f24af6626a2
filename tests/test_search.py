"""Better placements, what none can beat, and shares of copies: by hand, by bounds, by programme."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.network import bound, cost, moving, placement, search, sharing

GOLDEN = np.array([600, 560, 120, 120, 20, 10, 10, 10.0])  # the balancers' common example


def busiest(load, home):
    return placement.device_load(load, home, len(home)).max()


def test_golden_loads():
    assert busiest(GOLDEN, placement.replicated(GOLDEN, 8, 8)) == 232
    better = search.better(GOLDEN, 8, 8)
    assert better.shape == (8, 2) and set(better.ravel()) == set(range(8))
    assert busiest(GOLDEN, better) <= 205
    assert bound.busiest(GOLDEN, 8, 2) == pytest.approx(GOLDEN.sum() / 8)


def test_a_model_is_placed_in_time():
    loads = np.random.default_rng(0).lognormal(0, 1, (58, 256))
    placement.replicated(loads[0], 32, 64)  # compiled
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        homes = [placement.replicated(load, 32, 64) for load in loads]
        taken.append(time.perf_counter() - start)
    assert homes[0].shape == (32, 10) and min(taken) <= 0.2
    better = [busiest(load, search.better(load, 32, 64)) for load in loads[:10]]
    greedy = [busiest(load, home) for load, home in zip(loads[:10], homes[:10], strict=True)]
    assert np.mean(better) < np.mean(greedy)


@st.composite
def cases(draw):
    devices, slots = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    experts = draw(st.integers(1, devices * slots))
    load = draw(arrays(float, experts, elements=st.floats(0, 1e3).map(lambda x: round(x, 3))))
    spare = draw(
        st.lists(st.integers(0, experts - 1), min_size=0, max_size=devices * slots - experts)
    )
    full = [*range(experts), *spare, *([0] * (devices * slots - experts - len(spare)))]
    home = np.array(draw(st.permutations(full))).reshape(devices, slots)
    return load, home


@given(cases())
@settings(max_examples=400, deadline=None)
def test_no_placement_passes_the_bound(case):
    load, home = case
    devices, slots = home.shape
    spare = devices * slots - len(load)
    least = bound.busiest(load, devices, slots)
    tolerance = 1e-6 * (1 + load.sum())
    greedy = busiest(load, placement.replicated(load, devices, spare))
    better = busiest(load, search.better(load, devices, spare))
    assert least <= min(busiest(load, home), better) + tolerance
    assert better <= greedy + tolerance
    assert bound.busiest(load, devices, slots, equal=False) <= least + tolerance


@pytest.mark.parametrize(
    "load",
    [
        [292.654, 94.174, 365.726, 0, 0, 874.976, 0, 744.446, 0, 90.271],
        [712.479, 0, 25.93, 440.481, 0, 0, 172.453, 878.17, 0, 256.337],
    ],
)
def test_a_search_ends_where_a_step_gains_what_rounding_loses(load):
    home = search.better(np.array(load), 5, 0)
    assert busiest(np.array(load), home) == pytest.approx(max(load))


def test_the_bound_by_hand():
    # one expert with all of the load, two devices of two slots, three experts: 2 copies at most
    assert bound.busiest([8.0, 0, 0], 2, 2) == pytest.approx(4)
    # no slot to spare: the hot expert alone
    assert bound.busiest([8.0, 1, 1, 1], 2, 2) == pytest.approx(8, rel=1e-3)
    # 3 equal experts on 2 devices of 2 slots: a copy of one; 1 + 1/2
    assert bound.busiest([2.0, 2, 2], 2, 2) == pytest.approx(3)
    # 4 devices of one slot: 3 + 1 copies of 3 and 1, or 2 + 2
    assert bound.busiest([3.0, 3], 4, 1) == pytest.approx(1.5)
    assert bound.busiest([9.0, 3], 4, 1) == pytest.approx(3)
    with pytest.raises(ValueError, match="2 devices × 1 slots: must hold 3 experts"):
        bound.busiest([1.0, 1, 1], 2, 1)
    with pytest.raises(ValueError, match="finite and ≥ 0"):
        bound.busiest([1.0, -1], 2, 1)


def test_shares_by_hand():
    # expert 0 stands on both devices, 1 on the first, 2 on the second
    equal = placement.share(np.array([[0, 1], [0, 2]]), 3, 2)
    load = np.array([6.0, 4, 2])
    for rule in (sharing.solved, sharing.filled):
        share = rule(load, equal)
        assert share[0].tolist() == pytest.approx([1 / 3, 2 / 3])  # 2 + 4 and 4 + 2
        np.testing.assert_allclose(share.sum(1), 1)
    assert (load @ equal).tolist() == [7, 5]
    assert sharing.solved(np.array([0.0, 4, 2]), equal)[0].tolist() == [0.5, 0.5]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_shares_are_shares(case):
    load, home = case
    equal = placement.share(home, len(load), len(home))
    best = (load @ sharing.solved(load, equal)).max()
    for share in (sharing.solved(load, equal), sharing.filled(load, equal)):
        np.testing.assert_allclose(share.sum(1), 1, atol=1e-9)
        assert (share[equal == 0] == 0).all() and share.min() >= 0
        assert (load @ share).max() >= best - 1e-6 * (1 + best)
    free = bound.busiest(load, *home.shape, equal=False)
    assert free <= best + 1e-6 * (1 + best)
    held = load @ sharing.filled(load, equal)
    assert (held**2).sum() <= ((load @ equal) ** 2).sum() * (1 + 1e-9) + 1e-9


def test_rivals_count_their_own_time():
    counts = np.random.default_rng(0).poisson(5, (3, 2, 4)).astype(float)
    homes = {"greedy": np.array([[0, 1, 2], [0, 3, 2]])}

    def layer_s(batch, shares):
        return (batch.sum(1)[:, :, None] * shares).sum(1).max(-1)

    rows = sharing.rivals(homes, {"this": counts}, layer_s)
    assert len(rows) == 3 * len(sharing.RULES)
    table = sharing.summary(rows, even_s=1.0).set_index("rule")
    assert table.own_us["equal"] == 0 and table.own_us["linear programme"] > 0
    assert table.rho["linear programme"] <= table.rho["equal"]
    assert table.slowdown_own["linear programme"] > table.slowdown["linear programme"]


def test_moving_by_hand():
    old, new = np.array([[0, 1], [2, 3]]), np.array([[0, 2, 2], [2, 3, 1]])
    assert moving.fetched(old, new).tolist() == [1, 1]
    shape = cost.Shape(hidden=100, width=10, experts=4, k=2)
    assert moving.seconds(old, new, shape, 600.0, layers=3) == 1 * 6000 * 3 / 600
    # weights 6·100·10 bytes, a row 200 bytes out and 200 back
    assert moving.rows_that_pay(shape) == 15 == 6 * 100 * 10 / 400
    assert moving.tokens_that_pay(2.0, 0.5, 0.3, 10) == pytest.approx(100)
    assert moving.tokens_that_pay(2.0, 0.3, 0.5, 10) == np.inf
    with pytest.raises(ValueError, match="2 devices, then 1"):
        moving.fetched(old, new[:1])


def test_refreshing_follows_what_changes():
    hot = np.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]] * 90 + 10
    ways = dict(moved_s=lambda old, new: 1.0, layer_s=lambda load, home: busiest(load, home))
    table = moving.refresh(hot, [0, 1], 2, 2, **ways).set_index("every")
    assert table.rho[1] < table.rho[0]
    assert table.moving_s[0] == 0 and table.moving_s[1] > 0 and table.fetched[0] == 0
