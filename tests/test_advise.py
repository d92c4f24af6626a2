"""Advice from counts: what it says where the answer is known by hand, and what it refuses."""

import html
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lib.commands import advice, advise, advised, deciding, level, subject
from lib.network import fabric, step

PRICES = pd.DataFrame(
    [
        ["a", 0.2, 0.1, 0.3, 8, False, False],
        ["b", 0.1, 0.0, 0.2, 8, True, False],
        [advice.START, -0.1, -0.2, 0.0, 8, True, True],
    ],
    columns=[*advice.PRICED, "start"],
)


def case(load, devices=4, spare=1, tokens=4096):
    model = step.models()["OLMoE-1B-7B"]
    shape = model.shape.__class__(2048, 1024, len(load), 2)
    model = model.__class__("", shape, 1, 0.0)
    net = fabric.star(devices, 450e9)
    return advice.Case(
        np.array([load]), 50_000, model, net, step.published(), tokens, spare, draws=5
    )


def told(own, **rules):
    table, row = advice.answer(own, deciding.Rules(**rules), PRICES)
    return table.set_index("placement"), row.advice


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


def test_a_gini_alone_is_answered_by_a_band(tmp_path, capsys):
    flags = ["--gini", "0.3", "--shape", "Qwen3-30B-A3B", "--devices", "32"]
    advise.main([*flags, "--html", str(tmp_path / "advice.html")])
    printed = capsys.readouterr().out
    assert "128 experts, 8 of a token, Gini 0.3, on 32 devices" in printed
    rows = level.families(advise.of_gini(advise.parsed(flags)), deciding.Rules(), advice.prices())
    assert all(line in printed for line in level.advised(rows))
    assert level.advised(rows)[0] in html.unescape((tmp_path / "advice.html").read_text())


@pytest.mark.parametrize(
    "flags, line",
    [
        ([], "must have a model, counts or a run, or --gini, and not both"),
        (["x", "--gini", "0.1"], "must have a model, counts or a run, or --gini, and not both"),
        (["--gini", "0.9"], "--gini 0.9: must be from 0 to below 0.875, which 8 of 64 experts"),
        (["--gini", "0", "--experts", "4"], "--experts 4, --top-k 8: must be from 1 to below"),
        (["--gini", "0", "--shape", "OLMoE-1B-7"], "--shape OLMoE-1B-7: must be one of .*mean OLM"),
        (["--gini", "0", "--devices", "3"], "--devices 3: must be 2 or more and divide 64"),
    ],
)
def test_a_gini_that_cannot_be_is_refused(flags, line):
    with pytest.raises(ValueError, match=f"advise: {line}"):
        advise.of_gini(advise.parsed(flags))


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


def test_what_counts_lack_is_asked_for_by_its_flag(tmp_path):
    file = tmp_path / "old.csv"
    rows = ["layer_id,expert_id,count", *(f"0,{expert},{expert + 9}" for expert in range(8))]
    file.write_text("\n".join(rows))
    with pytest.raises(ValueError, match="number of experts: --experts must"):
        advise.case(advise.parsed([str(file), "--top-k", "2"]))
    flags = [str(file), "--experts", "8", "--top-k", "2", "--devices", "4", "--enough", "0"]
    a = advise.parsed(flags)
    told, _, _ = advise.from_counts(a, deciding.Rules(enough=0), PRICES)
    place = f"python -m lib place {file} --devices 4 --slots 3 --experts 8 --top-k 2 --to sglang"
    assert any(place in line for line in told) and any("--shape names" in line for line in told)
    with pytest.raises(ValueError, match="none.csv: no such file"):
        advise.case(advise.parsed([str(tmp_path / "none.csv")]))


def test_a_k_that_the_counts_lack_must_be_given(tmp_path):
    with pytest.raises(ValueError, match="--top-k 0: must be from 1"):
        advise.case(advise.parsed([counts(tmp_path, k=0)]))
    own, name = advise.case(advise.parsed([counts(tmp_path, k=0), "--top-k", "2"]))
    assert own.model.shape.k == 2 and own.model.shape.experts == 8 and name.name == "x"


