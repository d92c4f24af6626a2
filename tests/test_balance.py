"""The balance loss, the training loop and the evaluation."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import families
import numpy as np
import pytest
import torch
import transformers
from conftest import DEVICES
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from lib.balance import evaluate, losses, numerics, objective, train
from lib.model.corpus import Document
from lib.routing import adapter

PLAN = train.Plan(
    steps=6,
    batch_sequences=4,
    sequence_tokens=16,
    learning_rate=1e-3,
    warmup_steps=2,
    log_every=2,
    evaluate_every=3,
)
STREAM = (np.arange(3000) ** 2 % 97).astype(np.uint16)


def test_switch_by_hand_and_at_its_ends():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    assert losses.switch(logits, torch.tensor([3, 1, 0])).item() == pytest.approx(
        3 * (0.75 * 0.5 + 0.25 * 0.25)
    )
    assert losses.switch(torch.zeros(4, 8), torch.full((8,), 5)).item() == pytest.approx(1)
    collapsed = torch.tensor([[50.0, 0, 0, 0]])
    assert losses.switch(collapsed, torch.tensor([9, 0, 0, 0])).item() == pytest.approx(4)


def test_switch_gradient_is_e_times_share():
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    load = torch.tensor([4.0, 3, 2, 1, 0, 0])
    losses.switch(logits, load).backward()
    free = logits.detach().clone().requires_grad_()
    (torch.softmax(free.float(), -1).mean(0) * (6 * load / load.sum())).sum().backward()
    torch.testing.assert_close(logits.grad, free.grad)


def test_switch_of_micro_batches_under_one_load_is_that_of_the_whole():
    logits, load = torch.randn(8, 6), torch.tensor([4.0, 3, 2, 1, 3, 3])
    parts = [losses.switch(part, load) for part in logits.split(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), losses.switch(logits, load))


def test_switch_agrees_with_transformers_for_one_layer():
    """The stock loss of one layer sums over the k choices what ours averages: k times ours."""
    from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func

    logits = torch.randn(40, 8)
    load = torch.bincount(logits.topk(2).indices.flatten(), minlength=8)
    stock = load_balancing_loss_func((logits,), 8, 2)
    torch.testing.assert_close(stock, 2 * losses.switch(logits, load))
    torch.testing.assert_close(losses.stock((logits,), 2), stock)


def arguments(model, **row):
    """What the function of a loss with this row is called with in a step of two parts."""
    calls, batch = [], torch.arange(4 * 9).view(4, 9)

    def function(*given):
        calls.append(given)
        return 0 * (given[0][0] if row.get("pooled") else given[0]).sum()

    with adapter.record(model, scores=True) as rec:
        loss = losses.Loss(function, "nothing that counts", **row)
        objective.gradients(model, rec, batch, loss, 1.0, micro_sequences=2)
    return calls


def test_a_loss_is_given_what_its_row_says(tiny_model):
    """Three layers of eight experts, two for each of the 32 tokens, in two parts."""
    whole = arguments(tiny_model)
    assert len(whole) == 6 and all(logits.shape == (16, 8) for logits, _, _ in whole)
    assert all(load.sum() == 64 for _, load, _ in whole)
    assert all(mean.sum().item() == pytest.approx(1, abs=1e-6) for _, _, mean in whole)
    alone = arguments(tiny_model, whole_batch=False)
    assert [(int(load.sum()), mean) for _, load, mean in alone] == [(32, None)] * 6
    pooled = arguments(tiny_model, whole_batch=False, pooled=True)
    assert [([part.shape for part in logits], k) for logits, k in pooled] == [
        ([(16, 8)] * 3, 2)
    ] * 2


def test_a_router_of_sigmoids_has_probabilities_and_raw_logits():
    """Its scores over their sum are what a loss takes the softmax for, unless it wants logits."""
    model = families.build(transformers.DeepseekV3ForCausalLM)
    assert adapter.layers(model)[0].rule.score == "sigmoid"
    scores, raw = (arguments(model, raw=own)[0][0].detach() for own in (False, True))
    expected = raw.sigmoid() / raw.sigmoid().sum(-1, keepdim=True)
    torch.testing.assert_close(scores.softmax(-1), expected)
    assert not torch.allclose(raw.softmax(-1), expected, atol=1e-3)


def test_bad_shapes_and_unknown_losses_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"logits \(2, 3\), load \(4,\)"):
        losses.switch(torch.zeros(2, 3), torch.ones(4))
    for bad, message in (
        (dict(loss="swich"), r"loss = 'swich': must be one of none, .* \(did you mean switch\?\)"),
        (
            dict(loss="gini", coefficient=-1.0),
            "coefficient = -1.0 of gini: must be a finite number ≥ 0",
        ),
        (dict(micro_sequences=3), "batch_sequences = 4: must be a multiple of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            train.run(tiny_model, STREAM, replace(PLAN, **bad))
    with pytest.raises(ValueError, match="has 1 windows of 16 tokens"):
        train.run(tiny_model, STREAM[:20], PLAN)


def test_batches_see_every_window_once_an_epoch():
    stream = torch.arange(16 * 12 + 1)
    source = train.batches(stream, PLAN)
    first = torch.cat([next(source) for _ in range(3)])
    assert (
        sorted(first[:, 0].tolist()) == list(range(0, 192, 16))
        and (first[:, 1:] - first[:, :-1] == 1).all()
    )
    second = torch.cat([next(source) for _ in range(3)])
    assert sorted(second[:, 0].tolist()) == list(range(0, 192, 16)) and not torch.equal(
        first, second
    )


def test_training_is_repeatable_and_learns(tiny_model):
    twin, sample = copy.deepcopy(tiny_model), STREAM[: 17 * 4].reshape(4, 17)
    plan = replace(PLAN, steps=30, learning_rate=1e-2)
    a = train.run(tiny_model, STREAM, plan, sample=sample)
    b = train.run(twin, STREAM, plan, sample=sample)
    assert a.nats.tolist() == b.nats.tolist() and a.nats.iloc[-1] < a.nats.iloc[0] - 0.3
    assert a.step.tolist() == list(range(2, 31, 2)) and a.held_out.notna().sum() == 5
    assert all(
        torch.equal(p, q) for p, q in zip(tiny_model.parameters(), twin.parameters(), strict=True)
    )


def test_the_balance_loss_balances(tiny_model):
    plan = replace(PLAN, steps=60, learning_rate=1e-2, log_every=20)
    free = train.run(copy.deepcopy(tiny_model), STREAM, plan)
    held = train.run(tiny_model, STREAM, replace(plan, loss="switch", coefficient=0.3))
    assert held.gini.iloc[-1] < 0.7 * free.gini.iloc[-1] and held.balance.iloc[-1] < 1.3


def test_divergence_ends_with_one_line(tiny_model):
    with torch.no_grad():
        tiny_model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="step 2: loss = nan"):
        train.run(tiny_model, STREAM, PLAN)


def test_bf16_expert_products_really_are_bf16(tiny_model, monkeypatch):
    seen = []
    forward = numerics.use_precision(tiny_model, "bf16")
    original = ALL_EXPERTS_FUNCTIONS["grouped_mm"]

    def spy(self, hidden, index, weights):
        seen.append((hidden.dtype, self.gate_up_proj.dtype, self.down_proj.dtype))
        return original(self, hidden, index, weights)

    monkeypatch.setitem(ALL_EXPERTS_FUNCTIONS._global_mapping, "grouped_mm", spy)
    with forward:
        objective.language_loss(tiny_model, torch.zeros(2, 9, dtype=torch.long)).backward()
    assert seen == [(torch.bfloat16,) * 3] * 3
    assert tiny_model.model.layers[0].mlp.experts.gate_up_proj.grad.dtype == torch.float32


def test_evaluation_is_the_sum_over_tokens(tiny_model):
    lengths = [5, 40, 17]
    documents = [Document(str(n), "d", "c", "", tuple(range(n)), bytes=n) for n in lengths]
    table = evaluate.per_document(tiny_model, documents, context=16, batch_tokens=48)
    assert table.tokens.tolist() == [4, 39, 16]
    with torch.no_grad():
        ids = torch.arange(17)[None]
        logp = tiny_model(input_ids=ids[:, :-1]).logits[0].log_softmax(-1)
    nats = -logp[torch.arange(16), ids[0, 1:]].sum().item()
    assert table.nats[2] == pytest.approx(nats, rel=1e-5)
    assert table.correct[2] == (logp.argmax(-1) == ids[0, 1:]).sum()
    total = evaluate.by_domain(table).loc["d"]
    assert total.bits_per_byte == pytest.approx(table.nats.sum() / np.log(2) / 62)


def test_windows_predict_every_token_once():
    runs = evaluate.windows(list(range(10)), 4)
    assert [token for run in runs for token in run[1:]] == list(range(1, 10))


def test_training_records_every_token(tiny_model):
    with adapter.record(tiny_model) as rec:
        tiny_model(input_ids=torch.zeros(2, 16, dtype=torch.long))
    assert rec.load.sum().item() == 2 * 16 * 2 * 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["none", "switch", "stock", "entropy", "gini", "bias"])
def test_a_replayed_step_is_the_step(tiny_model, device, loss):
    """On a CPU nothing is replayed; on a GPU one CUDA graph gives the gradients, to the rounding of
    another attention.
    """
    plan = replace(PLAN, loss=loss, coefficient=0.01)
    ends = []
    for replay in (False, True):
        model = copy.deepcopy(tiny_model).to(device)
        history = train.run(model, STREAM, plan, replay=replay)
        ends.append(
            (
                torch.cat([part.detach().flatten().cpu() for part in model.parameters()]),
                history.nats,
                history.gini,
            )
        )
    for once, again in zip(*ends, strict=True):
        np.testing.assert_allclose(
            np.asarray(once), np.asarray(again), atol=0 if device == "cpu" else 1e-3
        )


def test_a_model_that_cannot_be_captured_trains_step_by_step(tiny_model, monkeypatch, capsys):
    def refused(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    batch = SimpleNamespace(is_cuda=True, clone=lambda: None, device="cpu")
    for name in ("CUDAGraph", "Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", MagicMock())
    monkeypatch.setattr(torch.random, "fork_rng", MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", refused)
    seen = []
    step = seen.append
    assert objective.replayed(step, tiny_model, batch) is step and len(seen) == 3
    why = "OlmoeForCausalLM cannot be captured: operation not permitted when stream is capturing"
    assert capsys.readouterr().out == f"objective.replayed: {why}\n"


def test_fused_norms_compute_what_the_norms_did(tiny_model):
    class ShiftedRMSNorm(torch.nn.Module):  # of a family that counts its weights from one
        eps = 1e-6

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((16,), 0.25))

        def forward(self, rows):
            return (
                rows
                * torch.rsqrt(rows.square().mean(-1, keepdim=True) + self.eps)
                * (1 + self.weight)
            )

    model, ids = copy.deepcopy(tiny_model), torch.arange(48).view(2, 24)
    norms = [part for part in model.modules() if type(part).__name__ == "OlmoeRMSNorm"]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
    before = model(input_ids=ids).logits
    assert numerics.fuse_norms(model) == len(norms) > 0 and all(
        "forward" in vars(norm) for norm in norms
    )
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert numerics.fuse_norms(ShiftedRMSNorm()) == 0
    assert numerics.fuse_norms(copy.deepcopy(tiny_model).bfloat16()) == len(norms)
