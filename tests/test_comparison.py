"""Runs compared: paired by document, by cluster, and where they balance equally, by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lib import stats
from lib.routing import beside, comparison

NAMES = list("abcdefghij")


def a_run(number, setting, nats, arm="x", clusters=NAMES, **about):
    """A run over ten documents of ten tokens, as the study writes it."""
    known = dict(arm=arm, protocol="prefix", policy="native", size=np.nan, layer=np.nan)
    known |= dict(authors=about.get("policy", "native") == "native")
    known |= dict(causal=True, gamma=np.nan, p95=1.0, gini=0.1, churn=0.2, kept=0.9, dropped=0.0)
    return pd.DataFrame(
        dict(
            run=number,
            name=[f"{cluster}{i}" for i, cluster in enumerate(clusters)],
            cluster=clusters,
            tokens=10,
            nats=np.broadcast_to(np.asarray(nats, float), len(clusters)),
            correct=4,
            setting=setting,
            family=setting.split()[0],
            **(known | about),
        )
    )


def test_rows_are_chosen_by_what_their_columns_hold():
    table = pd.DataFrame(dict(arm=["x", "x", "y", "y"], size=[1, 2, 2, np.nan]))
    assert comparison.only(table, arm="x", size=2).index.tolist() == [1]
    assert comparison.only(table, size=[1, 2]).index.tolist() == [0, 1, 2]
    assert not len(comparison.only(table, arm="z"))


def test_differences_are_paired_and_tested_by_cluster():
    base = pd.DataFrame(dict(name=NAMES, nats=np.arange(10.0), tokens=10))
    pairs = comparison.difference(base.assign(nats=base.nats + 5), base)
    assert comparison.per_token(pairs) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    noise = np.stack([rng.normal(0, 1, 10), np.full(10, 10.0)], 1)
    assert np.isnan(comparison.p_value(noise, np.arange(10) // 2))  # five clusters
    with pytest.raises(ValueError, match="must be the same, in the same order"):
        comparison.difference(base[::-1], base)


def test_p_is_that_of_the_t_test_where_clusters_are_single_documents():
    """With as many tokens in each, the jackknife of a mean is the textbook's t test."""
    nats = np.random.default_rng(0).normal(1, 1, 12)
    pairs = np.stack([nats, np.full(12, 10.0)], 1)
    expected = scipy_stats.ttest_1samp(nats, 0).pvalue
    assert comparison.p_value(pairs, np.arange(12)) == pytest.approx(expected)
    one_sided = scipy_stats.ttest_1samp(nats, 0, alternative="greater").pvalue
    assert comparison.p_value(pairs, np.arange(12), above=True) == pytest.approx(one_sided)
    other = comparison.p_value(pairs * [-1, 1], np.arange(12), above=True)
    assert other == pytest.approx(1 - one_sided)
    nothing = np.stack([np.zeros(12), np.full(12, 10.0)], 1)
    assert comparison.p_value(nothing, np.arange(12)) == 1.0


def test_runs_are_held_against_the_native_choice_in_groups_of_the_same_size():
    found = comparison.against_native(
        pd.concat(
            [
                a_run(0, "native", 20),
                a_run(1, "drop 1", 25),
                a_run(2, "native", 30, protocol="prefill", size=8),
                a_run(3, "drop 1", 33, protocol="prefill", size=8),
                a_run(4, "drop 1", 21, protocol="layer", layer=0),
                a_run(5, "drop 1", 24, policy="rank"),
                a_run(6, "native", 50, arm="y"),
                a_run(7, "drop 1", 40, arm="y"),
            ]
        )
    )
    expected = [0, 0.5, 0, 0.3, 0.1, 0.4, 0, -1]
    assert found.delta.tolist() == pytest.approx(expected)
    assert found.delta_low.tolist() == found.delta_high.tolist() == pytest.approx(expected)
    assert (found.accuracy == 0.4).all() and found.policy[5] == "rank"
    assert not found.authors[5]


def test_quality_is_told_as_perplexity_and_points_by_hand():
    """Ten documents of ten tokens: 2 nats a token before, 2.5 after; 4 hits of ten before, 3 after
    in every second document.
    """
    before, after = a_run(0, "native", 20), a_run(1, "drop 1", 25)
    after.loc[::2, "correct"] = 3
    found = comparison.against(after, before)
    assert found["perplexity_before"] == pytest.approx(np.exp(2))
    assert found["perplexity"] == pytest.approx(np.exp(2.5))
    for end in ("", "_low", "_high"):
        assert found[f"perplexity_ratio{end}"] == pytest.approx(np.exp(0.5))
    assert found["accuracy"] == pytest.approx(0.35)
    assert found["accuracy_points"] == pytest.approx(-5)
    assert -10 < found["accuracy_points_low"] < -5 < found["accuracy_points_high"] < 0
    noisy = comparison.against(a_run(1, "drop 1", 25 + np.arange(10)), before)
    for end in ("_low", "_high"):
        assert noisy[f"perplexity_ratio{end}"] == pytest.approx(np.exp(noisy[f"delta{end}"]))


