"""Tables of finished runs: by hand."""

import numpy as np
import pandas as pd
import pytest
from results import CLUSTERS, STUDY, queue
from scipy import stats as scipy_stats

from lib.balance import runs
from lib.balance.study import Job


def half(samples):
    """Half a 95 % interval of the mean of two samples."""
    return scipy_stats.t.ppf(0.975, 1) * np.std(samples, ddof=1) / np.sqrt(2)


def test_a_row_per_run_has_means_over_layers():
    table = runs.table(queue([0.0]))
    row = table.iloc[1]
    assert (row.loss, row.coefficient, row.seed, row.nats) == ("none", 0.0, 0, 2.0)
    assert (row.max_violation, row.gini, row.router_entropy) == (4.0, 0.2, 1.5)
    assert row.tokens_per_s == 2e3 and np.isnan(table.tokens_per_s[0])


def test_what_diverged_is_in_no_table():
    found = queue([0.0])
    found[Job("max", 0.1, 0)] = {"diverged": "step 2: loss = nan"}
    assert "max" not in runs.table(found).loss.tolist()
    told = runs.counted(found, list(found))
    assert (told.runs, told.runs_diverged, told.seeds) == (4, 1, 0)
    assert runs.settings(STUDY, list(found), found).runs_asked == 5


def test_without_the_start_or_on_other_documents_nothing_is_compared():
    found = queue([0.0])
    jobs = list(found)
    assert runs.checked(found, jobs) is found
    found[Job("none", 0.0, 0)]["held_out"]["documents"] = {"names_sha256": "b"}
    with pytest.raises(ValueError, match="runs: held-out documents differ: must be the same"):
        runs.checked(found, jobs)
    del found[jobs[0]]
    with pytest.raises(ValueError, match="was not evaluated: time_budget_s must allow one run"):
        runs.checked(found, jobs)


def test_tokens_are_counted_and_devices_named():
    found = queue([0.0, 0.0])
    told = runs.counted(found, list(found))
    assert (told.seeds, told.documents, told.unique_tokens_m) == (2, CLUSTERS, 1e-3)
    told = runs.settings(STUDY, list(found), found, home="here")
    assert (told.tokens_m, told.batch_kilotokens, told.home) == (8e-4, 0.2, "here")
    assert told.training_device == "abacus"
    start = {job: one for job, one in found.items() if job.loss == "start"}
    assert runs.settings(STUDY, list(found), start).training_device == "none"


def test_what_is_told_has_a_row_per_number():
    one = pd.DataFrame({"loss": ["none", "gini"], "nats": [1.0, 2.0], "nats_low": [0.5, np.nan]})
    other = pd.DataFrame({"loss": ["gini"], "nats": [5.0], "gini": [0.2]})
    table = runs.told(one, other, tag="best", nats=["gini", "none", "max"], gini=["gini"])
    assert table.thing.tolist() == ["nats"] * 3 + ["gini"] and set(table.tag) == {"best"}
    assert table.loss.tolist() == ["gini", "none", "max", "gini"]
    assert table.value.tolist() == pytest.approx([2.0, 1.0, np.nan, 0.2], nan_ok=True)
    assert table.value_low[1] == 0.5 and table.value_high.isna().all()
    with pytest.raises(ValueError, match=r"runs.told: churn: must be a column of a table"):
        runs.told(one, churn=["none"])
    rows = runs.named(pd.Series(dict(nats=1.0, nats_low=0.5, nats_high=1.5, gini=0.2)), tag="x")
    assert rows.thing.tolist() == ["nats", "gini"] and set(rows.loss) == {""}
    assert rows.value.tolist() == [1.0, 0.2] and rows.value_high[0] == 1.5
    assert runs.named(dict(words="yes", gini=0.2), "words").value.tolist() == ["yes"]


def test_claims_of_balance_name_the_loss():
    assert runs.balancing("switch", "entropy") == [
        (
            f"balances_{name}",
            f"Training with the {words} loss ends more even than without a loss.",
            f"gini_{name} < gini_none",
        )
        for name, words in (("switch", "Switch"), ("entropy", "entropy"))
    ]


def test_only_whole_seeds_are_complete():
    found = queue([0.0, 0.0, 0.0])
    jobs = list(found)
    del found[Job("max", 0.1, 1)]
    assert runs.complete(runs.table(found), jobs) == [0, 2]


def test_averages_have_intervals_where_there_are_seeds():
    by = ["loss", "coefficient"]
    table = runs.averaged(runs.table(queue([0.0, 0.1])), by, ["nats"]).set_index("loss")
    start, entropy = table.loc["start"], table.loc["entropy"]
    assert (start.seeds, start.nats) == (1, 1.9) and np.isnan(
        [start.nats_low, start.nats_high]
    ).all()
    d = half([2.2, 3.3])
    told = (entropy.nats_low, entropy.nats, entropy.nats_high)
    assert told == pytest.approx((2.75 - d, 2.75, 2.75 + d))


def test_the_middle_of_four_coefficients_is_the_second():
    given = {"switch": [0.3, 0.03, 0.17, 0.1], "gini": [1.0, 0.1, 0.5], "none": [0.0]}
    assert runs.middle(given) == {"switch": 0.1, "gini": 0.5, "none": 0.0, "start": 0.0}


def test_by_loss_is_at_the_middle_in_the_order_of_the_study():
    table = runs.by_loss(STUDY, queue([0.0, 0.1]))
    assert table.loss.tolist() == ["start", "none", "switch", "entropy", "max"]
    assert table.coefficient.tolist() == [0, 0, 0.1, 0.1, 0.1]
    switch = table.iloc[2]
    assert (switch.nats, switch.max_violation, switch.rate) == (2.6, 2.0, 2.0)
    assert switch.nats_high == pytest.approx(2.6 + half([2.1, 3.1]))
    assert np.isnan(table.rate[0])


def test_rows_of_losses_that_are_not_there_are_nan():
    rows = runs.of(pd.DataFrame({"loss": ["none", "gini"], "nats": [1.0, 2.0]}), "gini", "switch")
    assert rows.loss.tolist() == ["gini", "switch"]
    assert rows.nats[0] == 2 and np.isnan(rows.nats[1])


def test_by_coefficient_rises_within_a_loss():
    table = runs.by_coefficient(STUDY, queue([0.0, 0.1]))
    assert table.loss.tolist() == ["start", "none", "switch", "switch", "entropy", "max"]
    assert table.coefficient[2:4].tolist() == [0.1, 0.3]
    assert table.max_violation.tolist() == [4, 4, 2, 1, 1.5, 3]


def test_curves_and_layers_are_means_over_seeds():
    found = queue([0.0, 0.0])
    found[Job("switch", 0.1, 1)]["curve"][2]["gini_0"] = 1.0
    curves = runs.curves(STUDY, found)
    assert set(curves.loss) == {"none", "switch", "entropy", "max"}
    last = curves[(curves.loss == "switch") & (curves.step == 2)]
    assert last.layer.tolist() == [1, 2] and last.gini.tolist() == pytest.approx([2 / 3, 0.5])
    ends = runs.ends(curves).set_index("loss").train_gini
    assert ends["switch"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert ends["max"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    layers = runs.layers(STUDY, found)
    assert layers[layers.loss == "start"].gini.tolist() == [0.1, 0.3]
    assert (layers.seeds == np.where(layers.loss == "start", 1, 2)).all()
