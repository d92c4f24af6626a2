"""Fine-tuning on a CPU: the loss in parts, memory kept, runs side by side."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_finetune import study

from lib.balance import beside, evaluate, finetune, language, losses, numerics, objective
from lib.model.corpus import Document
from lib.routing import adapter, scoring


def gradient(model, batch, micro=0):
    model.zero_grad()
    model.train()
    with adapter.record(model, scores=True) as rec:
        found = objective.gradients(
            model, rec, batch, losses.LOSSES["switch"], 0.1, micro_sequences=micro
        )
    own = {name: part.grad.clone() for name, part in model.named_parameters()}
    return found, own


@pytest.mark.skipif(not hasattr(torch.nn.functional, "linear_cross_entropy"), reason="torch < 2.13")
@pytest.mark.parametrize("micro", [0, 2])
def test_a_loss_in_parts_is_the_loss_and_its_gradient(tiny_model, monkeypatch, micro):
    """In parts of 7 tokens too, which do not divide the batch; the load is counted once."""
    monkeypatch.setattr(language, "ROWS", 7)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 97, (4, 17)))
    assert not language.is_split(tiny_model)
    plain, before = gradient(tiny_model, batch, micro)
    assert language.split(tiny_model) and language.is_split(tiny_model)
    parts, after = gradient(tiny_model, batch, micro)
    torch.testing.assert_close(parts, plain)
    assert set(before) == set(after)
    for name, own in before.items():
        torch.testing.assert_close(after[name], own, rtol=1e-4, atol=1e-6)


def test_a_head_that_is_no_product_of_the_last_states_is_left_alone(tiny_model):
    """Scaled logits, a bias, other numbers: the loss is taken of the whole logits."""
    head = tiny_model.get_output_embeddings()
    scaled = head.register_forward_hook(lambda *call: call[-1] * 2)
    assert not language.split(tiny_model)
    scaled.remove()
    assert language.split(tiny_model) is hasattr(torch.nn.functional, "linear_cross_entropy")
    assert not language.split(tiny_model.double())


def test_evaluation_takes_logits_a_few_documents_at_a_time(tiny_model, monkeypatch):
    rng = np.random.default_rng(0)
    lengths = (40, 23, 9, 2)
    documents = [
        Document(str(n), "a", "b", "", tuple(map(int, rng.integers(0, 97, n))), n) for n in lengths
    ]
    seen = []
    monkeypatch.setattr(
        scoring, "rows_at_once", lambda *given: seen.append(given) or len(documents)
    )
    whole = evaluate.per_document(tiny_model, documents, context=16)
    monkeypatch.setattr(scoring, "rows_at_once", lambda *_: 1)
    parts = evaluate.per_document(tiny_model, documents, context=16)
    assert seen and parts.correct.equals(whole.correct) and parts.tokens.equals(whole.tokens)
    np.testing.assert_allclose(parts.nats, whole.nats, rtol=1e-6)
    for row, doc in zip(whole.itertuples(), documents, strict=True):
        nats = 0.0
        for run in evaluate.windows(doc.token_ids, 16):
            ids = torch.tensor([run])
            guess = tiny_model(input_ids=ids[:, :-1]).logits[0].log_softmax(-1)
            nats -= float(guess.gather(1, ids[0, 1:, None]).sum())
        assert row.nats == pytest.approx(nats, rel=1e-5)


def test_runs_side_by_side_give_what_they_give_in_turns(tmp_path):
    """A thread each, in processes of their own; the same bits but for clocks."""
    p = study()
    jobs = finetune.queue(p.coefficients, 1)
    assert beside.work(tmp_path / "one", p, jobs, at_once=1) == ""
    assert beside.work(tmp_path / "two", p, jobs, at_once=2) == ""
    one, two = (finetune.finished(tmp_path / name, p, jobs)[4000] for name in ("one", "two"))
    assert list(one) == list(two) == jobs
    for job in jobs:
        own, other = one[job]["held_out"], two[job]["held_out"]
        assert own["nats_per_token"] == pytest.approx(other["nats_per_token"], abs=1e-5)
        np.testing.assert_allclose(own["load"], other["load"], atol=4)


def test_time_and_failures_leave_what_is_not_done(tmp_path, monkeypatch):
    p = study()
    jobs = finetune.queue(p.coefficients, 1)
    assert beside.work(tmp_path, replace(p, time_budget_s=0.0), jobs, at_once=2).startswith(
        "3 of 3"
    )
    monkeypatch.setattr(beside, "_started", lambda *_: ended())
    assert beside.work(tmp_path, p, jobs, at_once=2) == ""  # here, one after the other
    assert len(finetune.finished(tmp_path, p, jobs)[4000]) == 3


def ended():
    """A worker that is gone before it reads anything."""
    pipes = dict(stdin=beside.subprocess.PIPE, stdout=beside.subprocess.PIPE, text=True)
    worker = beside.subprocess.Popen([beside.sys.executable, "-c", ""], **pipes)
    worker.wait()
    return worker


def test_no_library_takes_more_threads_than_a_worker_has(tmp_path, monkeypatch):
    """A workflow sets them for its jobs; where two workers take all cores each, both wait."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    worker = beside._started(tmp_path, study(), 1)
    with open(f"/proc/{worker.pid}/environ") as file:
        found = dict(line.split("=", 1) for line in file.read().split("\0") if "=" in line)
    worker.kill()
    worker.communicate()
    counts = {name: found[name] for name in found if name.endswith("_NUM_THREADS")}
    assert set(counts) >= {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} and set(counts.values()) == {"1"}


def test_how_many_go_on_at_a_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert beside.abreast(study(), 3) in (1, 2, 3) and beside.abreast(study(), 1) == 1
    monkeypatch.setattr(beside, "PROCESS", 1e15)
    assert beside.abreast(study(), 3) == 1


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="glibc")
def test_memory_is_kept(tiny_model):
    assert numerics.keep_memory() in (True, False)
    numerics.use_precision(tiny_model, "float32")
