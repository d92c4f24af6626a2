"""What tells a token's expert: hand-worked cases, and what was put in."""

import numpy as np
import pandas as pd
import pytest
import traces

from lib.routing import structure


def test_information_share_by_hand():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 2000)
    assert structure.information_share(y, y, 3, rng) == pytest.approx(1, abs=0.01)
    noise = rng.integers(0, 50, 4000)  # its bias is taken off
    assert structure.information_share(noise, y, 20, rng) == pytest.approx(0, abs=0.005)
    half = np.where(np.arange(4000) < 2000, y, 2)  # known in one half only
    assert structure.information_share(half, y, 3, rng) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="not constant"):
        structure.information_share(y, np.zeros(4000, int), 1, rng)


def test_what_is_known_is_what_was_put_in():
    rng = np.random.default_rng(1)
    token, document = rng.integers(0, 4, 4000), np.repeat(np.arange(40), 100)
    other = rng.integers(0, 4, 4000)
    index = np.stack([[token, (token + 1) % 4], [other, (other + 1 + token % 3) % 4]])
    t = traces.made(index.transpose(0, 2, 1), document, token=token)
    share = structure.known(t, 5, rng).set_index(["layer", "source"]).share
    assert share[1, "token"] == pytest.approx(1, abs=0.01)
    assert share[1, "second"] == pytest.approx(1, abs=0.01)
    for nothing in ((2, "token"), (2, "before"), (1, "position")):
        assert abs(share[nothing]) < 0.01


def test_means_over_layers_by_hand():
    table = pd.DataFrame(
        dict(
            arm=["a", "a", "a", "b"],
            layer=[1, 2, 2, 1],
            source=["token", "token", "before", "token"],
            share=[0.2, 0.4, 0.1, 0.7],
        )
    )
    assert structure.known_means(table).to_numpy().tolist() == [
        ["a", "before", 0.1],
        ["a", "token", pytest.approx(0.3)],
        ["b", "token", 0.7],
    ]


def test_coactivation_by_hand():
    index = [[[0, 1], [0, 1], [2, 3], [2, 3]]]
    ratio = structure.coactivation(traces.made(index, [0, 0, 1, 1]), 0)
    assert np.isnan(np.diag(ratio)).all()
    # 4 of 12 ordered pairs occur, all equally expected
    assert ratio[0, 1] == pytest.approx(3) and ratio[0, 2] == 0


def test_pairs_are_the_cells_of_the_maps():
    ratio = np.array([[np.nan, 2.0], [0.5, np.nan]])
    table = structure.pairs({"a": ratio, "b": ratio.T})
    assert table.to_numpy().tolist() == [
        ["a", 1, 0, 0.5],
        ["a", 0, 1, 2.0],
        ["b", 1, 0, 2.0],
        ["b", 0, 1, 0.5],
    ]
    assert structure.strongest(table).to_dict() == {"a": 2.0, "b": 2.0}


def test_of_a_router_that_always_chooses_the_same_nothing_is_left_to_know():
    t = traces.made([[[2], [2], [2]], [[0], [1], [0]]], [0, 0, 1], domain=[0, 1])
    table = structure.known(t, 2, np.random.default_rng(0))
    assert (table[table.layer == 1].share == 0).all() and table.share.notna().all()
