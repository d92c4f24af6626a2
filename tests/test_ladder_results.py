"""What the ladder's results say, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from lib.commands import ladder_balance, ladder_repairs, ladder_results, ladder_summary


def test_a_mean_over_checkpoints_and_clusters():
    # two checkpoints, 8 clusters: leaving one out moves both by ±.01 in turn
    wave = 0.01 * np.array([1, -1] * 4)
    rows = [np.r_[1.0, 1.0 + wave], np.r_[2.0, 2.0 + wave]]
    one = ladder_results.mean(rows, least=2)
    jackknife = 7 / 8 * 8 * 0.01**2
    assert one["estimate"] == 1.5 and (one["n"], one["clusters"]) == (2, 8)
    assert one["error"] == pytest.approx(np.sqrt(0.5 / 2 + jackknife))
    assert one["freedom"] == 1
    # Student's t of one degree of freedom: 12.706
    assert one["high_all"] - 1.5 == pytest.approx(12.706 * one["error"], rel=1e-4)
    assert one["high"] - 1.5 == pytest.approx(12.706 * 0.5, rel=1e-4)
    few = ladder_results.mean(rows, least=3)  # clusters alone
    assert few["error"] == pytest.approx(np.sqrt(jackknife)) and few["freedom"] == 7
    assert ladder_results.p_above(few, 1.5) == pytest.approx(0.5)
    assert ladder_results.p_above(few) < 1e-6 < ladder_results.p_equivalent(few, 0.005)
    with pytest.raises(ValueError, match="0 checkpoints: must be at least 1"):
        ladder_results.mean([])


def test_verdicts_of_parts():
    assert ladder_results.verdict(0.1, 0.2) == "supported"
    assert ladder_results.verdict(-0.2, -0.1) == "not supported"
    assert ladder_results.verdict(-0.1, 0.1) == "undecided"
    assert ladder_results.together(["supported", "undecided"]) == "undecided"
    assert ladder_results.together(["supported", "not supported"]) == "not supported"
    assert ladder_results.together([]) == "undecided"


def toy(name: str, seed: int, prices: tuple[float, float], start: str = "") -> dict:
    """A result whose re-routing costs `prices` nats per token on two documents of 10 tokens each,
    and dropping .1 more, whatever the policy.
    """
    native = np.array([20.0, 30.0])
    reroute = native + 10 * np.array(prices)
    settings = [{"family": "native", "policy": "native", "nats": native.tolist()}]
    for policy in ("native", "mass"):
        key = {"policy": policy, "gamma": 1.25}
        settings.append({"family": "drop", "nats": (reroute + 1).tolist()} | key)
        settings.append({"family": "reroute", "nats": reroute.tolist()} | key)
    return {
        "job": {"name": name, "seed": seed, "start": start, "loss": "", "coefficient": 0.0},
        "diverged": "",
        "prefix": {"tokens": 10, "cluster": [0, 1], "settings": settings},
    }


def test_prices_of_pairs_by_hand():
    known = [
        toy("none", 1, (0.2, 0.4)),
        toy("switch", 1, (0.0, 0.1)),
        toy("none", 2, (0.3, 0.3)),
        toy("switch", 2, (0.1, 0.1)),
        toy("none", 3, (9.0, 9.0)),  # without a partner: no pair
        toy("embedded-without", 0, (0.4, 0.4), "without"),
        toy("embedded-with", 0, (0.0, 0.0), "with"),
        toy("shape-8-1-none", 1, (0.3, 0.2)),
        toy("shape-8-1-switch", 1, (0.0, 0.0)),
    ]
    results = {f"{r['job']['name']}_{r['job']['seed']}": r for r in known}
    table = ladder_results.prices(results)
    assert table.seed.tolist() == [1, 2]
    assert table["without"].tolist() == pytest.approx([0.3, 0.3])
    assert table["with"].tolist() == pytest.approx([0.05, 0.1])
    assert table.nats_without.tolist() == pytest.approx([2.5, 2.5])
    row = ladder_results.price_difference(results)
    assert (row["n"], row["clusters"]) == (2, 2) and row["estimate"] == pytest.approx(0.225)
    # over pairs: .225 ± 12.706 · .025, the standard error of .25 and .2
    assert row["high"] == pytest.approx(0.225 + 12.706 * 0.025, rel=1e-4)
    moved = ladder_results.transfer(results).set_index(["experts", "k"])
    assert moved.asked.tolist() == pytest.approx([0.2] * 4)
    assert moved.reached.tolist() == [True, False, False, False]
    drop, _ = ladder_results.drop_over_reroute(results)
    assert drop.estimate.tolist() == pytest.approx([0.1, 0.1]) and (drop.n == 3).all()


def test_verdicts_count_the_primary_policy_and_the_transfer():
    def part(hypothesis, name, verdict, p, n=8):
        return dict(hypothesis=hypothesis, part=name, verdict=verdict, p=p, n=n)

    table = pd.DataFrame(
        [
            part("H2a", "native, γ 1", "supported", 0.01),
            part("H2a", "native, γ 1.5", "supported", 0.04, 7),
            part("H2a", "mass, γ 1", "not supported", 0.9),
            part("H5", "difference of prices", "supported", 0.001),
        ]
    )
    one = {"shape-8-1-none": (0.3, 0.3), "shape-8-1-switch": (0.0, 0.0)}
    two = {"embedded-without": (0.4, 0.4), "embedded-with": (0.0, 0.0)}
    starts = {"embedded-without": "without", "embedded-with": "with"}
    results = {name: toy(name, 0, cost, starts.get(name, "")) for name, cost in (one | two).items()}
    found = ladder_summary.verdicts(table, results).set_index("hypothesis")
    assert found.verdict.to_dict() == {"H2a": "supported", "H5": "undecided"}
    assert found.p.to_dict() == {"H2a": 0.04, "H5": 0.001} and found.n["H2a"] == 7


@pytest.mark.parametrize(
    ("highs", "reached", "verdict"),
    [
        ([0.9, 0.9, 0.9, 0.1], [True, True, True, False], "supported"),
        ([0.9, 0.5, 0.5, 0.1], [True, False, False, False], "undecided"),  # two hold what is asked
        ([0.9, 0.3, 0.1, np.nan], [True, False, False, False], "not supported"),
        ([0.9, 0.9, 0.1, np.nan], [True, True, False, False], "undecided"),  # one did not run
    ],
)
def test_a_transfer_is_not_supported_where_intervals_exclude_it(
    highs, reached, verdict, monkeypatch
):
    table = pd.DataFrame(dict(high_all=highs, reached=reached, asked=0.4))
    monkeypatch.setattr(ladder_summary.ladder_results, "transfer", lambda _: table)
    assert ladder_summary._transferred({}) == verdict


def test_the_target_of_a_perfect_router():
    # one expert of two, two tokens: max/nominal is 2 in half of the groups, else 1
    assert ladder_balance.target(2, 2, 1, draws=400) == 1.25 * 2
    # every token uses both: always even
    assert ladder_balance.target(5, 2, 2, draws=50) == 1.25


def test_the_bias_against_its_rival_by_hand():
    # validation: clusters 0 and 2.  Rivals there cost .1 (drop) and .2 (reroute) per token; on the
    # test clusters drop costs .5, the bias .3
    def row(name, family, p95, costs):
        counts = [[[2, 0]] * 1] if family == "native" else []
        nats = [100 + 10 * cost for cost in costs]
        return {"name": name, "family": family, "p95": p95, "nats": nats, "counts": counts}

    own = {
        "group_tokens": 2,
        "tokens": [10, 10, 10, 10],
        "settings": [
            row("native", "native", 3.5, [0, 0, 0, 0]),
            row("biased 1", "biased", 2.0, [0.25, 0.36, 0.25, 0.36]),
            row("biased 2", "biased", 3.0, [0.25, 0.24, 0.25, 0.24]),
            row("drop 1", "drop", 2.5, [0.1, 0.5, 0.1, 0.5]),
            row("reroute 1", "reroute", 2.5, [0.2, 0.1, 0.2, 0.1]),
            row("hashed", "hashed", 3.2, [0.0, 0.0, 0.0, 0.0]),
        ],
    }
    result = {"job": {"name": "none", "seed": 1}, "diverged": "", "decode": own}
    table, difference, facts = ladder_balance.matched(result)
    assert facts["p95"] == facts["target"] == 2.5 and facts["rival"] == "drop"
    assert set(table.family) == {"biased", "drop", "reroute"}  # hashed does not reach it
    assert difference == pytest.approx([-0.2] * 3)
    row_, each = ladder_balance.bias_over_rival({"none_1": result})
    assert row_["estimate"] == pytest.approx(-0.2) and each.rival.item() == "drop"


def test_repairs_at_matched_balance_by_hand():
    def row(loss, coefficient, violation, nats):
        # two experts, one serving batch: MaxVio is what the first has above one half
        serving = [[[10 * (1 + violation), 10 * (1 - violation)]]]
        own = {"serving": serving, "nats": nats, "tokens": [10, 10], "cluster": [0, 1]}
        cost = toy("", 0, (0.1, 0.1))["prefix"]
        return {"loss": loss, "coefficient": coefficient, "profile": own, "prefix": cost}

    repairs = [
        row("start", 0.0, 0.9, [19, 29]),
        row("none", 0.0, 0.8, [20, 30]),
        row("switch", 0.1, 0.4, [21, 31]),
        row("switch", 0.2, 0.2, [22, 33]),
        row("entropy", 0.3, 0.5, [20, 30]),
        row("entropy", 0.5, 0.3, [21, 33]),
    ]
    job = {"name": "repairs", "seed": 1}
    results = {"repairs_1": {"job": job, "repairs": repairs}}
    # the lowest that both reach is .3, half way between the two of Switch: 21.5 and 32
    found = ladder_repairs.equal(results)
    assert found.loss.tolist() == ["entropy"] and found.target.item() == pytest.approx(0.3)
    assert found.estimate.item() == pytest.approx((21 - 21.5 + 33 - 32) / 20)
    cost = ladder_repairs.cost(results).set_index(["loss", "coefficient"])
    assert cost.estimate["none", 0.0] == pytest.approx(0.1)
    assert cost.estimate["switch", 0.2] == pytest.approx(7 / 20)
    assert cost.price["switch", 0.2] == pytest.approx(0.1)
    assert ladder_repairs.cost(results, "none").loss.tolist()[0] == "start"
    assert ladder_repairs.equal({}).empty and ladder_repairs.cheap({}).empty


def test_cheap_repairs_by_hand():
    def row(trained, loss, nats, **more):
        own = {"serving": [[[15, 5]]], "nats": nats, "tokens": [10, 10], "cluster": [0, 1]}
        key = {"trained": trained, "loss": loss, "coefficient": 1.0, "rate": 1.0, "tokens": 2e6}
        return key | {"profile": own, "memory_bytes": 3e9} | more

    price = {"prefix": toy("", 0, (0.1, 0.1))["prefix"]}
    rows = [
        row("", "start", [20, 30], **price),
        row("all", "none", [19, 30], **price),
        row("routers", "switch", [21, 33], **price),
        row("bias", "bias", [20, 31]),
    ]
    job = {"name": "cheap", "seed": 1}
    diverged = {name: rows[2][name] for name in ("loss", "coefficient", "rate", "tokens")}
    rows.append(diverged | {"trained": "all", "diverged": "step 3"})
    found = ladder_repairs.cheap({"cheap_1": {"job": job, "repairs": rows}}).set_index("trained")
    assert found.index.tolist() == ["all", "routers", "bias"]
    assert found.above_start["routers"] == pytest.approx(4 / 20)
    assert found.above_none["routers"] == pytest.approx(5 / 20)
    assert found.max_violation.tolist() == [0.5] * 3 and found.megatokens["bias"] == 2
    assert found.price["routers"] == pytest.approx(0.1) and np.isnan(found.price["bias"])
    assert found.memory_gb["all"] == 3
