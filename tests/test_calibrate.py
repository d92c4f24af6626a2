"""Calibration: parameters that made the times are found again; nothing is fitted on too little."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lib.measure import calibrate, elasticity, fitting, grid, records
from lib.network import cost

TRUE = {
    "exchange": dict(
        start_s=1.2e-5,
        first_s=1.5e-6,
        back_share=0.3,
        small_bytes_per_s=1.6e11,
        large_s=2.6e-5,
        wire_bytes_per_s=3.6e11,
        copy_bytes_per_s=9e11,
    ),
    "expert": dict(start_s=1.5e-5, memory_bytes_per_s=3.9e12, flop_per_s=6.1e14, join=2.0),
}


def exchanges(devices=4):
    table = pd.DataFrame(grid.exchanges(devices))
    table = table.assign(phase="total", devices=devices, machine=f"gpu-x{devices}", **{"rank": -1})
    return table.assign(p50_us=1e6 * cost.exchange_s(TRUE["exchange"], calibrate.sent(table)))


def computes():
    table = pd.DataFrame(grid.computes()).assign(phase="total", machine="gpu-x2", **{"rank": -1})
    return table.assign(p50_us=1e6 * cost.expert_s(TRUE["expert"], calibrate.shaped(table)))


def test_an_exchange_is_found_again_and_predicted_elsewhere():
    both = pd.concat([exchanges(4), exchanges(8)], ignore_index=True)
    rows, fits = calibrate.exchanges(both, "gpu-x4", draws=20)
    for name, value in TRUE["exchange"].items():
        assert fits["split"].parameters[name] == pytest.approx(value, rel=1e-3)
        low, high = fits["split"].intervals[name]
        assert low <= value * 1.001 and high >= value * 0.999
    assert calibrate.errors(rows[rows.call == "split"]).max() < 1e-3
    assert (rows[rows.machine == "gpu-x8"].part == "held_out").all() and set(rows.aligned) == {1}


def test_what_is_held_out_does_not_touch_the_fit():
    table = exchanges()
    broken = table.assign(p50_us=np.where(table.part == "held_out", 9 * table.p50_us, table.p50_us))
    one, other = (
        calibrate.exchanges(t, "gpu-x4", draws=0)[1]["split"].parameters for t in (table, broken)
    )
    assert one == other


def test_experts_are_found_again():
    rows, fits = calibrate.computes(computes(), draws=0)
    assert set(fits) == {("gpu-x2", name) for name in ("olmoe", "mixtral", "qwen3")}
    assert calibrate.errors(rows).max() < 0.02
    for made in fits.values():
        for name in ("start_s", "memory_bytes_per_s"):
            assert made.parameters[name] == pytest.approx(TRUE["expert"][name], rel=0.05)


def test_intervals_cover_what_made_the_times():
    table, covered = exchanges(), []
    for seed in range(12):
        noise = np.exp(np.random.default_rng(seed).normal(0, 0.02, len(table)))
        _, fits = calibrate.exchanges(table.assign(p50_us=table.p50_us * noise), "gpu-x4", draws=60)
        covered += [
            low < TRUE["exchange"][name] < high
            for name, (low, high) in fits["split"].intervals.items()
        ]
    assert np.mean(covered) > 0.8


def test_a_layer_is_the_sum_of_its_parts():
    exchange = fitting.Fit(cost.exchange_s, TRUE["exchange"], {}, np.zeros(0))
    expert = fitting.Fit(cost.expert_s, TRUE["expert"], {}, np.zeros(0))
    measured = []
    for c in [
        c for c in grid.layers(2, {}, grid.Grid(tokens=(16, 64, 256))) if c["shape"] != "mixtral"
    ]:
        plain = {k: v for k, v in c.items() if k not in ("index", "home", *records.OF_RANK)}
        plain["source_bytes"] = c["tokens"] * 2 * 8 * 2048
        ranks = pd.DataFrame(
            {"shape": [c["shape"]] * 2} | {name: c[name] for name in records.OF_RANK}
        )
        compute = expert(calibrate.shaped(ranks, "rank_"))
        sent = calibrate.sent(pd.DataFrame([plain]))
        total = compute.max() + 2 * exchange(sent)[0] + 4e-5
        total += plain["source_bytes"] / 5e11 + c["own_bytes"] / 1.4e12
        for rank, numbers in enumerate(ranks.drop(columns="shape").to_dict("records")):
            own = plain | numbers | dict(machine="gpu-x2", rank=rank)
            measured += [
                own | dict(phase="total", p50_us=1e6 * total),
                own | dict(phase="compute", p50_us=1e6 * compute[rank]),
            ]
        slow = (
            plain
            | {name: max(c[name]) for name in records.OF_RANK}
            | dict(machine="gpu-x2", rank=-1)
        )
        measured += [
            slow | dict(phase="total", p50_us=1e6 * total),
            slow | dict(phase="compute", p50_us=1e6 * compute.max()),
        ]
    rows, made = calibrate.layers(
        pd.DataFrame(measured), exchange, {"olmoe": expert, "qwen3": expert}, "gpu-x2", draws=0
    )
    assert (
        made.parameters["start_s"] == pytest.approx(4e-5, rel=1e-3)
        and calibrate.errors(rows).max() < 1e-3
    )
    np.testing.assert_allclose(rows.compute_s + rows.wire_s, rows.s)
    slopes = elasticity.table(rows, draws=100)
    np.testing.assert_allclose(slopes.beta, slopes.beta_arithmetic + slopes.beta_wire)
    rivals = elasticity.rivals(rows)
    assert len(rivals) and (rivals.by_rho.mean() < rivals.by_gini.mean())


def test_elasticity_by_hand():
    assert elasticity.fit(np.array([1, 1.5, 2]), np.array([10, 12, 14.0])) == pytest.approx(
        (10, 0.4)
    )
    with pytest.raises(ValueError, match="2 points"):
        elasticity.fit(np.array([1, 2]), np.array([1, 2.0]))


def test_published_tables_are_fitted_as_declared():
    known = pd.read_csv(ROOT / "data/published/deepep.csv")
    assert known.source.str.contains("DeepEP").all()
    for phase, most in (("dispatch", 0.03), ("combine", 0.06)):
        own = known[(known.kernel == "low latency") & (known.phase == phase)]
        features = dict(
            devices=own.devices, bytes=own.tokens * own.selections * own.bytes_per_selection
        )
        made = fitting.fit(
            fitting.published_s,
            features,
            1e-6 * own.time_us,
            fitting.START["published"],
            draws=0,
        )
        assert np.abs(np.expm1(made.residuals)).max() <= most
        others = fitting.leave_one_out(
            fitting.published_s, features, 1e-6 * own.time_us, fitting.START["published"]
        )
        assert np.abs(1e6 * others / own.time_us - 1).iloc[1:].max() < 0.1


def test_too_few_points_and_bad_times_are_refused():
    features = {name: np.ones(6) for name in ("wire_bytes", "own_bytes", "messages")}
    with pytest.raises(ValueError, match="fitting.fit: 6 points: must be more than 7"):
        fitting.fit(cost.exchange_s, features, np.ones(6), fitting.START["exchange"])
    with pytest.raises(ValueError, match="> 0"):
        fitting.fit(cost.even_s, features, np.zeros(6), fitting.START["even"])


def test_skewed_starts_show_in_even_exchanges():
    rows = [
        dict(
            machine="m",
            size_bytes=size,
            call="split",
            launch="queued",
            skew=skew,
            aligned=1,
            phase="total",
            rank=rank,
            p50_us=us,
        )
        for size, skew, times in (
            (512, "even", (10.0, 8.0, 9.0)),
            (1024, "even", (20.0, 20.0, 20.0)),
            (512, "one", (90.0, 10.0, 10.0)),
        )
        for rank, us in zip((-1, 0, 1), times, strict=True)
    ]
    found = calibrate.skew(pd.DataFrame(rows))
    assert found.size_bytes.tolist() == [
        512,
        1024,
    ]  # even ones alone, by ranks and not by the slowest of each repetition
    assert found.ratio.tolist() == [9 / 8, 1] and found.s.tolist() == pytest.approx([1e-6, 0])


def test_splits_off_boundaries_are_set_beside_aligned_ones():
    times = {
        ("even", 1): 10.0,
        ("even", 0): 14.0,
        ("0.5", 1): 20.0,
        ("0.5", 0): 22.0,
        ("one", 1): 5,
    }
    rows = [
        dict(machine="m", size_bytes=512, skew=skew, call="split", aligned=aligned, p50_us=us)
        for (skew, aligned), us in times.items()
    ]
    table = pd.DataFrame(rows).assign(phase="total", rank=-1, launch="queued")
    found = calibrate.misaligned({"exchange": table}).set_index("skew").ratio
    assert found.to_dict() == pytest.approx({"even": 1.4, "0.5": 1.1})
    assert calibrate.misaligned({}).empty
    assert np.isnan(calibrate.misaligned({"exchange": table[table.aligned == 1]}).ratio.median())


def test_the_starting_form_sees_rows_where_tiles_were():
    table = pd.DataFrame(dict(rows=[1, 200], tile_rows=[128, 256], rank_rows=[3, 4]))
    tables = dict(compute=table, layer=table.assign(rank_tile_rows=128), exchange=table)
    found = calibrate.untiled(tables)
    assert found["compute"].tile_rows.tolist() == [1, 200]
    assert found["layer"].rank_tile_rows.tolist() == [3, 4]
    assert found["exchange"].equals(table) and tables["compute"].tile_rows.tolist() == [128, 256]


def test_fits_are_told_with_their_intervals():
    made = fitting.Fit(
        cost.even_s,
        dict(start_s=2e-6, wire_bytes_per_s=3e11),
        dict(start_s=(1e-6, 3e-6), wire_bytes_per_s=(2e11, 4e11)),
        np.log([1.1, 0.9, 1.3]),
    )
    table = calibrate.parameters({"exchange": made})
    assert table.parameter.tolist() == ["start_s", "wire_bytes_per_s"]
    assert table.value_low.tolist() == [1e-6, 2e11] and table.value_high.tolist() == [3e-6, 4e11]
    assert table.points.tolist() == [3, 3] and table.in_sample.tolist() == pytest.approx([0.1, 0.1])
    told = calibrate.wires({"exchange": made})
    assert told[["start_us", "start_us_low", "start_us_high"]].tolist() == pytest.approx([2, 1, 3])
    assert told[["wire_gb_per_s", "wire_gb_per_s_high"]].tolist() == pytest.approx([300, 400])
    assert calibrate.parameters({}).empty and calibrate.wires({}).isna().all()


def test_predictions_stand_in_one_table():
    wire = pd.DataFrame(
        dict(machine="m", skew=["even", "one"], size_bytes=[1024, 4096], call="split")
    )
    wire = wire.assign(part="fit", s=1e-5, predicted_s=[1.1e-5, 0.9e-5], summed_s=2e-5)
    work = pd.DataFrame(
        dict(machine=["m"], shape="olmoe", rows=8, active=2, spread="hot", part="held_out")
    ).assign(s=2e-5, predicted_s=3e-5)
    whole = pd.DataFrame(
        dict(machine=["m"], shape="qwen3", tokens=16, rho=1.5004, gini=0.25, part="held_out")
    ).assign(s=1e-4, predicted_s=1e-4)
    table = calibrate.predictions(wire, work, whole, large_bytes=4096)
    assert list(table) == calibrate.PREDICTED
    names = ["small exchange", "large exchange", "experts", "layer"]
    assert table.experiment.tolist() == names == list(calibrate.EXPERIMENTS)
    assert table.case.tolist() == [
        "even, 1 KiB, split",
        "one, 4 KiB, split",
        "olmoe, 8 rows, 2 experts, hot",
        "qwen3, 16 tokens, ρ 1.5, Gini 0.25",
    ]
    assert table.group.tolist() == ["1024", "4096", "olmoe8", "qwen316"]
    assert table.error.tolist() == pytest.approx([0.1, 0.1, 0.5, 0])
    assert table.measured_us.tolist() == pytest.approx([10, 10, 20, 100])
    assert (
        table.summed_us[:2].tolist() == pytest.approx([20, 20]) and table.summed_us[2:].isna().all()
    )


def test_without_a_machine_all_is_absent():
    alone = {"compute": computes()}
    assert calibrate.base(alone) == ""
    table, fits, layers = calibrate.everything(alone, 2**20, draws=0)
    assert fits == {} and layers.empty and set(calibrate.LAYERS) == set(layers)
    assert table.experiment.tolist() == list(calibrate.EXPERIMENTS)
    assert table[["measured_us", "predicted_us", "error"]].isna().all(axis=None)
    assert set(table.part) == {"held_out"}


def test_what_a_layer_has_in_tables_without_a_machine_it_has_with_one():
    tables, _, _ = records.load(ROOT / "data/measured")
    _, fits, layers = calibrate.everything(tables, 2**20, draws=0)
    assert set(calibrate.LAYERS) <= set(layers) and {"exchange", "layer"} <= set(fits)
