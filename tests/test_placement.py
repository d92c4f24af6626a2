"""Placements and copies: by hand, against EPLB's own example, by invariance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.network import placement, traffic


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
    held, wanted = (
        sorted(sorted(row) for row in np.reshape(table, (8, 2)).tolist())
        for table in (slots, published)
    )
    assert held == wanted
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
