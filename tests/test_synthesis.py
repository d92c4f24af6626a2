"""The tables of the synthesis, from the published results of other checkpoints."""

import numpy as np
import pandas as pd
import pytest

from lib import stats
from lib.commands import declared, hypotheses, ladder_profile, ladder_results, synthesis


@pytest.fixture(scope="module")
def results():
    return synthesis.published()


def test_the_price_is_the_mean_over_pairs(results):
    table = synthesis.prices(results).pivot(index="seed", columns="arm", values="price")
    gaps = table["without"] - table["with"]
    found = synthesis.price_difference(results).iloc[0]
    assert found.checkpoints == len(gaps) == len(declared.SEEDS)
    assert found.estimate == pytest.approx(gaps.mean(), rel=1e-12)
    low, high = stats.mean_interval(gaps.to_numpy())  # over checkpoints alone: never wider
    assert found.estimate_low <= low and high <= found.estimate_high


def test_a_gain_is_less_nats_on_the_same_documents(results):
    models = ladder_profile.models(results)
    found = synthesis.quality(results, models).set_index("loss")
    per_token = []
    for seed in declared.SEEDS:
        one, other = (results[f"{name}_{seed}"]["profile"] for name in ("none", "switch"))
        tokens = np.sum(one["tokens"])
        assert tokens == np.sum(other["tokens"])
        per_token.append((np.sum(one["nats"]) - np.sum(other["nats"])) / tokens)
    assert found.gain["switch"] == pytest.approx(np.mean(per_token), rel=1e-6)
    assert found.checkpoints.to_dict() == {"switch": 8, "embedded": 1} | dict.fromkeys(
        synthesis.FROM_START, 2
    )
    assert (found.gain_low < found.gain).all() and (found.gain < found.gain_high).all()


def test_holm_counts_what_was_not_run(results):
    columns = ladder_results_columns()
    table = pd.DataFrame(
        [
            dict.fromkeys(columns, 0.0)
            | dict(hypothesis="H1", part="Φ", n=8, p=0.001, verdict="supported"),
        ]
    )
    found = hypotheses.family(table, results).set_index("hypothesis")
    assert found.index.tolist() == list(declared.FAMILY)
    assert found.p_holm["H1"] == pytest.approx(0.001 * len(declared.FAMILY))
    assert found.verdict["H4"] == "not run" and found.p_holm["H4"] == 1
    assert found.checkpoints.tolist() == [8] + [0] * (len(declared.FAMILY) - 1)


def test_what_the_validation_decides_is_no_longer_not_run(results):
    parts = pd.DataFrame(
        dict(
            hypothesis=["h4", "h4", "h6b", "h6b"],
            part=["few", "many", "few", "many"],
            p=[0.6, 0.004, 2e-6, 0.02],
            verdict=["undecided", "supported", "supported", "supported"],
        )
    )
    table = pd.DataFrame(columns=["hypothesis", "part", *ladder_results_columns()])
    found = hypotheses.family(table, results, parts).set_index("hypothesis")
    assert found.verdict[["H4", "H6b", "H6a"]].tolist() == ["undecided", "supported", "not run"]
    assert found.p[["H4", "H6b"]].tolist() == [0.6, 2e-6] and found.checkpoints["H6b"] == 0


def ladder_results_columns():
    from lib.commands import ladder_summary

    return ["margin", *ladder_summary.COLUMNS]


def test_the_weakest_repair_and_names_for_values():
    losses = ["switch", "switch", "none", "gini"]
    table = pd.DataFrame({"loss": losses, "coefficient": [2.0, 1.0, 0.0, 3.0]})
    assert synthesis.weakest(table).coefficient.tolist() == [0.0, 1.0]
    parts = pd.DataFrame({"name": ["x", ""], "estimate": [1, 2], "estimate_low": [0, 1]})
    shares = pd.DataFrame({"quantity": ["kept"], "arm": ["with"], "estimate": [3]})
    named = synthesis.named(parts, shares)
    assert named[["name", "of", "value"]].to_numpy().tolist() == [["x", "", 1], ["kept", "with", 3]]
    assert named.value_low[0] == 0 and named.value_low.isna()[1]
    rows = synthesis.long(table.assign(repair_low=0.5, repair=1.0), "repair", "coefficient")
    assert rows.name.tolist() == ["repair"] * 4 + ["coefficient"] * 4
    assert rows.value.tolist() == [1.0] * 4 + [2.0, 1.0, 0.0, 3.0]
    assert rows.value_low[0] == 0.5 and rows.value_low.isna()[4]


def test_shapes_that_reach_what_was_declared(results):
    table = synthesis.transfer(results)
    assert table["shape"].tolist() == [f"{e}, top {k}" for e, k in declared.TRANSFER_SHAPES]
    assert (table.found_again == (table.estimate >= table.asked)).all()
    embedded = ladder_results.price(results["embedded-without_0"])[0]
    embedded -= ladder_results.price(results["embedded-with_0"])[0]
    assert table.asked.iloc[0] == pytest.approx(declared.TRANSFER_SHARE * embedded)


def test_when_imbalance_begins_and_settles():
    """A placement that happens to fit once is not settled."""
    table = pd.DataFrame({"tokens_m": [1.0, 2, 3, 4], "gini": 0.5, "settled": [0.9, 0.1, 0.6, 1]})
    found = synthesis.begins(table).set_index("when")
    assert found.tokens_m.to_dict() == {"first": 1, "half": 3}
    assert found.settled.to_dict() == {"first": 0.9, "half": 0.6}


def test_nats_as_perplexity_by_hand():
    """A cost of ln 2 doubles perplexity; a gain of it, up to ln 4, halves it, down to a quarter."""
    two = np.log(2)
    table = pd.DataFrame({"x": [two], "x_low": [0.0], "x_high": [2 * two]})
    ends = ["perplexity_by", "perplexity_by_low", "perplexity_by_high"]
    cost = synthesis.as_perplexity(table, "x")[ends].iloc[0]
    assert cost.tolist() == pytest.approx([1, 0, 3])
    gain = synthesis.as_perplexity(table, "x", sign=-1)[ends].iloc[0]
    assert gain.tolist() == pytest.approx([-0.5, -0.75, 0])
