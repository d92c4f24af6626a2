"""The ladder: a queue of toy models on the CPU, killed and gone on with."""

import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from lib.balance import losses, pretrain, train
from lib.commands import (
    ladder,
    ladder_balance,
    ladder_measure,
    ladder_mend,
    ladder_profile,
    ladder_queue,
    ladder_results,
    ladder_run,
    ladder_summary,
)
from lib.model import corpus

# a model of two layers of 8 experts, a few windows of everything
TOY = {
    "SEEDS": [1],
    "STEPS": 6,
    "BATCH_SEQUENCES": 2,
    "SEQUENCE_TOKENS": 32,
    "STRIDE": 2000,
    "FRACTIONS": [0.5, 1.0],
    "PROFILE_TOKENS": 64,
    "SERVING_TOKENS": 256,
    "SERVING_BATCHES": 4,
    "PREFIX_TOKENS": 32,
    "GAMMAS": [1.25],
    "POLICIES": ["native", "mass"],
    "WINDOW": 8,
    "WINDOWS_PER_DOMAIN": 4,
    "FIT_STEPS": 3,
    "FIT_SEQUENCES": 2,
    "BIAS_SCALES": [1.0],
    "DECODE_GAMMAS": [1.5],
    "TEMPERATURES": [1.0],
    "AMONG": [4],
    "DOCUMENTS_PER_DOMAIN": 6,
    "SHAPE": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_experts": 8,
        "intermediate_size": 16,
    },
}
ARGUMENTS = ["--numbers", json.dumps(TOY), "--device", "cpu", "--only", "none_1", "switch_1"]
P = ladder_queue.numbers(TOY)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models so small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a queue that was killed while its second model trained."""
    folder = tmp_path_factory.mktemp("killed")
    place = ladder_queue.place(folder, P)
    command = [sys.executable, "-m", "lib.commands.ladder", str(folder), *ARGUMENTS]
    options = dict(cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
    limit = time.monotonic() + 120
    while not list(place.glob(".switch_1/0/step-*.safetensors")) and time.monotonic() < limit:
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert [path.name for path in place.glob("*.json")] == ["none_1.json"]
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of a queue that was not disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert ladder.main([str(folder), *ARGUMENTS]) == 0
    return ladder_queue.read([ladder_queue.place(folder, P)], P)


def told(result: dict) -> dict:
    """A result without what a clock or a machine says."""
    curve = [
        {name: value for name, value in row.items() if name != "tokens_per_s"}
        for row in result["curve"]
    ]
    return {name: value for name, value in result.items() if name != "provenance"} | {
        "curve": curve
    }


def test_a_killed_queue_goes_on_and_ends_alike(killed, whole, capsys, tmp_path):
    place = ladder_queue.place(killed, P)
    first = (place / "none_1.json").stat().st_mtime_ns
    assert ladder.main([str(killed), *ARGUMENTS, "--pack", str(tmp_path)]) == 0
    begun = [line for line in capsys.readouterr().err.splitlines() if line.endswith("begun")]
    assert len(begun) == 1 and "switch_1" in begun[0]
    assert (place / "none_1.json").stat().st_mtime_ns == first
    assert not list(place.glob(".switch_1"))
    packed = ladder_queue.read([tmp_path / "pairs.packed"], P)
    assert {name: told(r) for name, r in packed.items()} == {
        name: told(r) for name, r in whole.items()
    }
    # what a packed file holds is not computed again, in whatever folder
    again = ["--runs", str(tmp_path / "pairs.packed")]
    assert ladder.main([str(tmp_path / "new"), *ARGUMENTS, *again]) == 0
    assert "begun" not in capsys.readouterr().err


def test_a_run_out_of_time_goes_on_and_ends_alike(whole, capsys, tmp_path):
    own = [str(tmp_path), *ARGUMENTS[:-1]]
    assert ladder.main([*own, "--budget-s", "0.001"]) == 0
    assert "none_1: 1 of 6 steps: the same command goes on" in capsys.readouterr().err
    assert ladder.main(own) == 0
    found = ladder_queue.read([ladder_queue.place(tmp_path, P)], P)
    assert told(found["none_1"]) == told(whole["none_1"])


def test_the_step_of_the_bias_falls_to_0():
    plan = train.Plan(4, 1, 8, 1e-3, loss="bias", coefficient=0.4)
    assert [plan.bias_rate(step) for step in range(4)] == [0.4] * 4
    falling = replace(plan, bias_decays=True)
    assert [falling.bias_rate(step) for step in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_switch_with_a_tenth_of_the_z_loss():
    # two experts, even probabilities: Switch is 1, the log of the partition function 2 + ln 2
    logits, load = torch.full((3, 2), 2.0), torch.tensor([4.0, 2.0])
    assert losses.switch_z(logits, load).item() == pytest.approx(1 + 0.1 * (2 + np.log(2)) ** 2)


def test_a_result_holds_what_was_declared(whole):
    one, two = whole["none_1"], whole["switch_1"]
    assert one["job"]["coefficient"] == 0 and two["job"]["coefficient"] == 0.01
    assert one["curve"][0]["nats"] == two["curve"][0]["nats"]  # alike at first
    assert one["curve"][0]["balance"] == 0 and two["curve"][0]["balance"] >= 1
    assert [row["step"] for row in one["path"]] == [3, 6]
    own = one["profile"]
    counts = np.array(own["counts"])
    assert counts.shape == (len(own["nats"]), 2, 8)
    assert (counts.sum((1, 2)) == 2 * 2 * np.array(own["tokens"])).all()
    assert (np.array(own["serving"]).sum(2) == 2 * P.SERVING_TOKENS).all()
    assert np.array(one["path"][1]["counts"]).sum((0, 1)).tolist() == counts.sum((0, 1)).tolist()
    names = [(row["family"], row["policy"]) for row in one["prefix"]["settings"]]
    assert names == [("native", "native")] + [
        (family, policy) for policy in P.POLICIES for family in ("drop", "reroute")
    ]
    native = [row for row in one["decode"]["settings"] if "counts" in row]
    assert [row["family"] for row in native] == ["native"]
    assert np.array(native[0]["counts"]).shape == (P.WINDOW // 4, 2, 8)
    (rerouted,) = (row for row in one["decode"]["settings"] if row["family"] == "reroute")
    assert rerouted["p95"] <= 8 / (20 * 2 / 8)  # ⌈1.5 · 20 · 2 / 8⌉ places
    assert {row["policy"] for row in one["decode"]["settings"]} == {"native"}


def test_the_results_are_read(whole):
    table = ladder_profile.models(whole)
    assert table.name.tolist() == ["none", "switch"]
    assert np.isfinite(table.drop(columns=["name", "loss"]).to_numpy(float)).all()
    h2a, each = ladder_results.drop_over_reroute(whole)
    assert h2a.policy.tolist() == ["native", "mass"] and (h2a.n == 1).all()
    assert each.difference.tolist() == h2a.estimate.tolist()
    price = ladder_results.prices(whole)
    assert price.difference.item() == pytest.approx(price["without"].item() - price["with"].item())
    assert ladder_results.price_difference(whole)["estimate"] == pytest.approx(
        price.difference.item()
    )
    assert ladder_profile.path(whole["none_1"]).settled.iloc[-1] == 1
    assert ladder_profile.locality(whole, draws=20)[0]["n"] == 1
    assert len(ladder_profile.parts(whole, "switch")) == 3
    found, _ = ladder_balance.bias_over_rival(whole)
    assert found["n"] == 1
    table = ladder_summary.hypotheses(whole, draws=20)
    assert table.hypothesis.tolist() == ["H1", "H2a", "H2a", "H2b", "H5"]
    assert ladder_summary.verdicts(table, whole).n.tolist() == [1] * 4


def test_a_repair_changes_what_it_says_and_no_more():
    model = pretrain.untrained(1, torch.device("cpu"), **P.SHAPE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 8000, 4000)
    text = ladder_measure.Text(stream, {"one": stream}, [])
    for trained, loss in [("routers", "switch"), ("bias", "bias"), ("all", "switch")]:
        own = copy.deepcopy(model)
        ladder_mend.mended(own, trained, ladder_mend.plan(P, loss, 1.0, 1.0, 1), P, text, "float32")
        changed = {name for name in before if not torch.equal(own.state_dict()[name], before[name])}
        routers = {name for name in before if name.endswith("mlp.gate.weight")}
        assert changed == {"routers": routers, "bias": set(), "all": set(before)}[trained]
        assert hasattr(own, "selection_bias") == (trained == "bias")
        assert all(parameter.requires_grad for parameter in own.parameters())


def test_an_unknown_number_or_queue_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'STEP': must be a declared number"):
        ladder_queue.numbers({"STEP": 3})
    with pytest.raises(ValueError, match=r"'pair': must be one of pairs.*did you mean pairs"):
        ladder_queue.queue(["pair"], P)


def test_the_pairs_of_the_declaration():
    jobs = ladder_queue.queue(["pairs"], ladder_queue.numbers())
    assert [job.start for job in jobs[:2]] == ["without", "with"]
    assert [(job.loss, job.seed) for job in jobs[2:6]] == [
        ("none", 1),
        ("switch", 1),
        ("none", 2),
        ("switch", 2),
    ]
    assert len(jobs) == 18 and [job.file for job in jobs if job.path] == ["none_1", "switch_1"]
    p = ladder_queue.numbers()
    assert p.STEPS * p.BATCH_SEQUENCES * p.SEQUENCE_TOKENS >= 60e6


def test_windows_take_clusters_documents_and_windows_in_turn():
    ids = tuple(range(9))
    texts = [
        corpus.Document(name, "a", cluster, "", ids[: size + 1])
        for name, cluster, size in (("x1", "x", 8), ("x2", "x", 4), ("y1", "y", 4), ("z1", "z", 2))
    ]
    found, rows = ladder_measure.windows(texts, 4, 4)
    assert [document.name for document in found] == ["x1", "y1", "x2", "x1"]
    assert rows.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="a: 4 windows of 4 tokens: must be 5"):
        ladder_measure.windows(texts, 4, 5)


def placed_text():
    """Two domains of four clusters, a document each, of five windows; random tokens."""
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 8000, 4000)
    held_out = [
        corpus.Document(f"{domain}{c}", domain, f"{domain}/{c}", "", tuple(stream[40 * c :][:40]))
        for domain in "ab"
        for c in range(4)
    ]
    return ladder_measure.Text(stream, {"one": stream}, held_out)


def test_what_a_placement_is_held_against_a_bias_on():
    p = ladder_queue.numbers(TOY | {"PLACED_SCALES": [0.5, 1.0, 2.0], "BIAS_COST": 1.0})
    text, model = placed_text(), pretrain.untrained(1, torch.device("cpu"), **P.SHAPE)
    own = ladder_measure.placed(model, text, p)
    _, grid = ladder_measure.windows(text.held_out, p.WINDOW, p.WINDOWS_PER_DOMAIN)
    assert own["group_tokens"] == len(grid) == 8 and own["domains"] == ["a", "b"]
    assert own["clusters"] == [f"{domain}/{c}" for domain in "ab" for c in range(4)]
    # an untrained model loses less than a nat by any bias: the largest scale is taken
    assert own["scale"] == 2.0 and [row["scale"] for row in own["scales"]] == [0.0, 0.5, 1.0, 2.0]
    made, native, biased = (np.array(own[name]) for name in ("made", "native", "biased"))
    assert made.shape == (2, 2, 8) and native.shape == biased.shape == (2, 4, 2, 8)
    # two windows of each half and domain, k = 2: every position of a half has 4 windows
    assert (native.sum(3) == 8).all() and (biased.sum(3) == 8).all()
    assert (made.sum(2) == 2 * 2 * p.WINDOW).all() and (native != biased).any()
    kept = ladder_measure.placed(model, text, ladder_queue.numbers(vars(p) | {"BIAS_COST": -9.0}))
    assert kept["scale"] == 0.0 and kept["biased"] == kept["native"]


def test_a_command_is_kept_as_it_is_typed():
    line = "--queue sizes --corpus /a/b/corpus.xz --pack /c/out --claims /d --deadline 9.5"
    wanted = "python -m lib.commands.ladder --queue sizes --corpus corpus.xz --pack out"
    assert ladder_run.typed(line.split()) == wanted
