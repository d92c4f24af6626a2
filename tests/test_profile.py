"""Tables of a trace: against direct computation and hand-worked cases."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import traces

from lib import stats
from lib.routing import observe, parts, profile, trace


@pytest.fixture
def random():
    return traces.random()


def test_layers_are_those_of_the_metrics_and_never_added_up(random):
    table = parts.measured(random, parts.whole)
    assert table.layer.tolist() == [1, 2, 3]
    for name, metric in profile.METRICS.items():
        np.testing.assert_allclose(table[name], [metric(load) for load in random.load])
    found = parts.unbiased(random, parts.whole)
    assert (found.cv2_low <= found.cv2).all()
    nulls = parts.nulls(random, parts.whole, 50, np.random.default_rng(0))
    for kind in ("document_null", "cluster_null"):
        assert (nulls[f"{kind}_low"] < nulls[kind]).all()
        assert (nulls[kind] < nulls[f"{kind}_high"]).all()


def test_a_serving_engine_s_mistake_cannot_happen():
    """One recorder averages over all layers before it divides max by mean; opposite layers then
    look balanced.
    """
    load = np.array([[9, 1], [1, 9]])
    assert (load.sum(0) == 10).all()  # what it reports as perfect balance
    assert stats.max_violation(load).tolist() == pytest.approx([0.8, 0.8])
    with pytest.raises(ValueError, match="shape"):
        trace.Trace(**{**vars(traces.made([[[0, 1]]], [0])), "expert_index": load})


def test_each_puts_the_tables_of_traces_one_below_the_other():
    one, two = traces.made([[[0], [0]]], [0, 0]), traces.made([[[1], [2]], [[3], [3]]], [0, 1])
    table = profile.each(profile.loads, {"a": one, "b": two})
    assert table.to_numpy().tolist() == [
        ["a", 1, 2, 0, 0, 0],
        ["b", 1, 0, 1, 1, 0],
        ["b", 2, 0, 0, 0, 2],
    ]
    assert profile.told(table, 0, by=["arm", "layer"])["b", 1] == 0


def test_size_and_maps_by_hand():
    t = traces.made([[[0, 1], [0, 2], [3, 1]]], [0, 0, 1], domain=[0, 1])
    wanted = dict(layers=1, experts=4, k=2, rule="softmax, raw")  # counted, and as told
    assert profile.shape(t, rule="softmax, raw").to_dict() == wanted
    assert profile.extent(t).to_dict() == dict(tokens=3, documents=2, clusters=2)
    found = {name: load.tolist() for name, load in profile.maps(t).items()}
    assert found == {"all domains": [[2, 2, 1, 1]], "d0": [[2, 1, 1, 0]], "d1": [[0, 1, 0, 1]]}


def test_summary_and_comparison_by_hand():
    """Two layers of known Gini, one with a dead expert; the null of independent tokens by its
    formula.
    """
    table = pd.DataFrame(
        dict(
            arm=["without", "without", "with", "with"],
            layer=[1, 2, 1, 2],
            gini=[0.4, 0.6, 0.1, 0.3],
            cluster_null_high=[0.1, 0.2, 0.1, 0.1],
            document_null=[0.05, 0.07, 0.1, 0.1],
            cluster_null=[0.1, 0.3, 0.2, 0.2],
            max_violation=[1.0, 3.0, 0.5, 0.5],
            dead=[0, 1, 0, 0],
            effective=[10.0, 12.0, 15.0, 15.0],
            router_entropy=np.nan,
        )
    )
    row = profile.summary(table).set_index("arm").loc["without"]
    assert (row.gini, row.gini_least, row.gini_most) == pytest.approx((0.5, 0.4, 0.6))
    assert (row.maxvio, row.dead) == (2.0, 1) and profile.busiest(table)["without"] == 4
    assert row.effective == 11 and np.isnan(row.router_entropy)
    assert row.over_null == pytest.approx(3)
    chance = profile.chance(traces.made([[[0, 1]] * 8], [0] * 8), table)
    found = chance.set_index(["null", "arm"]).gini
    assert found["document_null", "without"] == pytest.approx(0.06)
    assert found["cluster_null", "without"] == pytest.approx(0.2) == found["cluster_null", "with"]
    formula = np.sqrt(2 / 4 * 4 / 16) * np.sqrt(3 / 4 / np.pi)
    assert found["null", ""] == pytest.approx(formula)
    assert profile.compared(table).gini_ratio_most == pytest.approx(0.5)
    assert np.isnan(profile.compared(table[table.arm == "without"]).gini_ratio_most)


def test_tables_of_the_same_rows_stand_side_by_side():
    one = pd.DataFrame(dict(arm=["a", "b"], layer=1, gini=[0.1, 0.2]))
    other = pd.DataFrame(dict(arm=["b", "a"], layer=1, dead=[2, 1]))
    found = profile.joined(one, other, other.rename(columns={"dead": "born"}))
    assert found.to_numpy().tolist() == [["a", 1, 0.1, 1, 1], ["b", 1, 0.2, 2, 2]]


def test_a_cluster_s_documents_are_permuted_together():
    """One cluster of two documents at one expert each, of three: permuted together Gini is that of
    the cluster in every draw, permuted apart the documents meet at one expert in a third of them.
    """
    rng = np.random.default_rng(0)
    index = [[[0], [0], [1], [1]]]
    one = traces.made(index, [0, 0, 1, 1], cluster=[0, 0], experts=3)
    row = parts.nulls(one, parts.whole, 900, rng).iloc[0]
    assert row.cluster_null_low == row.cluster_null_high == pytest.approx(1 / 3)
    assert row.document_null == pytest.approx(2 / 3 * 1 / 3 + 1 / 3 * 2 / 3, abs=0.02)
    two = traces.made(index, [0, 0, 1, 1], experts=3)
    row = parts.nulls(two, parts.whole, 900, rng).iloc[0]
    assert row.cluster_null == pytest.approx(4 / 9, abs=0.02)
    assert (row.cluster_null_low, row.cluster_null_high) == pytest.approx((1 / 3, 2 / 3))


def test_a_domain_of_one_document_has_no_unbiased_cv():
    t = traces.made([[[0], [0], [1], [2]]], [0, 1, 1, 2], domain=[0, 0, 1])
    assert parts.unbiased(t, parts.by_domain).cv2.isna().tolist() == [False, True]


def test_domains_and_documents_are_parts_of_the_whole(random):
    domains = parts.measured(random, parts.by_domain)
    assert len(domains) == 6 and domains.documents.eq(10).all()
    loads = {name: load.sum() for name, load in random.domain_load().items()}
    assert loads == {"d0": 1200, "d1": 1200}
    documents = profile.documents(random)
    assert len(documents) == 60 and documents.groupby("layer").tokens.sum().eq(400).all()


def test_the_mean_within_domains_and_the_share_above_the_null_by_hand():
    rows = pd.DataFrame(dict(arm="a", gini=[0.1, 0.3, 0, 1], cluster_null_high=0.2))
    assert profile.inside(rows).gini_domain[0] == pytest.approx(0.35)
    assert profile.above_null(rows)["a"] == 0.5


def test_places_by_hand():
    """One document of four quarters: the first goes to expert 0, the others to two of the rest."""
    index = [[[0], [0], [1], [2], [1], [2], [3], [1]]]
    row = profile.places(traces.made(index, [0] * 8), {}).iloc[0]
    assert row.gini_all == row.gini_document == pytest.approx(stats.gini([2, 3, 2, 1]))
    assert row.gini_opening == pytest.approx(3 / 4)
    quarters = [row.gini_quarter_2, row.gini_quarter_3, row.gini_quarter_4]
    assert quarters == pytest.approx([stats.gini([1, 1, 0, 0])] * 3)
    assert row.gini_later == row.gini_later_most == pytest.approx(1 / 2)


def test_the_mixture_weighs_domains_whatever_their_tokens():
    """Domain d0 has three tokens at expert 0, d1 one token at expert 1; alike they are even on
    two.
    """
    t = traces.made([[[0], [0], [0], [1]]], [0, 0, 0, 1], domain=[0, 1])
    for weight, load in (
        ({"d0": 1.0, "d1": 1.0}, [1, 1, 0, 0]),
        ({"d0": 3.0, "d1": 1.0}, [3, 1, 0, 0]),
        ({"d0": 0.0, "d1": 1.0}, [0, 1, 0, 0]),
    ):
        found = profile.places(t, weight).gini_mixture[0]
        assert found == pytest.approx(stats.gini(np.array(load, dtype=float)))
    assert np.isnan([profile.places(t, known).gini_mixture[0] for known in ({}, {"d0": 1})]).all()


def test_recording_s_cost_is_timed_in_pairs(tiny_model):
    times = observe.cost(tiny_model, 64, 6)
    assert times.groupby("way").size().to_dict() == {"plain": 6, "record": 6, "router_logits": 6}
    assert (times.seconds > 0).all()


def test_the_cost_is_the_median_of_pairs_in_one_repeat():
    """Recording takes twice the time in each pair, whatever the repeat."""
    seconds = [0.1, 0.2, 0.4, 0.3, 0.1]
    rows = [
        dict(repeat=i, way=way, seconds=s * factor)
        for i, s in enumerate(seconds)
        for way, factor in (("record", 2), ("plain", 1))
    ]
    found = observe.cost_ratios(pd.DataFrame(rows)).set_index("way")
    assert found.index.tolist() == ["plain", "record"]
    assert found.loc["record"].tolist() == pytest.approx([2, 2, 2, 400])
    assert found.loc["plain"].tolist() == pytest.approx([1, np.nan, np.nan, 200], nan_ok=True)


def test_entropies_of_a_router_that_cannot_decide(tiny_model):
    """A gate of zeros gives every expert the same logit: the entropy is ln E in every layer."""
    documents = [SimpleNamespace(token_ids=(3, 4, 5)), SimpleNamespace(token_ids=(6, 7))] * 3
    for layer in tiny_model.model.layers:
        layer.mlp.gate.weight.data.zero_()
    np.testing.assert_allclose(observe.entropies(tiny_model, documents, most=2), 1, rtol=1e-6)


def test_a_document_beyond_the_context_is_refused(tiny_model):
    long = SimpleNamespace(token_ids=tuple(range(2)) * 700, domain="a", cluster="a", name="x")
    with pytest.raises(
        ValueError, match="a document of 1400 tokens: must be at most 1024, the context"
    ):
        observe.trace(tiny_model, [long])
