"""What a loss sees of layers that it adds up: by hand."""

import numpy as np
import pandas as pd
import pytest
from results import STUDY, queue

from lib.balance import pooled


def test_layers_that_are_uneven_in_opposite_ways_look_even():
    """All but even, so that the experts of one of them are all pushed the wrong way."""
    seen = pooled.seen([[300, 100], [100, 299]])
    assert 0 < seen["pooled_gini"] < 1e-3 and seen["pooled_wrong"] == 0.5
    assert seen["pooled_agreement"] == pytest.approx(0)


def test_pooled_by_hand():
    """Shares (3/4, 1/4) and (3/8, 5/8): the pool is (9/16, 7/16), on the side of the first."""
    seen = pooled.seen([[300, 100], [3, 5]])
    assert seen["pooled_gini"] == pytest.approx(1 / 16)
    assert seen["pooled_agreement"] == pytest.approx(0) and seen["pooled_wrong"] == 0.5


def test_by_loss_at_the_middle():
    table = pooled.by_loss(STUDY, queue([0.0, 0.0]))
    assert table.loss.tolist() == ["start", "none", "switch", "entropy", "max"]
    assert table.pooled_gini.tolist() == pytest.approx([1 / 16] * 5)


def points(**gini):
    rows = [dict(loss=loss, gini=value) for loss in gini for value in gini[loss]]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("stock", "end"),
    [([0.5, 0.24], "replace it by the same loss per layer"), ([0.5, 0.21], "have no need to")],
)
def test_advice_is_by_the_most_even_coefficient(stock, end):
    best = pooled.most_even(points(start=[0.1], stock=stock, switch=[0.2, 0.4]))
    assert best.loss.tolist() == ["stock", "switch"] and best.gini.tolist() == [min(stock), 0.2]
    assert pooled.advice(best).startswith(end)


def test_without_the_stock_loss_there_is_no_advice():
    best = pooled.most_even(points(switch=[0.2]))
    assert np.isnan(best.gini[0]) and pooled.advice(best).startswith("not read anything into")
