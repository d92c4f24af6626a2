"""Advice from counts: what it says where the answer is known by hand, and what it refuses."""

import html
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lib.commands import advice, advise
from lib.network import fabric, step

PRICES = pd.DataFrame(
    [["a", 0.2, 0.1, 0.3, 8], ["b", 0.1, 0.0, 0.2, 8], [advice.START, -0.1, -0.2, 0.0, 8]],
    columns=["way", "nats", "nats_low", "nats_high", "models"],
)


def case(load, devices=4, spare=1, tokens=4096):
    model = step.models()["OLMoE-1B-7B"]
    shape = model.shape.__class__(2048, 1024, len(load), 2)
    model = model.__class__("", shape, 1, 0.0)
    net = fabric.star(devices, 450e9)
    return advice.Case(
        np.array([load]), 50_000, model, net, step.published(), tokens, spare, draws=5
    )


def told(own):
    table = advice.summary(advice.timed(own), own)
    return table.set_index("placement"), advice.advised(table, PRICES)


def test_even_counts_want_nothing():
    table, words = told(case([100] * 8))
    assert words.startswith("Do nothing")
    assert table.rho_p50["in order"] == pytest.approx(1, abs=0.05)


def test_neighbours_that_are_hot_want_packing():
    # the first device has both hot experts: 6 of 12 parts, packed 3 + 1 like the others
    table, words = told(case([3, 3, 1, 1, 1, 1, 1, 1]))
    assert table.rho_p50["in order"] == pytest.approx(2, rel=0.02)
    assert table.rho_p50["packed"] == pytest.approx(4 / 3, rel=0.02)
    assert table.slowdown["packed"] < table.slowdown["in order"]
    # a third copy of a hot expert, as greedy placement makes them, is better still
    assert table.rho_p50["replicated"] < 1.2 and "copies" in words
    assert table.memory_gb["replicated"] == pytest.approx(6 * 2048 * 1024 / 1e9)


def test_one_hot_expert_wants_another_router():
    table, words = told(case([7, 1, 1, 1, 1, 1, 1, 1], devices=8, spare=0))
    assert table.rho_p50["packed"] == pytest.approx(4, rel=0.02)
    assert "b cost 0.100 [0.000, 0.200] nats per token in 8 small models" in words


def test_counts_that_no_router_can_have_are_refused():
    with pytest.raises(ValueError, match=r"layer 0: expert 0 has 90.0% of the load: must be at"):
        advice.timed(case([9, 1, 0, 0, 0, 0, 0, 0]))


def test_dead_experts_are_not_told_of_little_text():
    own = case([9, 0] * 4)
    assert advice.imbalance(own).dead == 4
    few = own.__class__(**vars(own) | {"counted": advice.DEAD - 1})
    assert np.isnan(advice.imbalance(few).dead)


def test_the_published_prices_are_read():
    table = advice.prices()
    assert {"training on with a balance loss", advice.START} <= set(table.way)
    assert (table.nats_low <= table.nats).all() and (table.nats <= table.nats_high).all()


def counts(folder, k=2):
    load = np.arange(16).reshape(2, 8) + 1
    layer, expert = np.indices(load.shape)
    columns = dict(model="x", experts=8, top_k=k, domain="d", tokens=100)
    rows = columns | dict(layer=layer.ravel(), expert=expert.ravel(), count=load.ravel())
    pd.DataFrame(rows).to_csv(folder / "counts.csv", index=False)
    return str(folder / "counts.csv")


def test_the_command_prints_and_leaves_a_page(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lib", "advise", counts(tmp_path), "--tokens", "64"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Gini 0.2" in done.stdout and "busiest device / mean" in done.stdout
    page = html.unescape((tmp_path / "advice.html").read_text())
    first = done.stdout.splitlines()[0]
    assert first in page and page.count("<table") == 2


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--devices", "3"], "--devices 3: must be 2 or more and divide 8 experts"),
        (["--devices", "0"], "--devices 0: must be from 1 to 4096"),
        (["--slots", "0"], r"--slots 0: must be from 1 \(experts / devices\) to 8"),
        (["--tokens", "0"], "--tokens 0: must be from 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, flags, line):
    with pytest.raises(ValueError, match=line):
        advise.case(advise.parsed([counts(tmp_path), *flags]))


def test_a_k_that_the_counts_lack_must_be_given(tmp_path):
    with pytest.raises(ValueError, match="--top-k 0: must be from 1"):
        advise.case(advise.parsed([counts(tmp_path, k=0)]))
    own, name = advise.case(advise.parsed([counts(tmp_path, k=0), "--top-k", "2"]))
    assert own.model.shape.k == 2 and own.model.shape.experts == 8 and name == "x"
