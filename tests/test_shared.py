"""What domains share of an imbalance, and what is left of a placement's gain."""

import numpy as np
import pytest

from lib import stats
from lib.commands import drift
from lib.routing import shared


def counts(*documents) -> np.ndarray:
    """[documents, 1, experts]."""
    return np.array(documents)[:, None]


def test_shared_and_specific_by_hand():
    # domain a: (3, 1) and (2, 2); domain b: (4, 0) twice.  Shares: a (5, 3)/8, b (1, 0)
    given = counts((3, 1), (2, 2), (4, 0), (4, 0))
    common, own = shared.split(given, np.array([0, 0, 1, 1]))
    # between: 2 · 5/8 − 1 = 1/4.  Within a: 2 · (3·2 + 1·2)/(4·4) − 1 = 0; within b: 2 · 1 − 1 = 1
    assert common == pytest.approx([1 / 4])
    assert own == pytest.approx([(0 + 1) / 2 - 1 / 4])


def test_all_is_shared_where_documents_are_alike_and_none_where_domains_cancel():
    group = np.array([0, 0, 1, 1])
    common, own = shared.split(counts((3, 1), (3, 1), (3, 1), (3, 1)), group)
    assert common == pytest.approx([2 * (9 + 1) / 16 - 1]) and own == pytest.approx([0])
    common, own = shared.split(counts((4, 0), (4, 0), (0, 4), (0, 4)), group)
    assert common == pytest.approx([-1]) and own == pytest.approx([2])


def test_the_parts_add_up_to_the_unbiased_square_within_domains():
    rng = np.random.default_rng(0)
    given = rng.integers(1, 9, (12, 3, 5))
    group = np.repeat([0, 1, 2], 4)
    common, own = shared.split(given, group)
    within = [
        np.mean([stats.cv2_unbiased(given[group == g, layer]) for g in range(3)])
        for layer in range(3)
    ]
    assert common + own == pytest.approx(within)
    with pytest.raises(ValueError, match="1 groups of at least 2 documents: must be at least 2"):
        shared.split(given[:5], np.array([0, 0, 0, 0, 1]))


def test_drift_by_hand():
    # two domains of two clusters, 4 experts on 2 devices; the first cluster of each calibrates
    # Served loads: a (3, 1, 2, 2), b (2, 2, 3, 1).  Packed on itself each is even: ρ = 1.
    # a calibrates on (4, 4, 0, 0), hence {0, 2}, {1, 3}: served 5 and 3, ρ = 5/4;
    # b on (1, 1, 1, 1), hence {0, 2}, {1, 3}: served 5 and 3, ρ = 5/4.
    given = counts((4, 4, 0, 0), (3, 1, 2, 2), (1, 1, 1, 1), (2, 2, 3, 1))
    found = drift.table(given, np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), 2)
    assert found["fresh"] == 1 and found["same"] == 5 / 4
    # other: a's whole load (7, 5, 2, 2) packs {0, 3}, {1, 2}: b's served part has 3 and 5;
    # b's (3, 3, 4, 2) packs {2, 3}, {0, 1}: a's has 4 and 4
    assert found["other"] == (5 / 4 + 1) / 2
    # pairings of a: {0,1} 4:4, {0,2} 5:3, {0,3} 5:3; of b: 4:4, 5:3, 3:5; so random is 7/6 on
    # average
    assert found["random"] == pytest.approx(7 / 6, abs=0.03)
    assert found["kept_other"] == pytest.approx((found["random"] - 9 / 8) / (found["random"] - 1))
    with pytest.raises(ValueError, match="1 domains of at least 2 clusters: must be at least 2"):
        drift.table(given[:2], np.array([0, 0]), np.array([0, 1]), 2)


def test_totals_are_split_as_documents_are():
    # shares a (3/4, 1/4), b (1/2, 1/2): within 2 · 10/16 − 1 = 1/4 and 0, between 2 · 1/2 − 1 = 0
    common, own = shared.of_totals(np.array([[[3, 1]], [[5, 5]]]))
    assert common == pytest.approx([0]) and own == pytest.approx([1 / 8])
    rng = np.random.default_rng(0)
    given = rng.integers(1, 9, (9, 3, 5))
    totals = np.stack([given[:4].sum(0), given[4:].sum(0)])
    split = shared.split(given, np.repeat([0, 1], [4, 5]))
    assert shared.of_totals(totals)[0] == pytest.approx(split[0])
    with pytest.raises(ValueError, match="1 groups: must be at least 2"):
        shared.of_totals(totals[:1])


def test_what_another_s_placement_keeps_by_hand():
    # served (3, 1, 2, 2): packed on itself 4 and 4; packed on (4, 4, 0, 0) it is {0, 2}, {1, 3}: 5
    # and 3; random pairings: 4:4, 5:3, 5:3
    served, made = np.array([[3.0, 1, 2, 2]]), np.array([[[4.0, 4, 0, 0]], [[3, 1, 2, 2]]])
    found = drift.between(made, served, 2)
    assert found["fresh"] == 1 and found["stale"] == (5 / 4 + 1) / 2
    assert found["random"] == pytest.approx(7 / 6, abs=0.03)
    kept = (found["random"] - found["stale"]) / (found["random"] - found["fresh"])
    assert found["kept"] == pytest.approx(kept)


def test_copies_follow_the_text_they_were_made_for():
    # two more slots on two devices: (6, 1, 1, 1) copies expert 0 twice; where expert 1 is the busy
    # one instead, its only copy makes its device the busiest
    served = np.array([[1.0, 6, 1, 1]])
    fresh = drift.between(served[None], served, 2, redundant=2)
    assert fresh["stale"] == fresh["fresh"] and fresh["kept"] == 1
    stale = drift.between(np.array([[[6.0, 1, 1, 1]]]), served, 2, redundant=2)
    assert stale["stale"] >= 6 / 4.5 > stale["fresh"]
