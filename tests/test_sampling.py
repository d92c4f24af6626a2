"""What a part of the documents says of the whole: by hand."""

import numpy as np
import pandas as pd
import pytest
import traces

from lib.routing import sampling


def test_documents_that_are_alike_say_it_all_at_once():
    """Every document sends two tokens to expert 0 and one to expert 1: Gini 5/8, two dead."""
    t = traces.made([[[0], [0], [1]] * 8], np.repeat(np.arange(8), 3))
    table = sampling.curve(t, [1, 2, 4, 8], 20, np.random.default_rng(0))
    assert table.documents.tolist() == [1, 2, 4]  # no more than half of them
    assert table.gini.tolist() == [pytest.approx((3 * 2 + 1) / (4 * 3))] * 3
    assert (table.dead == 2).all() and (table.hot == 1).all()
    assert (table[["near_gini", "near_dead", "near_hot"]] == 1).all(None)


def test_documents_that_differ_take_all_of_them():
    """Document d goes to expert d alone, of which each is as busy as the others: of n documents
    4 − n experts seem dead, and Gini is 1 − n/4.
    """
    t = traces.made([[[0], [1], [2], [3]] * 2], np.arange(8))
    table = sampling.curve(t, [1, 2], 400, np.random.default_rng(0)).set_index("documents")
    assert table.dead[1] == 3 and table.gini[1] == pytest.approx(3 / 4)
    same = 1 / 7  # two documents of one expert
    assert table.dead[2] == pytest.approx(2 + same, abs=0.06)
    assert table.gini[2] == pytest.approx(1 / 2 + same / 4, abs=0.02)
    assert table.dead_low[2] == 2 and table.dead_high[2] == 3
    assert (table[["near_gini", "near_dead"]] == 0).all(None)
    assert table.hot[1] == pytest.approx(1 / 4, abs=0.06)  # expert 0 stands for all four


def test_enough_is_from_where_on_it_holds_at_every_larger_size():
    near = dict(near_gini=[1, 0.9, 0.95, 1], near_dead=[1, 1, 1, 1], near_hot=[1, 1, 1, 0.94])
    rows = pd.DataFrame(dict(arm="a", documents=[1, 2, 1000, 2000], dead=[3, 2, 1, 0]) | near)
    found = sampling.enough(rows).set_index("thing").settled
    assert found.to_dict() == {"gini": "1,000", "dead": "1", "hot": "more than 2,000"}
    assert sampling.fewest(rows).to_dict("records") == [{"arm": "a", "dead": 3}]