def test_intervals_are_missing_below_eight_clusters():
    few = ["a"] * 5 + ["b"] * 5
    found = comparison.against_native(
        pd.concat([a_run(0, "native", 20, clusters=few), a_run(1, "drop 1", 25, clusters=few)])
    )
    assert found.delta[1] == 0.5 and found.loc[1, ["delta_low", "delta_high", "p"]].isna().all()
    assert comparison.family_wise(found).p_holm.isna().all()


def test_the_family_is_all_that_was_tested():
    runs = pd.DataFrame(dict(setting=["native", "a", "b", "c"], p=[1.0, 0.01, np.nan, 0.03]))
    found = comparison.family_wise(runs).p_holm
    assert found.isna().tolist() == [True, False, True, False]
    assert found[[1, 3]].tolist() == pytest.approx([0.02, 0.03])


def test_what_is_told_has_a_row_for_what_was_not_run():
    runs = pd.DataFrame(dict(arm=["x", "x", "y"], setting=["native", "drop 1", "drop 1"]))
    runs = runs.assign(family=["native", "drop", "drop"], delta=[0.0, 0.4, 0.7])
    found = comparison.told(runs, ["drop", "reroute"], ["x", "y"])
    assert found.index.tolist() == found.family.tolist() == ["drop", "reroute"] * 2
    assert found.arm.tolist() == ["x", "x", "y", "y"] and found.tag.tolist() == ["", "", "y", "y"]
    assert found.delta.tolist()[::2] == [0.4, 0.7] and found.delta["reroute"].isna().all()


def test_of_every_strategy_one_setting_is_told():
    runs = pd.DataFrame(
        [
            ("x", "native", "native", np.nan),
            ("x", "drop 1", "native", 1.0),
            ("x", "drop 1.25", "native", 1.25),
            ("x", "drop 1.25", "mass", 1.25),
            ("x", "biased 1", "native", np.nan),
            ("x", "biased 0.5", "native", np.nan),
        ],
        columns=["arm", "setting", "policy", "gamma"],
    )
    runs["family"] = runs.setting.str.split().str[0]
    found = comparison.one_each(runs, 1.25)
    assert found.index.tolist() == [0, 2, 3, 4]


def test_gaps_of_pairs_by_hand():
    noise = np.arange(10.0)
    decoded = pd.concat(
        [
            a_run(0, "drop 1", 25 + noise),
            a_run(1, "reroute 1", 22 + noise),
            a_run(2, "drop 1", 30, arm="y"),
        ]
    )
    pairs = {"more": ("drop 1", "reroute 1"), "less": ("a", "drop 1")}
    found = comparison.gaps(decoded, pairs, ["x", "y"])
    assert found.arm.tolist() == ["x", "y"] and found.tag.tolist() == ["", "y"]
    assert found.loc[0, ["more", "more_low", "more_high"]].tolist() == pytest.approx([0.3] * 3)
    assert found.loc[1].drop(["arm", "tag", "policy", "name"]).isna().all()
    assert found.name.tolist() == ["native", "native_y"]
    assert found[["less", "less_low", "p"]].isna().all(None)


def test_gaps_stand_by_policy_and_their_largest_p_is_told():
    """Under the second policy the sign of one difference changes."""
    noise = np.random.default_rng(0).normal(0, 1, 10)
    decoded = pd.concat(
        [
            a_run(0, "drop 1", 25 + noise),
            a_run(1, "reroute 1", 20),
            a_run(2, "drop 2", 21 + noise),
            a_run(3, "reroute 2", 20),
            a_run(4, "drop 1", 15 + noise, policy="mass"),
            a_run(5, "reroute 1", 20, policy="mass"),
            a_run(6, "native", 10),
        ]
    )
    pairs = {"one": ("drop 1", "reroute 1"), "two": ("drop 2", "reroute 2")}
    found = comparison.gaps(decoded, pairs, ["x"]).set_index("policy")
    assert found.index.tolist() == ["native", "mass"]
    assert found.one.tolist() == pytest.approx([0.5 + noise.mean() / 10, -0.5 + noise.mean() / 10])
    wanted = scipy_stats.ttest_1samp(1 + noise, 0, alternative="greater").pvalue
    assert found.p["native"] == found.p_holm["native"] == pytest.approx(wanted)
    eight = comparison.gaps(decoded, pairs, ["x"], others=7).set_index("policy")
    assert eight.p_holm["native"] == pytest.approx(min(8 * wanted, 1))
    assert np.isnan(found.two["mass"]) and np.isnan(found.p["mass"])


def test_policies_are_held_against_each_other():
    documents = pd.concat(
        [
            a_run(0, "native", 10),
            a_run(1, "drop 1", 20),
            a_run(2, "drop 1", 23, policy="mass"),
            a_run(3, "drop 2", 30, policy="mass"),
            a_run(4, "drop 3", 22),
            a_run(5, "drop 3", 29, policy="mass"),
        ]
    )
    found = beside.policy_gaps(documents, ["x", "y"])
    assert found.mass_least.tolist() == ["drop 1", "none"] and found.tag.tolist() == ["", "y"]
    assert found.mass_over_native[0] == found.mass_over_native_low[0] == pytest.approx(0.3)
    assert np.isnan(found.mass_over_native[1])
    wide = beside.by_policy(comparison.against_native(documents))
    assert wide[["setting", "delta_native", "delta_mass"]].values.tolist() == [
        ["drop 3", pytest.approx(1.2), pytest.approx(1.9)],
        ["drop 1", pytest.approx(1.0), pytest.approx(1.3)],
    ]


