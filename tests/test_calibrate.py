"""Calibration: parameters that made the times are found again; nothing is fitted on too little."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lib.measure import calibrate, elasticity, grid, records
from lib.network import cost

TRUE = {
    "exchange": dict(
        start_s=1.2e-5,
        message_s=1.5e-6,
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
    features = {name: table[name].to_numpy() for name in ("wire_bytes", "own_bytes", "messages")}
    return table.assign(p50_us=1e6 * cost.exchange_s(TRUE["exchange"], features))


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
    for seed in range(25):
        noise = np.exp(np.random.default_rng(seed).normal(0, 0.02, len(table)))
        _, fits = calibrate.exchanges(table.assign(p50_us=table.p50_us * noise), "gpu-x4", draws=60)
        covered += [
            low < TRUE["exchange"][name] < high
            for name, (low, high) in fits["split"].intervals.items()
        ]
    assert np.mean(covered) > 0.8


def test_a_layer_is_the_sum_of_its_parts():
    exchange = calibrate.Fit(cost.exchange_s, TRUE["exchange"], {}, np.zeros(0))
    expert = calibrate.Fit(cost.expert_s, TRUE["expert"], {}, np.zeros(0))
    measured = []
    for c in [
        c for c in grid.layers(2, {}) if c["shape"] != "mixtral" and c["tokens"] in (16, 64, 256)
    ]:
        plain = {k: v for k, v in c.items() if k not in ("index", "home", *records.OF_RANK)}
        ranks = pd.DataFrame(
            {"shape": [c["shape"]] * 2} | {name: c[name] for name in records.OF_RANK}
        )
        compute = expert(calibrate.shaped(ranks, "rank_"))
        sent = {name: np.array([c[name]]) for name in ("wire_bytes", "own_bytes", "messages")}
        total = compute.max() + 2 * exchange(sent)[0] + 4e-5 + c["own_bytes"] / 8e11
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
        made = calibrate.fit(
            calibrate.published_s,
            features,
            1e-6 * own.time_us,
            calibrate.START["published"],
            draws=0,
        )
        assert np.abs(np.expm1(made.residuals)).max() <= most
        others = calibrate.leave_one_out(
            calibrate.published_s, features, 1e-6 * own.time_us, calibrate.START["published"]
        )
        assert np.abs(1e6 * others / own.time_us - 1).iloc[1:].max() < 0.1


def test_too_few_points_and_bad_times_are_refused():
    features = {name: np.ones(6) for name in ("wire_bytes", "own_bytes", "messages")}
    with pytest.raises(ValueError, match="6 points: must be more than 6"):
        calibrate.fit(cost.exchange_s, features, np.ones(6), calibrate.START["exchange"])
    with pytest.raises(ValueError, match="> 0"):
        calibrate.fit(cost.even_s, features, np.zeros(6), calibrate.START["even"])


def test_skewed_starts_show_in_even_exchanges():
    rows = [
        dict(
            machine="m",
            size_bytes=size,
            call="split",
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
