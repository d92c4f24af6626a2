"""Prices of other assignments against a recomputation that shares no code with them."""

import json

import independent_assignment
import numpy as np
import pandas as pd
import pytest
import torch

from lib.commands import declared
from lib.routing import adapter, bind, comparison

TABLE = independent_assignment.documents()


@pytest.fixture(scope="module")
def prices():
    return independent_assignment.prices(TABLE).set_index(["arm", "setting", "policy"])


def test_the_price_depends_on_the_weights(prices):
    """Mass-preserving weights cost more than the router's own rule; figures of the published run's
    checkpoint without a balance loss, at the capacity factor that the chapter tells.
    """
    own = prices.loc["without"].delta
    for setting, native, mass in (
        ("reroute 1.25", 0.164, 0.213),
        ("drop 1.25", 0.166, 0.214),
        ("random", 2.04, 2.92),
    ):
        assert own[setting, "native"] == pytest.approx(native, rel=0.02)
        assert own[setting, "mass"] == pytest.approx(mass, rel=0.02)


def test_published_prices_are_those_of_the_chapter(prices):
    """Every setting and policy, as the chapter compares them."""
    decoded = comparison.only(TABLE, protocol="prefix")
    count = 0
    for (arm, setting, policy), own in decoded.groupby(["arm", "setting", "policy"], sort=False):
        native = comparison.only(decoded, arm=arm, setting="native")
        found = comparison.against(own, native)
        wanted = prices.loc[(arm, setting, policy)]
        assert found["delta"] == pytest.approx(wanted.delta, abs=1e-9)
        assert found["perplexity_ratio"] == pytest.approx(wanted.ratio)
        assert found["perplexity"] / found["perplexity_before"] == pytest.approx(wanted.ratio)
        assert found["accuracy_points"] == pytest.approx(wanted.points, abs=1e-9)
        count += 1
    assert count == len(prices) > 80


def published(name):
    return json.loads((independent_assignment.PUBLISHED / "values.json").read_text())["values"][
        name
    ]


@pytest.mark.parametrize("tag", ["", "_with"])
def test_published_values_and_their_intervals_by_clusters(tag):
    """Every price that the chapter tells, and H2a at each capacity factor and policy; intervals by
    draws of our own, so that their ends agree to a tenth of their width.
    """
    arm = tag.removeprefix("_") or "without"
    pairs = {
        f"delta_{name}": ((setting, "native"), ("native", "native"))
        for name, setting in (
            ("reroute", "reroute 1.25"),
            ("drop", "drop 1.25"),
            ("biased", "biased 1"),
            ("random", "random"),
        )
    } | {
        f"drop_over_reroute_{gamma}_{policy}".replace(".", ""): (
            (f"drop {gamma}", policy),
            (f"reroute {gamma}", policy),
        )
        for gamma in ("1", "1.25", "1.5")
        for policy in declared.POLICIES
    }
    for name, (one, other) in pairs.items():
        known = published(name + tag)
        value, *ends = independent_assignment.between(TABLE, arm, one, other)
        assert value == pytest.approx(known["value"], abs=1e-5), name
        width = known["interval"][1] - known["interval"][0]
        assert ends == pytest.approx(known["interval"], abs=0.1 * width), name
        assert known["kind"] == "measured"


@pytest.mark.parametrize("tag", ["", "_with"])
def test_the_rival_of_the_bias(tag):
    """H2b's comparison, of P95 as the chapter tells them."""
    arm = tag.removeprefix("_") or "without"
    (file,) = (independent_assignment.PUBLISHED / "figures").glob("trade_off.csv*")
    runs = pd.read_csv(file)
    p95 = runs[runs.arm == arm].set_index("setting").p95.to_dict()
    level = published(f"level{tag}")["value"]
    name, gap = independent_assignment.rival(TABLE, p95, level, arm)
    assert name == published(f"rival{tag}")["value"]
    assert gap == pytest.approx(published(f"bias_over_rival{tag}")["value"], abs=1e-5)


@pytest.mark.parametrize("policy", declared.POLICIES)
def test_the_p_of_dropping_above_re_routing(policy):
    names = tuple(f"{gamma:g}" for gamma in declared.GAMMAS)
    pairs = {name: (f"drop {name}", f"reroute {name}") for name in names}
    decoded = comparison.only(TABLE, protocol="prefix")
    found = comparison.gaps(decoded, pairs, ["without", "with"]).set_index(["arm", "policy"])
    for arm in ("without", "with"):
        wanted = independent_assignment.largest_p(TABLE, arm, policy, names)
        assert found.p[arm, policy] == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("policy", declared.POLICIES)
@pytest.mark.parametrize(
    "setting", [dict(strategy="reroute", gamma=1), dict(strategy="drop", gamma=1)]
)
def test_weights_of_a_model_from_its_logits(tiny_model, setting, policy, renormalise):
    """Inside a model, the weights of what was re-routed or dropped, from the router's logits."""
    for module in tiny_model.modules():
        if hasattr(module, "norm_topk_prob"):
            module.norm_topk_prob = renormalise
    ids = torch.randint(0, 97, (4, 16), generator=torch.Generator().manual_seed(0))
    bound = bind.bound(dict(setting, policy=policy), torch.zeros(64, dtype=torch.int64))
    seen = []

    def watched(scores, call):
        seen.append((call, *bound(scores, call)))
        return seen[-1][1:]

    with torch.no_grad(), adapter.assign(tiny_model, watched):
        tiny_model(input_ids=ids)
    assert len(seen) == 3
    for call, index, weight in seen:
        kept = weight.numpy() > 0
        changed = kept.mean() < 1 or not torch.equal(index.sort().values, call.index.sort().values)
        wanted = independent_assignment.weights(
            call.logits.double().numpy(), index.numpy(), kept, 2, policy, renormalise
        )
        assert changed
        np.testing.assert_allclose(weight, wanted, rtol=1e-4)
