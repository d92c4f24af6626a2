"""Errors of predictions, elasticities, published tables and engine costs, worked by hand."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lib.measure import calibrate, elasticity, engine, missed, published, records, validation
from lib.measure.fitting import START, published_s

ABSENT = calibrate.everything({}, 2**20)


def held_out(experiment, machine, errors):
    """Held-out configurations of 100 µs that are predicted too long by these shares."""
    wrong = np.asarray(errors, dtype=float)
    return pd.DataFrame(
        dict(
            experiment=experiment,
            machine=machine,
            case=[f"case {i}" for i in range(len(wrong))],
            group=[str(i) for i in range(len(wrong))],
            part="held_out",
            measured_us=100.0,
            predicted_us=100 * (1 + wrong),
            summed_us=100 * (1 - 2 * wrong),
            error=np.abs(wrong),
        )
    )


TESTS = pd.concat(
    [
        held_out("small exchange", "a", [0.9]),
        held_out("large exchange", "a", np.arange(9) / 10),
        held_out("large exchange", "b", [0.2, 0.4, 0.9]),
        held_out("experts", "b", [0.5]),
        held_out("layer", "a", [0.1, -0.3]),
    ],
    ignore_index=True,
)


def test_scatter_is_of_the_slowest_rank():
    rows = [(-1, 8, 12, 20, 0.1), (-1, 9, 11, 30, 0.3), (0, 1, 1, 1, 9.0)]
    table = pd.DataFrame(rows, columns=["rank", "p10_us", "p90_us", "p99_us", "between_visits"])
    table = table.assign(machine="m", phase="total", p50_us=10.0)
    (found,) = validation.jitter({"layer": table}).to_dict("records")
    assert found == pytest.approx(
        dict(
            machine="m",
            experiment="layer",
            p10_over_p50=0.85,
            p90_over_p50=1.15,
            p99_over_p50=2.5,
            between_visits=0.2,
        )
    )
    assert validation.jitter({}).empty


def test_errors_have_intervals_where_there_are_enough_groups():
    found = validation.errors(TESTS[TESTS.machine == "a"], draws=200).set_index("name")
    assert found.value["exchange_large_median"] == pytest.approx(0.4)
    assert found.value["exchange_large_p95"] == pytest.approx(0.76)
    assert found.value["layer_median"] == pytest.approx(0.2)
    large, layer = found.loc["exchange_large_median"], found.loc["layer_median"]
    assert large.value_low < 0.4 < large.value_high and np.isnan(layer.value_low)


def test_what_errs_together_is_drawn_together():
    tests = held_out("layer", "a", np.arange(16) / 100)
    alone = validation.errors(tests, draws=300).iloc[0]
    pairs = validation.errors(tests.assign(group=np.arange(16) // 2), draws=300).iloc[0]
    assert pairs.value == alone.value
    assert pairs.value_high - pairs.value_low > alone.value_high - alone.value_low


def test_errors_per_machine():
    found = validation.machines(TESTS).set_index(["machine", "experiment"])
    large = found.loc["b", "large exchange"]
    assert large.to_dict() == pytest.approx(
        dict(configurations=3, error_median=0.4, error_p95=0.85, error_most=0.9)
    )
    assert len(found) == 5


def test_the_worst_stand_first_and_are_told():
    worst = validation.worst(TESTS, each=2)
    counts = {"experts": 1, "large exchange": 2, "layer": 2, "small exchange": 1}
    assert worst.groupby("experiment").size().to_dict() == counts
    assert worst[worst.experiment == "layer"].error.tolist() == pytest.approx([0.3, 0.1])
    told = validation.extremes(TESTS).set_index("name").value
    assert told.to_dict() == {
        "worst_experts": "case 0: 100 µs, predicted 150 µs",
        "worst_exchange": "case 2: 100 µs, predicted 190 µs",
        "worst_layer": "case 1: 100 µs, predicted 70 µs",
    }


def test_starting_forms_and_later_machines():
    bare = held_out("layer", "a", [0.2, 0.4, 0.6])
    found = validation.starting(TESTS, bare).set_index("name").value
    assert found["layer_untiled"] == pytest.approx(0.4)
    assert found["layer_untiled_p95"] == pytest.approx(0.58)
    assert found["exchange_large_summed"] == pytest.approx(0.8)  # twice the median of all, 0.4
    later = validation.later(TESTS, "a").set_index("name").value
    assert later["later_large"] == pytest.approx(0.4) and np.isnan(later["later_layer"])
    assert validation.others(TESTS, "a") == "b" and validation.others(TESTS[:5], "a") == "none yet"


def test_the_largest_that_was_fitted():
    table = held_out("large exchange", "a", [0, 0, 0]).assign(
        group=["1048576", "2097152", "4194304"]
    )
    table["part"] = ["fit", "fit", "held_out"]
    assert validation.largest_fitted(table) == 2


def test_absent_machines_are_rows_of_nan():
    tests, _, layers = ABSENT
    assert validation.errors(tests).value.isna().all() and len(validation.errors(tests)) == 8
    assert validation.extremes(tests).value.isna().all() and len(validation.extremes(tests)) == 3
    assert validation.machines(tests).configurations.tolist() == [0, 0, 0, 0]
    assert validation.starting(tests, tests).value.isna().all()
    assert validation.later(tests, "").value.isna().all()
    assert np.isnan(validation.largest_fitted(tests))
    slopes = elasticity.table(layers)
    assert slopes.empty and elasticity.most(slopes, "").isna().all()
    assert elasticity.calm(slopes, "") == "not measured" and elasticity.recorded(layers).empty
    verdict = elasticity.judged(elasticity.rivals(layers))
    assert verdict.configurations == 0 and verdict.drop("configurations").isna().all()
    assert records.described({}).isna().all(axis=None) and records.machines({}) == "no machine yet"


def test_measured_tables_are_described():
    facts = dict(
        measured=3,
        declared=4,
        devices=2,
        versions=dict(torch="2", nccl=None),
        seconds=5.0,
        commit="0123456789abcdef",
        experts_path="loop",
        fewest_visits=1,
        date="2026-01-01",
    )
    (row,) = records.described({"m/layer": facts}).to_dict("records")
    assert row["configurations"] == "3 of 4" and row["commit"] == "0123456"
    assert (row["machine"], row["experiment"], row["visits"]) == ("m", "layer", 1)
    assert records.machines({"n/layer": facts, "m/layer": facts, "m/compute": facts}) == "m, n"


SLOPES = pd.DataFrame(
    [
        ("a", "olmoe", 4, 5, 1.5, 10.0, 0.05, 0.01, 0.09, 0.04, 0.01),
        ("a", "olmoe", 16, 5, 1.5, 10.0, 0.02, -0.01, 0.04, 0.02, 0.00),
        ("a", "new", 4, 5, 3.0, 10.0, 0.50, 0.40, 0.60, 0.30, 0.20),
        ("b", "olmoe", 4, 5, 2.0, 10.0, 0.90, 0.80, 1.00, 0.50, 0.40),
    ],
    columns=elasticity.TABLE,
)


def test_the_highest_elasticity_and_where_there_is_none():
    most = elasticity.most(SLOPES, "a")
    assert most[["beta_most", "beta_most_low", "rho_most"]].tolist() == [0.5, 0.4, 3]
    ends = most[["slowdown_most", "slowdown_most_low", "slowdown_most_high"]]
    assert ends.tolist() == pytest.approx([1.0, 0.8, 1.2])
    assert elasticity.calm(SLOPES, "a") == "OLMoE at 4, 16 tokens per device"
    assert elasticity.calm(SLOPES, "a", below=0.05) == "OLMoE at 16 tokens per device"
    assert elasticity.calm(SLOPES, "b") == "nowhere"


def test_recorded_layers_are_means_over_layers():
    rows = pd.DataFrame(
        dict(
            machine="m",
            routes=["trace_with_1", "trace_with_2", "level", "trace_without_1"],
            tokens=[64, 64, 64, 256],
            rho=[1.0, 2.0, 9.0, 1.5],
            gini=[0.2, 0.4, 0.9, 0.3],
            s=[1e-4, 3e-4, 1.0, 5e-4],
            compute_s=[1e-4, 1e-4, 1.0, 2e-4],
        )
    )
    found = elasticity.recorded(rows).set_index(["arm", "tokens"])
    assert found.loc[("trace_with", 64), "time_us"] == pytest.approx(200)
    assert found.loc[("trace_with", 64), "arithmetic_us"] == pytest.approx(100)
    assert found.loc[("trace_with", 64), "rho"] == 1.5 and len(found) == 2


def layers_of(beta, told, base=1e-4, told_base=1e-4):
    """Layers of one case on straight lines in ρ, measured and predicted, and their even routes."""
    rho = np.array([1, 1.2, 1.4, 1.6, 1.8, 1.9])
    own = dict(machine="m", shape="olmoe", tokens=1024, placement="aimed", level=0.2, seed=0)
    level = pd.DataFrame(dict(rho=rho, s=base * (1 + beta * (rho - 1)))).assign(routes="level")
    level["predicted_s"] = told_base * (1 + told * (rho - 1))
    even = pd.DataFrame(dict(rho=[1.0], s=base, predicted_s=told_base, routes="even"))
    rows = pd.concat([level, even], ignore_index=True).assign(**own)
    return rows.assign(compute_s=rows.s / 2, expert_s=rows.predicted_s / 2)


def test_cost_is_compared_by_hand():
    """Every slowdown is told half as long again; a time twice too long changes no slowdown."""
    found = elasticity.compared(layers_of(0.4, 0.6, told_base=2e-4), draws=20).iloc[0]
    assert found[["beta", "beta_predicted", "beta_difference"]].tolist() == pytest.approx(
        [0.4, 0.6, 0.2]
    )
    assert found.arithmetic_difference == pytest.approx(0.1)  # half of a time makes half of its β
    assert found.slowdown_error == pytest.approx(0.5) and found.n == 6
    slow = 1.2 * 2 / 1.16, 1.24 * 2 / 1.16
    assert found.time_error > 1 and slow[0] < 1 + found.time_error < slow[1] * 1.05
    told = elasticity.cost_errors(elasticity.compared(layers_of(0.4, 0.6), draws=20))
    assert (told.cases, told.beta_where) == (1, "OLMoE at 1024 tokens, aimed")
    none = elasticity.cost_errors(elasticity.compared(ABSENT[2]))
    assert none.cases == 0 and np.isnan(none.beta_off)


def test_the_number_to_watch_is_the_one_that_makes_the_time():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        dict(machine="m", shape="olmoe", routes="level", level=0.2, seed=np.arange(40) % 2)
    ).assign(tokens=np.repeat([16, 1024], 20), rho=rng.uniform(1, 2, 40), gini=rng.random(40))
    rows = rows.assign(rank_active=rng.integers(1, 32, 40), rank_tile_rows=rng.integers(1, 99, 40))
    rows["s"] = np.where(rows.tokens == 16, 1 + rows.rank_active, 1 + rows.rho)
    found = elasticity.watched(elasticity.rivals(rows)).set_index("when")
    assert found.by_active["few"] < 1e-9 < found.by_rho["few"]
    assert found.by_rho["many"] < 1e-9 < found.by_active["many"]


def test_launches_are_told_where_all_were_measured():
    rows = [
        dict(machine="m", size_bytes=size, launch=launch, p50_us=us, skew="even", call="split")
        for size, times in ((1024, (9, 8, 40)), (1 << 26, (250, 250, 260)), (4096, (10,)))
        for launch, us in zip(("queued", "graph", "call"), times, strict=False)
    ]
    table = pd.DataFrame(rows).assign(aligned=1, rank=-1, phase="total")
    found = validation.launched(validation.launches(table))
    assert found[["queued_us", "graph_us", "call_us"]].tolist() == [9, 8, 40]
    assert found[["launch_kib", "launch_mib", "call_over"]].tolist() == [1, 64, 1.04]
    assert validation.launched(validation.launches(table[table.launch == "queued"])).isna().all()


def test_the_balance_loss_on_measured_layers():
    table = pd.DataFrame(dict(machine="m", tokens=[64, 64, 256], time_us=[100.0, 90.0, 10.0]))
    table["arm"] = ["a", "b", "a"]
    found = elasticity.balanced(table, "m", ("a", "b"))
    assert found.balanced.iloc[0] == pytest.approx(0.9) and found.balanced.iloc[1:].isna().all()
    assert elasticity.balanced(table, "other", ("a", "b")).balanced.isna().all()


def test_rivals_are_judged_by_their_mean_errors():
    tested = pd.DataFrame(dict(by_rho=np.full(10, 0.02), by_gini=np.linspace(0.03, 0.12, 10)))
    found = elasticity.judged(tested, draws=200)
    assert found[["configurations", "error_rho"]].tolist() == pytest.approx([10, 0.02])
    assert found.error_gini == pytest.approx(0.075) and found.difference == pytest.approx(-0.055)
    assert found.difference_low < -0.055 < found.difference_high < 0
    few = elasticity.judged(tested[:7])
    assert few.configurations == 7 and np.isnan(few.difference)


# ---- others' tables ----


def test_nodes_that_were_not_fitted_are_predicted():
    """Times made by hand: 10 µs, what leaves the node at 20 µs and 50 GB/s, NVLink at 200 GB/s."""
    cases = [(n, t) for n in (8, 16, 32, 64) for t in (16, 64, 128, 256)]
    table = pd.DataFrame(cases, columns=["devices", "tokens"])
    table = table.assign(kernel="low latency", phase="dispatch")
    table = table.assign(selections=8, bytes_per_selection=7000)
    sent, away = table.tokens * 56_000, 1 - 8 / table.devices
    table["time_us"] = 10 + np.maximum(away * (20 + sent / 5e4), sent * 7 / table.devices / 2e5)
    found = published.by_nodes(table, [8, 16])
    assert found.error.abs().max() < 1e-4 and set(found[found.part == "fit"].devices) == {8, 16}
    assert published.node_errors(found).devices.tolist() == [32, 64]
    with pytest.raises(ValueError, match=r"fitted = \[8, 12\]: must be at least 1 of \[8, 16"):
        published.by_nodes(table, [8, 12])
    off = published.nodes_off(found, "x")
    assert off.x_off < 1e-4 and off.x_fitted == "8, 16"


def test_normal_kernels_send_a_copy_per_node_and_per_device():
    """Distinct nodes and devices of eight experts drawn among those of four nodes, by drawing; and
    times made of them are met where nothing was fitted, at other rates than the first guesses.
    """
    rng = np.random.default_rng(0)
    for devices in (8, 16, 64):
        experts = np.arange(256 * 8 * min(devices // 8, 4) // devices)
        drawn = [rng.choice(experts, 8, replace=False) for _ in range(4000)]
        for told, each in zip(
            published.reached(devices, 8), (2048 // devices, 256 // devices), strict=True
        ):
            seen = np.mean([len(set(one // each)) for one in drawn])
            assert told == pytest.approx(seen, rel=0.01), (devices, each)
    cases = [(n, t) for n in (8, 16, 32, 64) for t in (64, 512, 4096)]
    table = pd.DataFrame(cases, columns=["devices", "tokens"])
    table = table.assign(kernel="normal", phase="combine", selections=8, bytes_per_selection=14336)
    ways = np.array([published.reached(n, 8) for n in table.devices])
    away, row = 1 - 8 / table.devices, table.tokens * 14336
    remote, copies = row * ways[:, 0] * away, row * ways[:, 1] * (1 - 1 / table.devices)
    table["time_us"] = 30 + 9 * (table.devices > 8) + np.maximum(remote / 3e4, copies / 2e5)
    found = published.by_nodes(table, [8, 32], "normal")
    assert found.error.abs().max() < 1e-3 and len(found) == 12
    readme = table[table.tokens == 4096].assign(bytes_per_s=4e10)
    readme, both = (pd.concat([x, x.assign(phase="dispatch")]) for x in (readme, table))
    rates = published.rates(readme, both)
    assert rates[["combine", "dispatch"]].eq(40).to_numpy().all()
    assert rates.dispatch_others.tolist() == rates.combine_others.tolist()
    one, two = (published.reached(n, 8) for n in (8, 16))
    sent = 4096 * 14336e-3 * np.array([one[1], two[0]])
    wanted = sent / readme.time_us.to_numpy()[:2]
    assert rates.combine_others.tolist()[:2] == pytest.approx(wanted)


def test_all_to_alls_of_other_cards_are_judged_by_one():
    cases = [(c, n, b) for c in ("h200", "other") for n in (2, 4, 8) for b in (512, 8192, 65536)]
    table = pd.DataFrame([*cases, ("h200", 2, 1 << 20)], columns=["card", "devices", "bytes"])
    wire = table.bytes * (1 - 1 / table.devices)
    table["time_us"] = (5 + 0.5 * (table.devices - 1) + wire / 4e4) * np.where(
        table.card == "other", 2, 1
    )
    rates = dict(start_s=5e-6, first_s=5e-7, message_s=5e-7, back_share=0.0, large_s=1.0)
    rates |= dict(small_bytes_per_s=4e10, wire_bytes_per_s=1e12, copy_bytes_per_s=np.inf)
    found = published.alltoalls(table, rates)
    assert len(found) == 18 and set(found.card[found.part == "fit"]) == {"h200"}
    off = published.alltoall_off(found).set_index("card")
    assert off.loc["", "alltoall_off"] == off.loc["other", "alltoall_off"] == pytest.approx(0.5)
    assert off.loc["h200"].abs().max() < 1e-4
    assert off.loc["other", "alltoall_used"] == pytest.approx(0.5)
    each = published.alltoall_errors(found)
    assert each.devices.tolist() == [2, 4, 8] * 2
    assert each.error_most[3:].tolist() == pytest.approx([0.5] * 3)


RATES = dict(start_s=3e-5, nic_bytes_per_s=4e10, nvlink_bytes_per_s=2e11)


def kernels(counts=(8, 16, 32, 64, 128)):
    """Times that the model makes of RATES, in the form of data/published/deepep.csv."""
    table = pd.DataFrame(dict(devices=counts, tokens=128, selections=8, bytes_per_selection=7408))
    features = dict(devices=table.devices, bytes=table.tokens * 8 * 7408)
    table["time_us"] = 1e6 * published_s(RATES, features)
    parts = [table.assign(kernel="low latency", phase=phase) for phase in ("dispatch", "combine")]
    return pd.concat(parts, ignore_index=True)


def test_a_table_that_the_model_made_is_met():
    found = published.low_latency(kernels(), [8, 16, 32, 64])
    assert found[["error", "in_sample"]].abs().max().max() < 1e-6
    assert found.nic_gb_per_s.tolist() == pytest.approx([40] * 10)
    assert found[found.part == "held_out"].devices.tolist() == [128, 128]
    assert found[found.devices > 8].left_out.abs().max() < 1e-6
    # only a single node tells NVLink's rate; without it, the rate is the first guess
    local = 128 * 8 * 7408 * 7 / 8
    guess = (3e-5 + local / START["published"]["nvlink_bytes_per_s"]) / (3e-5 + local / 2e11)
    single = found[found.devices == 8].left_out.tolist()
    assert single == pytest.approx([guess - 1] * 2, rel=1e-3)
    summary = published.summary(found)
    assert summary[summary.of == "nic"].deepep.tolist() == pytest.approx([40, 40])
    assert summary.of.tolist() == ["", "left_out", "nic"] * 2 + ["others", "alone"]


def test_the_summary_takes_sizes():
    table = pd.DataFrame(
        dict(
            phase=["dispatch"] * 3,
            devices=[8, 16, 32],
            part=["fit", "held_out", "fit"],
            error=[0.5, -0.3, 0.1],
            in_sample=[0.01, -0.04, 0.02],
            left_out=[-0.9, 0.2, -0.25],
            nic_gb_per_s=47.0,
        )
    )
    found = published.summary(table).set_index(["phase", "of"]).deepep.to_dict()
    assert found == {
        ("dispatch", ""): 0.04,
        ("dispatch", "left_out"): 0.25,
        ("dispatch", "nic"): 47.0,
        ("", "others"): 0.3,
        ("", "alone"): 0.9,
    }


@pytest.mark.parametrize("fitted", [[8, 16, 32], [8, 16, 32, 64, 128], [8, 16, 32, 63]])
def test_numbers_of_devices_that_cannot_be_fitted_are_refused(fitted):
    with pytest.raises(ValueError, match=r"fitted = \[8, 16, 32.*: must be at least 4 of \[8"):
        published.low_latency(kernels(), fitted)


def test_published_rates_and_slowdowns():
    table = pd.read_csv(ROOT / "data/published/deepep.csv")
    others = pd.read_csv(ROOT / "data/published/deepep_normal.csv")
    rates = published.rates(table, others).set_index("devices")
    told = rates[["dispatch", "combine"]]
    assert told.loc[8].tolist() == [153, 158] and told.loc[64].tolist() == [51, 50]
    slowed = published.slowdowns(
        pd.DataFrame(dict(level=[0, 0.2, 0.5], max_time_us=[20.0, 30, 25]))
    )
    assert slowed.slowdown.tolist() == pytest.approx([0, 0.5, 0.25])
    ranges = published.ranges(slowed)
    assert ranges.to_dict() == pytest.approx(
        dict(predecessor_least=0.25, predecessor_most=0.5, claimed_least=0.58, claimed_most=1.04)
    )


# ---- the engine ----


DRAWS = pd.DataFrame(
    [(2, 0, 9, 8.0, 0.1, 0.01), (2, 1, 11, 6.0, 0.1, 0.01), (4, 0, 40, 30.0, 0.2, 0.02)],
    columns=["devices", "draw", "flows", "judge_s", "exact_s", "approximate_s"],
)


def test_cost_against_the_number_of_devices():
    scaled = engine.scaling(DRAWS)
    assert scaled.devices.tolist() == [2, 4] and scaled.draws.tolist() == [2, 1]
    assert scaled.exact_ratio.tolist() == pytest.approx([70, 150])
    assert scaled.exact_ratio_low.tolist() == pytest.approx([60, 150])
    told = engine.least(scaled, devices=2)
    assert told.judge_ratio_least == pytest.approx(60) and told.judge_devices == 4
    assert engine.least(scaled, devices=3)[["judge_ratio", "judge_ratio_least"]].isna().all()


def test_the_largest_differences_to_simgrid():
    judged = pd.DataFrame(
        dict(
            fabric=["star", "star", "rail"],
            devices=[8, 8, 8],
            flows=[5, 56, 10],
            makespan_error=[1e-9, 2e-9, 3e-9],
            flow_error=[5e-9, 1e-9, 0],
            approximate_error=[1e-4, 0, 2e-4],
        )
    )
    agreed = engine.agreement(judged).set_index("fabric")
    assert agreed.loc["star"].tolist() == [8, 56, 2e-9, 5e-9, 1e-4]
    assert engine.furthest(agreed).to_dict() == {
        "simgrid_makespan_error": 3e-9,
        "simgrid_flow_error": 5e-9,
        "simgrid_approximate_error": 2e-4,
    }


TIMED = pd.DataFrame(
    [
        ("SimGrid", "star", "moe", 64, 8.0, "CPU"),
        ("exact", "star", "moe", 64, 0.2, "CPU"),
        ("approximate", "star", "moe", 64, 0.1, "CPU"),
        ("SimGrid", "star", "hot", 64, 3.0, "CPU"),
        ("exact", "star", "hot", 64, 0.3, "CPU"),
        ("approximate", "star", "hot", 64, 0.3, "CPU"),
        ("SimGrid", "star", "moe", 8, 1.0, "CPU"),
        ("bound", "star", "uniform", 1024, 3.0, "CPU"),
        ("two sums", "star", "uniform", 1024, 2.0, "CPU"),
        ("many bounds", "star", "uniform", 16, 1e-9, "CPU"),
        ("many bounds", "star", "uniform", 16, 4e-7, "a card"),
        ("many bounds", "star", "uniform", 32, 2e-7, "another card"),
    ],
    columns=["engine", "fabric", "family", "devices", "seconds", "on"],
)


def test_costs_are_told_as_ratios():
    costs = engine.costs(TIMED).set_index("family")
    assert costs.exact_ratio.to_dict() == pytest.approx({"hot": 10, "drawn routes": 40})
    assert costs.devices.tolist() == [64, 64]
    ratios = engine.ratios(TIMED)
    assert ratios.to_dict() == pytest.approx(
        dict(
            exact_ratio=40,
            exact_ratio_least=10,
            approximate_ratio=80,
            bound_ratio=1.5,
            bounds_millions=5,
        )
    )
    assert engine.fastest(TIMED)[["on", "devices"]].tolist() == ["another card", 32]
    assert engine.fastest(TIMED[:9])["on"] == "no device yet"


def test_what_misses_the_bar_is_told_with_other_readings():
    table = pd.DataFrame(
        dict(
            shape=["mixtral", "olmoe", "qwen3"],
            tokens=1024,
            placement="sorted",
            beta=[0.9, 0.5, 0.3],
            beta_predicted=[0.7, 0.45, 0.39],
            beta_difference=[-0.2, -0.05, 0.09],
            arithmetic_difference=[-0.19, 0.0, 0.045],
            refit_difference=[-0.1, 0.01, 0.02],
            even_difference=[np.nan, 0.08, -0.08],
        )
    )
    assert missed.beyond(table)["shape"].tolist() == ["mixtral", "qwen3"]
    assert missed.told(table).to_dict() == {
        "beta_missed": "Mixtral at 1024 tokens, sorted (-0.200); "
        "Qwen3 at 1024 tokens, sorted (+0.090)",
        "missed_experts": pytest.approx(0.5),
        "refit_within": 2,
        "even_within": 2,
    }
    none = missed.tried(table.iloc[:0], pd.DataFrame(columns=["routes"]), {}, {})
    assert none.empty and missed.told(none).beta_missed == "none"


def test_the_fresh_run_is_judged_as_it_was_before_any_refit():
    """What was written down when the run was read; a later form is another table, not this one."""
    tables, facts, _ = records.load(ROOT / "data/measured")
    fresh = records.fresh(facts)
    assert calibrate.base(tables) == "nvidia-h200-x2" != fresh
    _, _, layers = calibrate.everything(tables, large_bytes=2**20, draws=0)
    found = elasticity.compared(layers[layers.machine == fresh], draws=0)
    found = found[found.tokens >= elasticity.MANY].reset_index(drop=True)
    judged = pd.read_csv(ROOT / "data/measured/judged/costs.csv")
    pd.testing.assert_frame_equal(found[list(judged)], judged, atol=1e-3, check_dtype=False)


def test_two_engines_are_told_side_by_side():
    times = {("ours", 0.0): 10, ("ours", 0.7): 15, ("transformers", 0.0): 20}
    times |= {("transformers", 0.7): 22}
    rows = [dict(engine=e, level=x, rho=1 + x, p50_us=us) for (e, x), us in times.items()]
    plain = dict(machine="m", tokens=64, launch="queued", rank=-1, phase="total")
    table = pd.DataFrame(rows).assign(**plain)
    noise = table.assign(launch="call", p50_us=1.0)
    found = validation.beside({"native": pd.concat([noise, table])})
    assert found.theirs_over_ours.tolist() == pytest.approx([2, 22 / 15])
    assert found.ours_slowdown.tolist() == pytest.approx([0, 0.5])
    assert found.theirs_slowdown.tolist() == pytest.approx([0, 0.1])
    ends = validation.engines(found)
    assert ends.native_few == ends.native_many == 2 and ends.native_ours == pytest.approx(0.5)
    assert validation.engines(validation.beside({})).isna().all()


def test_parts_add_up_and_nothing_lacks_its_prediction():
    layers = pd.DataFrame(dict(compute_s=[1.0], wire_s=[2.0], s=[3.0]))
    assert validation.adds_up(layers) and not validation.adds_up(layers.assign(s=4.0))
    tests = pd.DataFrame(dict(predicted_us=[1.0, np.nan], measured_us=[1.0, np.nan]))
    assert validation.complete(tests) and not validation.complete(tests.assign(measured_us=1.0))


def test_the_furthest_case_and_what_else_is_beyond_the_bar():
    table = pd.DataFrame(
        dict(
            machine=["a", "a", "a", "b"],
            shape=["olmoe", "mixtral", "qwen3", "olmoe"],
            tokens=[1024, 1024, 4096, 64],
            placement="sorted",
            beta_difference=[0.05, -0.3, 0.1, 9.0],
            arithmetic_difference=[0.0, -0.25, 0.1, 9.0],
            slowdown_error=[0.1, 0.2, 0.3, 9.0],
            time_error=0.01,
        )
    )
    fresh, other = elasticity.apart(table, "a")
    assert len(fresh) == 3 and other.empty and "machine" not in fresh
    found = elasticity.cost_errors(fresh)
    assert found[["cases", "beta_within", "beta_off", "beta_experts"]].tolist() == [3, 1, 0.3, 0.25]
    assert found.beta_where == "Mixtral at 1024 tokens, sorted"
    assert found.beta_others == "Qwen3 at 4096 tokens, sorted" and found.slow_off == 0.2


def test_an_interval_of_few_draws_leaves_out_one_at_a_time():
    level, seed = np.repeat([0.2, 0.4, 0.7], 4), np.tile([0, 0, 1, 1], 3)
    rho = np.tile([1.0, 1.5], 6)
    noise = np.random.default_rng(0).normal(0, 0.01, 12)
    rows = pd.DataFrame(dict(level=level, seed=seed, rho=rho, s=1 + 0.5 * (rho - 1) + noise))
    names = dict(machine="m", shape="olmoe", tokens=4096, placement="aimed", routes="level")
    rows = rows.assign(**names, predicted_s=rows.s, compute_s=0.8 * rows.s, expert_s=0.8 * rows.s)
    (found,) = elasticity.compared(rows).itertuples()
    assert found.beta_low < 0.5 < found.beta_high and found.beta_high - found.beta_low < 0.2
    assert found.beta_difference == found.arithmetic_difference == 0
