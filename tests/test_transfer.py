"""Whether placements transfer: by hand, and by what must hold."""

import numpy as np
import pandas as pd
import pytest

from lib.network import cost, fabric, step, transfer

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
    assert rho["packed", "same domain"] < 1.3 < rho["in order", "same domain"]
    assert rho["replicated", "same domain"] < 1.3


def test_halves_too_short_for_a_batch_are_left_out():
    study = transfer.Study(
        cost.Shape(256, 128, 8, 1), fabric.star(4), IDEAL, tokens=9, batches=5, redundant=4
    )
    index = RNG.integers(0, 8, (1, 16, 1))
    found = transfer.domains(study, index, np.arange(16), np.repeat([0, 1], 8))
    assert found.empty and {"placement", "where", "rho"} <= set(found)
    with pytest.raises(ValueError, match="tokens = 9: must be from 1 to 8"):
        transfer.windows(np.arange(8), 9, 1, RNG)


def test_a_table_of_placements_has_both_domains_side_by_side():
    rows = pd.DataFrame(
        [
            dict(arm="without", placement=name, where=where, rho=rho + gain, slowdown=rho - 1)
            for name, rho in (("in order", 3.0), ("packed", 1.5))
            for where in (transfer.SAME, transfer.OTHER)
            for gain in (-0.25, 0.25)
        ]
    )
    placed = transfer.means(rows)
    assert placed.rho.tolist() == [3, 3, 1.5, 1.5]
    table = transfer.table(placed, "without").set_index("placement")
    assert table.loc["packed"].to_dict() == dict(
        rho_same=1.5, rho_other=1.5, slowdown_same=0.5, slowdown_other=0.5
    )
    told = transfer.told(placed, "without")
    assert told[["placement", "where"]].values.tolist() == [
        ["order", "same"],
        ["packed", "same"],
        ["packed", "other"],
    ]
    assert transfer.told(placed, "with").empty


def counts_of(loads: dict[str, list[int]]) -> pd.DataFrame:
    """Published counts of one layer of a model "m", by domain."""
    rows = [(d, e, count) for d, load in loads.items() for e, count in enumerate(load)]
    table = pd.DataFrame(rows, columns=["domain", "expert", "count"])
    return table.assign(model="m", layer=0)


def test_counts_by_hand():
    """Two devices, four experts: "x" is busy on 0 and 1, "y" on 0 and 2."""
    counts = counts_of({"x": [9, 9, 1, 1], "y": [9, 1, 9, 1]})
    found = transfer.of_counts(counts, {"g": ("m", 2)})
    rho = found.set_index(["domain", "placement", "where"]).rho
    assert rho["x", "in order", "packed for"] == 1.8 and rho["y", "in order", "packed for"] == 1
    assert rho["x", "packed", "packed for"] == 1  # 0 with one idle expert, 1 with the other
    averages = transfer.averages(found).set_index(["placement", "where"]).rho
    assert averages["packed", "packed for"] == 1 and averages["in order", "packed for"] == 1.4
    counted = transfer.counted(found, "g")
    assert counted.counts_packed == 1 and counted.counts_order == 1.4
    assert counted.counts_moved == averages["packed", "another domain"]


def test_what_is_kept_of_a_placement():
    """In order 3; placed 1 at home and 2 elsewhere: half of what it takes off remains."""
    rows = pd.DataFrame(
        [
            dict(group="g", layer=layer, domain=d, placement=name, where=where, rho=rho)
            for layer in range(4)
            for d in ("x", "y")
            for name, where, rho in (
                ("in order", "packed for", 3.0),
                ("in order", "another domain", 3.0),
                ("packed", "packed for", 1.0),
                ("packed", "another domain", 2.0),
            )
        ]
    )
    found = transfer.kept(rows, {"packing_kept": ("g", "packed")})
    assert found.values.tolist() == [["packing_kept", 0.5]]


def test_published_counts_hold_what_the_chapter_says():
    counts = pd.read_csv(transfer.COUNTS)
    sums = counts.groupby(["model", "layer", "domain"])["count"].sum()
    tokens = counts.groupby(["model", "layer", "domain"]).tokens.first()
    assert (sums / tokens).isin([2, 8]).all()
    found = transfer.of_counts(counts, {"o": ("OLMoE-1B-7B", 8), "m": ("Mixtral-8x7B", 4)})
    rho = found.groupby(["placement", "where"]).rho.mean()
    assert rho["packed", "packed for"] < rho["packed", "another domain"]