def test_a_placement_is_judged_on_other_text():
    """Packed by counts whose hot experts are others than those of the batches: it gains nothing."""
    own = case([3, 1, 3, 1, 1, 1, 1, 1])
    other = own.__class__(**vars(own) | {"judged": np.array([[3, 3, 1, 1, 1, 1, 1, 1]])})
    kept, moved = (advice.summary(advice.timed(c), c).set_index("placement") for c in (own, other))
    # by hand: packed for the first, experts 0 and 2 stand apart with a cold one each
    assert kept.rho_p50["packed"] == pytest.approx(4 / 3, rel=0.02)
    share = advice.placements(own.load[0], 4, 0)["packed"]
    wanted = (np.array([3, 3, 1, 1, 1, 1, 1, 1]) @ share).max() / 3
    assert moved.rho_p50["packed"] == pytest.approx(wanted, rel=0.02)


def frame(domains, models=("m",)):
    load = np.arange(16).reshape(2, 8) + 1
    layer, expert = (part.ravel() for part in np.indices(load.shape))
    rows = [
        dict(model=m, experts=8, top_k=2, domain=d, tokens=68, layer=layer, expert=expert)
        | dict(count=load.ravel() * (place + 1))
        for m in models
        for place, d in enumerate(domains)
    ]
    return pd.concat([pd.DataFrame(row) for row in rows])


def test_texts_are_parted_and_one_text_is_said_to_be_in_sample():
    two = subject.of_counts(frame("ab"))
    assert two.judged_on == "1 of 2 texts, held out"
    assert (two.judged == 2 * two.load).all() and (two.whole == 3 * two.load).all()
    one = subject.of_counts(frame("a"))
    assert one.judged_on == subject.IN_SAMPLE and (one.whole == one.load).all()


def test_several_models_need_a_name():
    with pytest.raises(ValueError, match="2 models: say which by --model-name: m, n"):
        subject.of_counts(frame("a", "mn"))
    assert subject.of_counts(frame("a", "mn"), "n").name == "n"
    with pytest.raises(ValueError, match="--model-name q: must be one of m, n"):
        subject.of_counts(frame("a", "mn"), "q")


def test_documents_are_parted_by_every_second():
    from traces import random

    t = random(documents=4)
    found = subject.of_trace(t)
    odd = np.isin(t.document, [1, 3])
    by_hand = np.stack(
        [np.bincount(layer[odd].ravel(), minlength=t.experts) for layer in t.expert_index]
    )
    assert (found.judged == by_hand).all() and (found.whole == t.load).all()


def test_drift_by_hand():
    """Two texts with their two hot experts exchanged, two devices of two experts."""
    parts = {"a": np.array([[4.0, 4, 1, 1]]), "b": np.array([[4.0, 1, 4, 1]])}
    # packed for a: {0, 2 or 3} and {1, other}; b then has 0 and 2 together or apart
    stale = advice.stale_over_fresh(parts, 2, 0)
    own = {n: advice.placements(load[0], 2, 0)["packed"] for n, load in parts.items()}
    ratios = [(parts[b][0] @ own[a]).max() / (parts[b][0] @ own[b]).max() for a, b in ("ab", "ba")]
    assert stale == pytest.approx(np.mean(ratios))
    assert np.isnan(advice.stale_over_fresh({"a": parts["a"]}, 2, 0))


@pytest.mark.parametrize(
    "left, beta, drift, tokens, action",
    [
        ((0.03, 0.0, 0.0), 1, 1, 64, "nothing"),
        ((0.2, 0.18, 0.18), 0.05, 1, 64, "fewer"),
        ((0.2, 0.18, 0.18), 0.05, 1, 65, "router"),
        ((0.2, 0.0, 0.0), 0.05, 1, 64, "pack"),  # what costs nothing comes first
        ((0.2, 0.04, 0.02), 0.5, np.nan, 64, "copy"),
        ((0.2, 0.02, 0.02), 0.5, 1.2, 64, "rebalance"),
        ((0.2, 0.1, 0.04), 0.5, 1, 64, "copy"),  # what leaves least, though more than counts
        ((0.2, 0.18, 0.17), 0.5, 1, 64, "router"),
        ((0.2, 0.18, 0.169), 0.5, 1.2, 64, "rebalance"),
    ],
)
def test_what_is_decided(left, beta, drift, tokens, action):
    named = dict(zip((deciding.ORDER, deciding.PACKED, deciding.COPIED), left, strict=True))
    assert deciding.decided(named, beta, drift, tokens, deciding.Rules()) == action


