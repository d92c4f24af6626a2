"""Batches of serving size: worked by hand, and against the routes that they are cut from."""

import numpy as np
import pandas as pd
import pytest
import traces

from lib import stats
from lib.routing import profile, serving, trace


def test_samples_are_batches_of_each_trace_and_of_the_null():
    """A router that sends all to expert 0 has Gini 3/4 and MaxVio 3 in every batch."""
    hot = traces.made(np.zeros((2, 40, 1), int), np.repeat(np.arange(4), 10))
    table = serving.samples(hot, 8, 5, np.random.default_rng(0))
    assert len(table) == 2 * 5
    assert (table.gini == 3 / 4).all() and (table.max_violation == 3).all()
    null = serving.perfect(hot, 8, 5, np.random.default_rng(0))
    assert null.arm.tolist() == ["null"] * 5
    even = null.gini
    assert 0 < even.mean() < 2 * stats.gini_null(8, 4, 1)


def test_a_short_text_is_one_batch():
    t = traces.made([[[0], [1], [2], [3]]], [0, 0, 1, 1])
    table = serving.samples(t, 1000, 3, np.random.default_rng(0))
    assert (table.gini == 0).all()


def test_percentiles_by_hand():
    table = pd.DataFrame(dict(arm="a", gini=0.5, max_violation=np.arange(101.0)))
    row = serving.tail(table).iloc[0]
    assert (row.batch_maxvio_p50, row.batch_maxvio_p95, row.batch_maxvio_p99) == (50, 95, 99)
    assert row.batch_gini_p99 == 0.5
    both = pd.DataFrame(dict(arm=["null", "a"]))
    parts = {kind: part.arm.tolist() for kind, part in serving.kinds(both)}
    assert parts == {"measured": ["a"], "synthetic": ["null"]}


def test_the_curve_falls_for_the_null_as_its_formula_says():
    t = traces.random(layers=2, documents=20, tokens=120)
    table = serving.sizes({"random": t}, [64, 256, 1024, 4096], 60, np.random.default_rng(0))
    assert table.tokens.tolist() == [64, 256, 1024] * 2
    null = table[table.arm == "null"]
    formula = [stats.gini_null(size, 4, 2) for size in null.tokens]
    assert null.gini.to_numpy() == pytest.approx(formula, rel=0.2)
    assert serving.largest(table)["null"] == null.gini.iloc[-1]
    assert ((table.gini_low <= table.gini) & (table.gini <= table.gini_high)).all()


def test_a_prompt_repeated_is_as_uneven_as_the_prompt():
    """Document 0 begins with experts 0 and 1, document 1 stays at expert 2; of the third there is
    one token only.  Any number of copies has the same load over its mean.
    """
    index = [[[0], [1], [3], [2], [2], [2], [3]]]
    t = traces.made(index, [0, 0, 0, 1, 1, 1, 2])
    table = serving.repeated(t, 2)
    assert table.gini.tolist() == [0.5, 0.75, 0.75]
    assert table.max_violation.tolist() == [1, 3, 3]
    copies = trace.counts(np.tile([[0, 1]], 50), 4)
    assert stats.max_violation(copies) == table.max_violation[0]
    batches = serving.repeats(t, 6, 5, np.random.default_rng(0), prompt=2)
    copies = {(0, 1) * 3, (3, 4) * 3, (6,) * 6}
    assert {tuple(row) for row in batches.tolist()} == copies and batches.shape == (5, 6)
    attacked = stats.max_violation(profile.batch_loads(t, batches))[0]
    assert sorted(attacked) == sorted(table.max_violation[batches[:, 0] // 3])
    null = serving.perfect(t, 3, 5, np.random.default_rng(0))
    both = serving.tail(null, table.assign(arm="repeated_a"))
    assert both.arm.tolist() == ["null", "repeated_a"]
