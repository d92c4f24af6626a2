"""The queue of fine-tuning runs: what is finished is not done again, what is broken off goes on."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import entropy

from lib import stats
from lib.balance import (
    evaluate,
    finetune,
    losses,
    numerics,
    objective,
    repaired,
    setup,
    trainable,
    trial,
    worth,
)
from lib.balance.study import Job, Study
from lib.model import corpus, rows
from lib.model.corpus import Document
from lib.routing import adapter

SMALL = dict(
    model="embedded",
    finetune_steps=2,
    finetune_sequences=2,
    sequence_tokens=16,
    finetune_learning_rate=1e-4,
    training_strides=[4000],
    deterministic=False,
    documents_per_domain=2,
    tokens_per_document=32,
    batch_tokens=64,
    seed=0,
    corpus_source="auto",
    allow_partial=False,
    device="cpu",
    checkpoint_every=0,
    time_budget_s=600.0,
    training_seeds=2,
    coefficients={"none": [0.0], "bias": [0.01]},
)


def study(**changes):
    return Study.of(SMALL | changes)


def found_in(folder, asked, jobs, packed=()):
    """What is finished on the first text."""
    return finetune.read(folder, asked.settings(asked.training_strides[0]), jobs, packed)


def test_seeds_come_first_and_bad_losses_are_refused():
    jobs = finetune.queue({"none": [0.0], "switch": [0.1, 1]}, 2)
    assert [job.name for job in jobs] == [
        "start_0_0",
        "none_0_0",
        "switch_0.1_0",
        "switch_1_0",
        "none_0_1",
        "switch_0.1_1",
        "switch_1_1",
    ]
    with pytest.raises(ValueError, match=r"loss = 'swtch': .*did you mean switch"):
        finetune.queue({"swtch": [0.1]}, 1)
    with pytest.raises(ValueError, match="coefficient = -1"):
        finetune.queue({"switch": [-1]}, 1)


def test_a_loss_says_whether_the_step_of_its_bias_falls():
    plans = [trial.plan(Job(loss, 0.01, 0), study()) for loss in ("bias", "falling_bias")]
    assert [[own.bias_rate(step) for step in (0, 1)] for own in plans] == [[0.01] * 2, [0.01, 5e-3]]
    assert all(losses.LOSSES[own.loss].moves_bias for own in plans)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, p = tmp_path_factory.mktemp("queue"), study()
    finetune.work(folder, p, finetune.queue(p.coefficients, 1))
    return folder, p


def test_a_result_says_what_it_is_worth(finished):
    folder, p = finished
    jobs = finetune.queue(p.coefficients, 1)
    found = found_in(folder, p, jobs)
    assert list(found) == jobs
    for job, result in found.items():
        held = result["held_out"]
        assert len(result["curve"]) == (0 if job.loss == "start" else 2)
        assert sum(held["documents"]["nats"]) / held["documents"]["tokens"] == pytest.approx(
            held["nats_per_token"], abs=0.01
        )
        load = np.array(held["load"])
        assert load.shape == (6, 16) and (load.sum(1) == 2 * held["documents"]["tokens"]).all()
        assert held["layers"]["gini"] == pytest.approx(stats.gini(load).tolist(), abs=1e-5)
    start, none = (found[job]["held_out"]["nats_per_token"] for job in jobs[:2])
    assert start != none


def test_finished_runs_are_not_done_again_and_can_be_packed(finished, monkeypatch, tmp_path):
    folder, p = finished
    jobs = finetune.queue(p.coefficients, 1)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    finetune.work(folder, p, jobs)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == times and len(
        times
    ) == 3
    found = found_in(folder, p, jobs)
    (tmp_path / "runs.xz").write_bytes(finetune.pack(found.values()))
    assert finetune.pack(found.values()) == (tmp_path / "runs.xz").read_bytes()
    packed = finetune.unpack(tmp_path / "runs.xz")
    assert found_in(tmp_path, p, jobs, packed) == found
    assert found_in(tmp_path, study(finetune_steps=3), jobs, packed) == {}
    assert {row["job"]["loss"] for row in rows.read(tmp_path / "runs.xz")} >= {"start"}


def test_the_time_budget_leaves_the_rest_to_the_next_command(tmp_path, capsys):
    p = study(time_budget_s=1e-6)
    jobs = finetune.queue(p.coefficients, 1)
    finetune.work(tmp_path, study(time_budget_s=0.0), jobs)
    assert not found_in(tmp_path, p, jobs)
    for done in (1, 2):
        left = finetune.work(tmp_path, p, jobs)
        assert len(found_in(tmp_path, p, jobs)) == done and left == f"{3 - done} of 3 runs left"
        assert f"finetune: {3 - done} of 3 runs left after" in capsys.readouterr().out


def test_each_text_has_the_whole_queue_and_what_is_published_is_not_done_again(finished, tmp_path):
    folder, p = finished
    jobs = finetune.queue(p.coefficients, 1)
    (tmp_path / "runs.xz").write_bytes(finetune.pack(found_in(folder, p, jobs).values()))
    both = study(training_strides=[4000, 5000])
    finetune.work(tmp_path, both, jobs, published=tmp_path / "runs.xz")
    own = finetune.finished(tmp_path, both, jobs)
    assert own[4000] == {} and list(own[5000]) == jobs
    assert {result["settings"]["training_stride"] for result in own[5000].values()} == {5000}
    together = finetune.finished(tmp_path, both, jobs, tmp_path / "runs.xz")
    assert together == {4000: found_in(folder, p, jobs), 5000: own[5000]}
    published = tmp_path / "runs.xz"
    assert finetune.borrowed(tmp_path, both, together, published) == [published]
    assert finetune.borrowed(tmp_path, both, own, published) == []


def test_workers_share_a_queue(tmp_path):
    p = study(coefficients={"none": [0.0]}, training_seeds=1)
    jobs = finetune.queue(p.coefficients, 1)
    finetune.work(tmp_path, p, jobs, 1, 2)
    assert [job.loss for job in found_in(tmp_path, p, jobs)] == ["none"]
    finetune.work(tmp_path, p, jobs, 0, 2)
    assert len(found_in(tmp_path, p, jobs)) == 2


def test_a_run_that_diverges_is_a_result_of_one_line(tmp_path, monkeypatch, capsys):
    p = study(finetune_learning_rate=1e30, coefficients={"none": [0.0]}, finetune_steps=4)
    job = Job("none", 0.0, 0)
    finetune.work(tmp_path, p, [job])
    (result,) = found_in(tmp_path, p, [job]).values()
    assert "the run diverged" in result["diverged"] and "held_out" not in result
    assert capsys.readouterr().out.count("finetune: none_0_0: train.run: step") == 1


def begun(folder, node, port, **changes):
    """What one of two nodes starts."""
    given = json.dumps(SMALL | {"coefficients": {"none": [0.0]}, "training_seeds": 1} | changes)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank"]
    command += [str(node), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += ["-m", "lib.balance.finetune", str(folder), given]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def test_two_nodes_share_a_run_give_what_one_process_gives_and_the_first_decides(
    finished, tmp_path
):
    """The first has the start already, the second nothing and no time: were each to follow its own
    list or clock, they would not train the same run.
    """
    folder, p = finished
    jobs = finetune.queue({"none": [0.0]}, 1)
    homes = [finetune.place(tmp_path / name, p.settings(4000)) for name in ("first", "second")]
    homes[0].mkdir(parents=True)
    for start in folder.rglob("start_*.json"):
        (homes[0] / start.name).write_text(start.read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nodes = [begun(tmp_path / "first", 0, port)]
    nodes += [begun(tmp_path / "second", 1, port, time_budget_s=0.0)]
    told = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert list(found_in(tmp_path / "first", p, jobs)) == jobs
    assert not list(homes[1].rglob("*.json"))
    alone, spread = (found_in(where, p, jobs)[jobs[1]] for where in (folder, tmp_path / "first"))
    assert spread["held_out"]["nats_per_token"] == pytest.approx(
        alone["held_out"]["nats_per_token"], abs=1e-3
    )
    assert [row["gini"] for row in spread["curve"]] == pytest.approx(
        [row["gini"] for row in alone["curve"]], abs=5e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], finetune.USAGE),
        (
            [json.dumps({name: SMALL[name] for name in SMALL if name not in ("seed", "model")})],
            "finetune: parameters: lack model, seed: must have coefficients, training_seeds, ",
        ),
        (["{seed: 1}"], "finetune: Expecting property name enclosed in double quotes"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(tmp_path, arguments, message):
    with pytest.raises(SystemExit) as ended:
        finetune.main(*([str(tmp_path)] if arguments else []), *arguments)
    assert str(ended.value).startswith(message) and "\n" not in str(ended.value)


def test_the_command_tells_it_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "lib.balance.finetune", str(tmp_path), "{}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("finetune: parameters: lack coefficients, training_seeds, ")


def test_what_the_callers_torch_was_set_to_stays(tmp_path):
    """Also where the queue asks for nothing, and where it asks for determinism itself."""
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        finetune.work(tmp_path, study(), [])
        assert torch.are_deterministic_algorithms_enabled()
        with finetune.deterministic(False):
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(False)
        with finetune.deterministic(True):
            assert torch.are_deterministic_algorithms_enabled()
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_routes_and_worth_come_from_one_pass(tiny_model):
    rng = np.random.default_rng(0)
    documents = [
        Document(str(n), "ab"[n % 2], "c", "", tuple(rng.integers(0, 97, n)), n)
        for n in (5, 40, 17, 33)
    ]
    table, routes = evaluate.routed(
        tiny_model, documents, serving_tokens=16, draws=12, context=16, batch_tokens=48
    )
    assert table.equals(evaluate.per_document(tiny_model, documents, context=16, batch_tokens=48))
    assert (routes["counts"].sum(2) == 2 * table.tokens.to_numpy()[:, None]).all()
    assert len(routes["serving"]) >= 12 and (routes["serving"].sum(2) == 32).all()
    for n, doc in enumerate(documents):
        with adapter.record(tiny_model) as rec, torch.no_grad():
            for run in evaluate.windows(doc.token_ids, 16):
                tiny_model(input_ids=torch.tensor([run[:-1]]))
        assert (
            np.abs(rec.load.numpy() - routes["counts"][n]).sum() <= 2
        )  # ties may fall otherwise in another batch
    assert ((routes["router_entropy"] > 0) & (routes["router_entropy"] <= np.log(8))).all()


def test_specialisation_is_mutual_information():
    counts = np.random.default_rng(0).integers(0, 20, (6, 2, 5))
    domain = list("aabbcc")
    shares = np.stack([counts[i : i + 2].sum(0) for i in (0, 2, 4)]).astype(float)
    shares /= shares.sum(-1, keepdims=True)
    expected = np.mean([entropy(part, shares.mean(0), base=2, axis=-1) for part in shares], axis=0)
    np.testing.assert_allclose(evaluate.specialisation(counts, domain), expected)


def test_the_bias_moves_load_without_touching_weights(tiny_model):
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 97, (4, 33)))
    bias = objective.selection_bias(tiny_model)
    numerics.use_precision(tiny_model, "float32")
    with (
        torch.no_grad(),
        objective.biased(tiny_model),
        adapter.record(tiny_model, indices=True, weights=True, scores=True) as rec,
    ):
        tiny_model(input_ids=batch)
        before = rec.load.clone()
        for _ in range(200):
            rec.clear()
            tiny_model(input_ids=batch)
            objective.update_bias(bias, rec.load, 0.0003)
        probability = rec.scores[0][-1].softmax(-1)
        torch.testing.assert_close(rec.weights[0][-1], probability.gather(1, rec.indices[0][-1]))
    assert (
        stats.gini(rec.load).mean() < 0.5 * stats.gini(before).mean()
        and bias.mean(1).abs().max() < 1e-6
    )


def same(one, other):
    """Whether two evaluations agree, but for what rounding in other batches may change."""
    assert one["nats_per_token"] == pytest.approx(other["nats_per_token"], abs=1e-6)
    assert one["load"] == other["load"] and one["serving"] == other["serving"]


@pytest.mark.parametrize("trained", ["all", "routers"])
@pytest.mark.parametrize("loss", ["switch", "bias"])
def test_the_repaired_model_is_kept_and_opens_with_the_same_numbers(tmp_path, trained, loss):
    """Of routers alone nothing but their weights differs from the start, and only they are kept."""
    p = study(
        coefficients={"none": [0.0], "switch": [1.0], "bias": [0.01]},
        finetune_learning_rate=1e-2,
        trained=trained,
        keep=loss,
    )
    job = p.kept()
    assert finetune.work(tmp_path / "03_finetune", p, [job]) == ""
    (result,) = found_in(tmp_path / "03_finetune", p, [job]).values()
    home = tmp_path / finetune.taken_home(tmp_path / "03_finetune", p)
    model, _ = repaired.open(home)
    text = setup.prepare(p, 4000, torch.device("cpu"))
    same(worth.of(model, text.documents, serving_tokens=64, seed=0), result["held_out"])
    before = setup.opened(p, torch.device("cpu"))[0].state_dict()
    changed = {name for name, part in model.state_dict().items() if not part.equal(before[name])}
    routers = set(trainable.routers(model))
    assert len(routers) == 6 and routers <= changed
    assert (changed == routers) is (trained == "routers")
    assert (home / repaired.ROUTERS).is_file() is (trained == "routers")
    assert hasattr(model, "selection_bias") is (loss == "bias")
    assert home.name in (home / "README.md").read_text()
    with pytest.raises(FileNotFoundError, match="must hold repaired.json"):
        repaired.open(tmp_path)


def test_what_is_not_trained_here_is_not_there(tmp_path):
    assert finetune.taken_home(tmp_path / "03", study()) == "none is kept"
    p = study(keep="none")
    assert finetune.taken_home(tmp_path / "03", p).startswith("not there yet: the run")
    with pytest.raises(ValueError, match=r"keep = 'swich': .*did you mean switch"):
        repaired.check("swich", {"none": [0.0], "switch": [1.0]})


def test_half_precision_weights_have_float32_masters_and_gradients_of_stored_layers(tiny_model):
    """Computed again or kept, the gradient of the routers is the same; all else has none."""
    tiny_model.bfloat16().train()
    routers = trainable.routers(tiny_model)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 97, (2, 17)))
    found = []
    with trainable.only(tiny_model, "routers"):
        forward = numerics.use_precision(tiny_model, "bf16")
        for again in (True, False):
            if not again:
                trainable._computed_again(tiny_model, "disable")
            with adapter.record(tiny_model, scores=True) as rec:
                loss = losses.LOSSES["switch"]
                objective.gradients(tiny_model, rec, batch, loss, 1.0, forward=forward)
            own = {n: p.grad for n, p in tiny_model.named_parameters() if p.grad is not None}
            assert set(own) == set(routers)
            assert {part.dtype for part in own.values()} == {torch.float32}
            found.append({name: grad.clone() for name, grad in own.items()})
            tiny_model.zero_grad()
    for name in routers:
        torch.testing.assert_close(found[0][name], found[1][name])
    assert {part.dtype for part in tiny_model.parameters()} == {torch.bfloat16}


def test_memory_decides_what_is_trained(tiny_model):
    need = trainable.Memory(everything=10, routers=5, available=12)
    assert need.decided == "all"
    assert trainable.Memory(everything=10, routers=5, available=7).decided == "routers"
    with pytest.raises(MemoryError, match="training all needs 0.0 GB"):
        _ = trainable.Memory(everything=10, routers=5, available=3).decided
    found = trainable.memory(tiny_model.config, torch.bfloat16, 64, torch.device("cpu"))
    weights = sum(part.numel() for part in tiny_model.parameters())
    assert 16 * weights < found.everything and 2 * weights < found.routers < found.everything


def test_a_record_holds_counts_of_serving_batches_and_several_draws(finished):
    folder, p = finished
    job = Job("start", 0.0, 0)
    held = found_in(folder, p, [job])[job]["held_out"]
    serving = np.array(held["serving"])
    assert serving.shape == (worth.KEPT, 6, 16) and (serving.sum(2) == 2 * p.batch_tokens).all()
    assert len(held["draws"]) == 1 + worth.AGAIN and len(set(held["draws"])) > 1
    assert held["draws"][0] == pytest.approx(np.mean(held["layers"]["max_violation_p95"]), abs=1e-4)
    own = held["documents"]
    assert sum(own["sizes"]) == own["tokens"] and 0 < sum(own["correct"]) < own["tokens"]


def test_own_text_is_split_and_large_vocabularies_fit(tmp_path, tiny_model):
    """Trained on one part of the text given, judged on the other, with ids beyond 16 bits."""
    own = tmp_path / "text"
    own.mkdir()
    for number in range(6):
        (own / f"{number}.txt").write_text(f"Text number {number}. " * 40 * (number + 1))
    p = study(text=str(own), documents_per_domain=4, finetune_steps=1)
    text = setup.prepare(p, 1, torch.device("cpu"))
    assert len(text.documents) == 3 and p.strides == [1]
    assert p.settings(1)["text"].startswith("SHA-256 ")  # its content counts, not its place
    finetune.work(tmp_path / "q", p, [Job("start", 0.0, 0), Job("none", 0.0, 0)])
    assert len(finetune.finished(tmp_path / "q", p, [Job("none", 0.0, 0)])[1]) == 1
    wide = Document("a", "b", "c", "", (70_000, 3), 2)
    assert corpus.stream([wide]).tolist() == [70_000, 3]
    assert corpus.stream([Document("a", "b", "c", "", (7, 3), 2)]).dtype == np.uint16