def test_the_thresholds_are_settings_that_are_shown(tmp_path):
    own, of = advise.case(advise.parsed([counts(tmp_path), "--tokens", "64", "--enough", "0.9"]))
    rules = deciding.Rules(enough=0.9)
    _, row = advice.answer(own, rules, PRICES, of.parts)
    assert row.action == "nothing"
    assert any(
        "more than 0.9 of a layer" in line for line in advised.sentences(own, row, of, rules)
    )
    with pytest.raises(ValueError, match="--enough 1.0: must be from 0 to below 1"):
        advise.case(advise.parsed([counts(tmp_path), "--enough", "1"]))


def test_a_placement_that_ages_is_made_anew():
    """Where it is made for another text it leaves too much, made for the text itself little."""
    left = {"in order": 0.3, "packed": 0.2, "replicated": 0.1}
    fresh = {"in order": 0.3, "packed": 0.1, "replicated": 0.01}
    rules, prices = deciding.Rules(), pd.DataFrame({"nats": [], "start": []})
    assert deciding.decided(left, 1.0, 1.05, 4096, rules) == "copy"
    assert deciding.decided(left, 1.0, 1.05, 4096, rules, left) == "copy"
    action = deciding.decided(left, 1.0, 1.05, 4096, rules, fresh)
    assert action == "rebalance"
    words = deciding.told(action, left, rules, prices, fresh)
    assert words.endswith(
        "imbalance then takes 10.0% of a layer's time instead of 30.0%, 1.0% while it is new."
    )
    # of no use once the text has changed, and of much use before
    useless = left | {"replicated": 0.29, "packed": 0.31}
    assert deciding.decided(useless, 1.0, 1.05, 4096, rules) == "router"
    assert deciding.decided(useless, 1.0, 1.05, 4096, rules, fresh) == "rebalance"


def test_what_chance_alone_costs_is_laid_to_no_router():
    """Batches of so few tokens are uneven under a perfect router too."""
    left, rules = {"in order": 0.25, "packed": 0.24}, deciding.Rules()
    assert deciding.decided(left, 1.5, 1.0, 64, rules, chance=0.21) == "router"
    assert deciding.decided(left, 1.5, 1.0, 64, rules, chance=0.23) == "larger"
    assert deciding.told("larger", left, rules, PRICES, chance=0.23) == (
        "Serve larger batches: imbalance takes 25.0% of a layer's time, and under a perfect router "
        "batches of this size would take 23.0% by chance alone."
    )
    assert deciding.told("pack", left, rules, PRICES, chance=0.22).endswith(
        ". Under a perfect router batches of this size would take 22.0% by chance alone."
    )
    # 8 experts that get alike: what is left of 256 tokens is chance, and larger batches help
    _, few = advice.answer(case([100] * 8, tokens=64), deciding.Rules(enough=0.001), PRICES)
    _, many = advice.answer(case([100] * 8, tokens=8192), deciding.Rules(enough=0.001), PRICES)
    assert few.action == "larger" and few.chance == pytest.approx(few.ceiling, rel=0.5)
    assert many.ceiling < few.ceiling


PRICED = " (b cost 0.100 [0.000, 0.200] nats per token in 8 small models)"


@pytest.mark.parametrize(
    "action, after, words",
    [
        (
            "router",
            0.2496,
            f"Change the router{PRICED}: imbalance takes 25.0% of a layer's time, 25.0% under the "
            "best placement.",
        ),
        (
            "pack",
            0.1,
            "Place experts by their load: imbalance then takes 10.0% of a layer's time instead of "
            f"25.0%. Only a change of the router takes off more{PRICED}.",
        ),
        (
            "pack",
            0.02,
            "Place experts by their load: imbalance then takes 2.0% of a layer's time instead of "
            "25.0%.",
        ),
    ],
)
def test_what_is_left_is_told_with_the_price_of_taking_it_off(action, after, words):
    left = {"in order": 0.2499, "packed": after}
    assert deciding.told(action, left, deciding.Rules(), PRICES) == words