def test_an_interval_is_that_of_the_clusters():
    pairs = np.stack([np.random.default_rng(1).normal(size=20), np.full(20, 5.0)], 1)
    clusters = np.arange(20) // 2
    found = comparison.estimate("x", pairs, clusters)
    limits = stats.bootstrap_interval(pairs, comparison.per_token, clusters)
    assert (found["x_low"], found["x_high"]) == pytest.approx(limits)
    assert found["x"] == pairs[:, 0].sum() / 100


def test_strategies_are_compared_at_one_balance():
    curve = pd.DataFrame(dict(setting=["a", "b", "c"], p95=[1.0, 2.0, 4.0], delta=[0.4, 0.2, 0.0]))
    assert comparison.at_balance(curve, 1.5) == ("a", "b", 0.5)
    assert comparison.at_balance(curve, 3.0) == ("b", "c", 0.5)
    assert comparison.at_balance(curve, 0.5) is None


@pytest.fixture
def decoded():
    """Clusters a, c, e, g, i are the validation half.  At a p95 of 2 the bias costs 3 nats a
    document, half of its 6 at 1; the cheaper rival there is "rob", by 2 on the validation half,
    though it costs 5 on the other, and "sam" 4 on both.
    """
    rob = np.where(np.arange(10) % 2 == 0, 2, 5)
    return pd.concat(
        [
            a_run(0, "native", 10, p95=3.0),
            a_run(1, "biased 1", 16, p95=1.0),
            a_run(2, "rob 1", 10 + rob, p95=2.0),
            a_run(3, "sam 1", 18, p95=1.0),
            a_run(4, "far 1", 11, p95=2.5),
        ]
    )


def test_costs_at_one_level_by_hand(decoded):
    level = comparison.at_level(decoded, {"x": 2.0})
    assert set(level.family) == {"biased", "rob", "sam"}  # one is out of reach
    assert comparison.halves(level).family.tolist() == ["biased", "rob", "sam"]
    found = comparison.halves(level).set_index("family")
    assert found.loc["biased", ["validation", "test"]].tolist() == pytest.approx([0.3, 0.3])
    assert found.loc["rob", ["validation", "test"]].tolist() == pytest.approx([0.2, 0.5])
    assert found.loc["sam", ["validation", "test"]].tolist() == pytest.approx([0.4, 0.4])
    assert found.between["biased"] == "biased 1 and native"
    assert sorted(set(level.cluster[level.validation])) == list("acegi")


def test_the_rival_is_chosen_on_one_half_and_met_on_the_other(decoded):
    both = pd.concat([decoded, decoded.assign(arm="y")[decoded.family != "biased"]])
    level = comparison.at_level(both, dict(x=2.0, y=2.0))
    found = comparison.against_rival(level, ["x", "y", "z"]).set_index("arm")
    assert found.rival.tolist() == ["rob", "rob", "none that reaches it"]
    assert found.bias_over_rival["x"] == pytest.approx(-0.2)  # 0.3 − 0.5, not 0.3 − 0.2
    assert np.isnan(found.bias_over_rival_low["x"])  # five clusters
    assert found.bias_over_rival[["y", "z"]].isna().all()


def test_nothing_reaches_the_level(decoded):
    level = comparison.at_level(decoded, {"x": 0.5})
    assert not len(level) and not len(comparison.halves(level))
    assert comparison.against_rival(level, ["x"]).rival.tolist() == ["none that reaches it"]


def test_where_the_bias_does_not_reach_the_target_its_lowest_level_is_taken(decoded):
    runs = pd.concat([decoded, decoded.assign(arm="y", p95=0.5 + decoded.p95)])
    found = comparison.reach(runs, 1.25, ["y", "x", "z"], "biased").set_index("arm")
    assert found.reached[["x", "y"]].tolist() == [1.0, 1.5]
    assert found.level[["x", "y"]].tolist() == [1.25, 1.5] and found.tag.tolist() == ["", "x", "z"]
    assert np.isnan(found.reached["z"])


def test_protocols_stand_side_by_side():
    runs = pd.DataFrame(
        dict(
            arm="x",
            authors=True,
            setting=["a", "a", "b"],
            protocol=["prefix", "prefill", "prefix"],
            delta=[0.1, 0.2, 0.3],
            p95=[1.0, 2.0, 3.0],
        )
    )
    found = beside.side_by_side(runs).set_index("setting")
    assert found.loc["a"].drop("arm").to_dict() == dict(
        delta_prefill=0.2, delta_prefix=0.1, p95_prefill=2.0, p95_prefix=1.0
    )
    assert found.index.tolist() == ["a"]  # the other was not tried by both
