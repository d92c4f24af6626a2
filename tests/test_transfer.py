"""Whether placements transfer: by hand, and by what must hold."""

import numpy as np
import pandas as pd
import pytest

from lib.network import cost, counts, fabric, step, transfer
from lib.paper import plots_network

RNG = np.random.default_rng(0)
IDEAL = step.published()


def judged_twice() -> pd.DataFrame:
    """Two domains with busy experts of their own: packing takes them apart at home and not
    elsewhere.
    """
    load = np.array([8.0, 8, 8, 8, 1, 1, 1, 1])
    rng = np.random.default_rng(1)
    tokens = [rng.choice(8, (4000, 1), p=part / part.sum()) for part in (load, load[::-1])]
    study = transfer.Study(
        cost.Shape(256, 128, 8, 1), fabric.star(4), IDEAL, tokens=500, batches=5, redundant=4
    )
    domain = np.repeat([0, 1], 4000)
    return transfer.domains(study, np.concatenate(tokens)[None], np.arange(8000) // 10, domain)


def test_packing_helps_where_it_was_packed():
    rho = judged_twice().groupby(["placement", "where"]).rho.mean()
    assert rho["packed", "same domain"] < 1.3 < rho["in order", "no text"]
    assert rho["packed", "same domain"] < rho["packed", "all domains"]
    assert rho["replicated", "same domain"] < 1.3


def test_of_short_text_batches_are_as_long_as_its_halves_and_of_none_there_are_gaps():
    study = transfer.Study(
        cost.Shape(256, 128, 8, 1), fabric.star(4), IDEAL, tokens=9, batches=5, redundant=4
    )
    index, domain = RNG.integers(0, 8, (1, 16, 1)), np.repeat([0, 1], [6, 10])
    found = transfer.domains(study, index, np.arange(16), domain)
    assert set(found.domain) == {1} and found.rho.notna().all()  # halves of 5 tokens, and of 3
    alone = transfer.domains(study, index, np.zeros(16), np.zeros(16, int))  # a single document
    assert alone.rho.isna().all() and {"in order", "packed", "replicated"} <= set(alone.placement)
    made = transfer.means(alone.assign(arm="model"))
    assert transfer.told(made, "model").rho.isna().all()
    figure = plots_network.placements(made.assign(group=made.arm), "busiest device / mean")
    assert figure.axes and transfer.table(made, "model").placement.tolist()[0] == "in order"
    with pytest.raises(ValueError, match="tokens = 9: must be from 1 to 8"):
        transfer.windows(np.arange(8), 9, 1, RNG)


def test_a_table_of_placements_says_what_each_was_made_for():
    rows = pd.DataFrame(
        [
            dict(arm="without", placement=name, draw=draw, where=where, rho=rho, slowdown=rho - 1)
            for name, where, rhos in (
                ("packed", transfer.SAME, [1.5]),
                ("packed", transfer.OTHER, [2.5]),
                ("packed", transfer.MIXED, [2.0]),
                ("in order", transfer.FREE, [3.0]),
                ("random", transfer.FREE, [1.0, 2.0, 3.0]),
                ("replicated, two nodes", transfer.SAME, [9.0]),
            )
            for draw, rho in enumerate(rhos)
        ]
    )
    table = transfer.table(transfer.means(rows), "without")
    assert table.placement.tolist() == ["in order", "random", *["packed"] * 3]
    assert table.made_for[1:3].tolist() == ["no text", "same domain"]
    assert table.rho.tolist() == [3, 2, 1.5, 2.5, 2]
    assert table.iloc[1][["rho_low", "rho_high"]].tolist() == pytest.approx([1.1, 2.9])
    assert table.rho_low.isna().tolist() == [True, False, True, True, True]
    told = transfer.told(transfer.means(rows), "without")
    assert set(zip(told.placement, told["where"], strict=True)) == {
        *(("packed", where) for where in ("same", "other", "mixed")),
        *(("order", ""), ("random", "")),
    }
    assert transfer.told(transfer.means(rows), "with").empty


def test_random_placements_are_many_and_balanced():
    homes = transfer.randoms(8, 4, seed=3)
    assert homes.shape == (transfer.DRAWS, 8) and transfer.DRAWS >= 200
    assert all(np.bincount(home).tolist() == [2] * 4 for home in homes)
    loads = RNG.random((3, 8))
    by_hand = [[np.bincount(home, load).max() * 4 / load.sum() for home in homes] for load in loads]
    np.testing.assert_allclose(transfer.held(loads, homes, 4), by_hand)
    found = judged_twice()
    rho = found[found.placement == "random"].groupby("draw").rho.mean()
    assert len(rho) == transfer.DRAWS and rho.std() > 0.05


def counts_of(loads: dict[str, list[int]]) -> pd.DataFrame:
    """Published counts of one layer of a model "m", by domain."""
    rows = [(d, e, count) for d, load in loads.items() for e, count in enumerate(load)]
    table = pd.DataFrame(rows, columns=["domain", "expert", "count"])
    return table.assign(model="m", layer=0)


def test_counts_by_hand():
    """Two devices, four experts: "x" is busy on 0 and 1, "y" on 0 and 2."""
    found = counts.judged(counts_of({"x": [9, 9, 1, 1], "y": [9, 1, 9, 1]}), {"g": ("m", 2)})
    rho = found.set_index(["domain", "placement", "where"]).rho
    assert rho["x", "in order", "no text"].item() == 1.8
    assert rho["y", "in order", "no text"].item() == 1
    assert rho["x", "packed", "packed for"].item() == 1  # 0 with one idle expert, 1 with the other
    assert (
        rho["x", "packed", "all other domains"].item()
        == rho["x", "packed", "another domain"].item()
    )
    averages = counts.averages(found).set_index(["placement", "where"]).rho
    assert averages["packed", "packed for"] == 1 and averages["in order", "no text"] == 1.4
    # of six halves of four experts two have both busy ones of a domain: 1.8, the others 1
    assert averages["random", "no text"] == pytest.approx(1 + 0.8 / 3, abs=0.06)
    counted = counts.counted(found, "g")
    assert counted.counts_packed == 1 and counted.counts_order == 1.4
    assert counted.counts_moved == averages["packed", "another domain"]
    assert counted.counts_random_low <= counted.counts_random <= counted.counts_random_high


def test_counts_of_one_domain_have_no_other():
    found = counts.judged(counts_of({"x": [9, 9, 1, 1]}), {"g": ("m", 2)})
    assert set(found["where"]) == {"packed for", "no text"}
    assert np.isnan(counts.counted(found, "g").counts_moved)
    assert counts.gains(found, "g").value.isna().all()


def test_who_shares_the_experts_of_counts():
    table = counts_of({"x": [1] * 32})
    assert counts.cases(table, 8) == {"m": ("m", 8), "m, wider": ("m", 16)}
    assert counts.cases(table, 24) == {"m": ("m", 16)}
    told = counts.settings(table, {"m": ("m", 8)}, source="some/mine.csv")
    assert told.counts_file == "mine.csv" and np.isnan(told.counts_wide)
    with pytest.raises(ValueError, match="m: 3 experts: from 2 to 8 devices must share them"):
        counts.cases(counts_of({"x": [1, 1, 1]}), 8)


def test_what_is_kept_of_a_placement():
    """In order 3; placed 1 at home and 2 elsewhere: half of what it takes off remains."""
    rows = pd.DataFrame(
        [
            dict(group="g", layer=layer, domain=d, placement=name, where=where, rho=rho)
            for layer in range(4)
            for d in ("x", "y")
            for name, where, rho in (
                ("in order", "no text", 3.0),
                ("packed", "packed for", 1.0),
                ("packed", "another domain", 2.0),
            )
        ]
    )
    found = counts.kept(rows, {"packing_kept": ("g", "packed")})
    assert found.values.tolist() == [["packing_kept", 0.5]]


def test_published_counts_hold_what_the_chapter_says():
    table = pd.read_csv(transfer.COUNTS)
    sums = table.groupby(["model", "layer", "domain"])["count"].sum()
    tokens = table.groupby(["model", "layer", "domain"]).tokens.first()
    assert (sums / tokens).isin([2, 8]).all()
    sharing = counts.cases(table, 8)
    assert sharing["OLMoE-1B-7B"][1] == 8 and sharing["Mixtral-8x7B"][1] == 4
    found = counts.judged(table, sharing)
    rho = found.groupby(["placement", "where"]).rho.mean()
    assert rho["packed", "packed for"] < rho["packed", "another domain"]
    told = counts.counted(found, "OLMoE-1B-7B")
    # one draw was told before; the mean of five hundred others is 1.539
    assert told.counts_random == pytest.approx(1.539, abs=0.01)
    assert told.counts_random_once == pytest.approx(1.451, abs=0.001)
