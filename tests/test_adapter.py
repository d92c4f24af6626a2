"""What is recorded is what was computed."""

import pytest
import torch
from torch import nn

from lib.routing import adapter

TOKENS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(0))


def test_load_is_the_routers_own_choice(tiny_model):
    with torch.no_grad(), adapter.record(tiny_model, indices=True, weights=True, scores=True) as rec:
        tiny_model(input_ids=TOKENS)
    assert rec.load.shape == (3, 8) and rec.k == 2
    for layer in range(3):
        probabilities = rec.scores[layer][0].softmax(-1)
        best = probabilities.topk(2)
        assert torch.equal(rec.index(layer), best.indices)
        torch.testing.assert_close(rec.weights[layer][0], best.values)
        assert torch.equal(rec.load[layer], torch.bincount(best.indices.flatten(), minlength=8))


def test_recording_changes_nothing_and_ends(tiny_model):
    with torch.no_grad():
        before = tiny_model(input_ids=TOKENS).logits
        with adapter.record(tiny_model, indices=True, scores=True) as rec:
            during = tiny_model(input_ids=TOKENS).logits
        seen = rec.load.clone()
        after = tiny_model(input_ids=TOKENS).logits
    assert torch.equal(before, during) and torch.equal(before, after) and torch.equal(seen, rec.load)


def test_padding_is_not_counted(tiny_model):
    mask = torch.ones_like(TOKENS)
    mask[1, 4:] = 0
    mask[2, 9:] = 0
    with torch.no_grad(), adapter.record(tiny_model, indices=True) as padded:
        tiny_model(input_ids=TOKENS, attention_mask=mask)
    with torch.no_grad(), adapter.record(tiny_model) as alone:
        for row, length in zip(TOKENS, mask.sum(1), strict=True):
            tiny_model(input_ids=row[None, :length])
    assert torch.equal(padded.load, alone.load) and len(padded.index(0)) == int(mask.sum())


def test_each_token_counts_once_when_generating_or_recomputing(tiny_model):
    with torch.no_grad(), adapter.record(tiny_model) as rec:
        tiny_model.generate(TOKENS[:1], max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert rec.load.sum(1).tolist() == [2 * (11 + 4)] * 3
    tiny_model.gradient_checkpointing_enable()
    tiny_model.train()
    with adapter.record(tiny_model) as rec:
        tiny_model(input_ids=TOKENS, use_cache=False).logits.sum().backward()
    assert rec.load.sum(1).tolist() == [2 * TOKENS.numel()] * 3


def test_scores_carry_gradients_to_the_router(tiny_model):
    with adapter.record(tiny_model, scores=True) as rec:
        tiny_model(input_ids=TOKENS)
    rec.scores[1][0].sum().backward()
    assert tiny_model.model.layers[1].mlp.gate.weight.grad.abs().sum() > 0


def test_a_dense_model_is_refused():
    with pytest.raises(ValueError, match="has no mixture-of-experts layer"):
        adapter.layers(nn.Sequential(nn.Linear(2, 2)))
