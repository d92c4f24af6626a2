"""What is recorded is what was computed."""

import pytest
import torch
from torch import nn

from lib.routing import adapter, hooks

TOKENS = torch.randint(0, 97, (3, 11), generator=torch.Generator().manual_seed(0))


def test_load_is_the_routers_own_choice(tiny_model):
    with (
        torch.no_grad(),
        adapter.record(tiny_model, indices=True, weights=True, scores=True) as rec,
    ):
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
    assert (
        torch.equal(before, during) and torch.equal(before, after) and torch.equal(seen, rec.load)
    )


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


def test_native_through_assign_is_bit_identical_also_with_padding(tiny_model):
    mask = torch.ones_like(TOKENS)
    mask[2, 7:] = 0
    with torch.no_grad():
        before = tiny_model(input_ids=TOKENS, attention_mask=mask).logits
        with adapter.assign(tiny_model, adapter.native):
            during = tiny_model(input_ids=TOKENS, attention_mask=mask).logits
        after = tiny_model(input_ids=TOKENS, attention_mask=mask).logits
    assert torch.equal(before, during) and torch.equal(before, after)


def to_the_first(scores, call):
    """Every token to expert 0 (weight 0.7) and a slot that is not used."""
    index = torch.tensor([[0, 5, 5]]).expand(len(scores), 3)
    return index, torch.tensor([[0.7, 0.0, 0.0]]).expand(len(scores), 3)


def test_record_inside_assign_sees_what_was_assigned_around_it_what_was_chosen(tiny_model):
    with torch.no_grad():
        with adapter.record(tiny_model) as alone:
            tiny_model(input_ids=TOKENS)
        around, inside = adapter.record(tiny_model), adapter.record(tiny_model)
        with around as chosen, adapter.assign(tiny_model, to_the_first), inside as assigned:
            tiny_model(input_ids=TOKENS)
    assert torch.equal(alone.load[0], chosen.load[0])  # later layers see other hidden states
    assert (
        assigned.load.tolist() == [[TOKENS.numel(), *[0] * 7]] * 3
        and chosen.load.sum() == 2 * 3 * TOKENS.numel()
    )


def test_a_strategy_sees_the_routers_scores_and_only_text(tiny_model):
    mask = torch.ones_like(TOKENS)
    mask[1, 4:] = 0
    seen = []

    def strategy(scores, call):
        seen.append((scores, call))
        return call.index, call.rule.weights(call.logits, call.index)

    with torch.no_grad(), adapter.assign(tiny_model, strategy):
        tiny_model(input_ids=TOKENS, attention_mask=mask)
    assert [call.layer for _, call in seen] == [0, 1, 2]
    for scores, call in seen:
        assert (
            len(scores) == int(mask.sum()) and call.token.tolist() == TOKENS[mask.bool()].tolist()
        )
        assert call.sequence.tolist() == [0] * 11 + [1] * 4 + [2] * 11
        torch.testing.assert_close(scores, call.logits.softmax(-1))
        torch.testing.assert_close(call.rule.weights(call.logits, call.index), call.weights)
        assert torch.equal(call.rule.choice(call.logits).topk(2).indices, call.index)
        assert str(call.rule) == "softmax, not renormalised"


def test_gradients_through_an_assignment_with_and_without_checkpointing(tiny_model):
    def gradient():
        tiny_model.zero_grad()
        tiny_model(input_ids=TOKENS, use_cache=False).logits.logsumexp(-1).sum().backward()
        return tiny_model.model.layers[0].mlp.gate.weight.grad.clone()

    def third_best(scores, call):
        index = scores.topk(3).indices[:, 1:]
        return index, call.rule.weights(call.logits, index)

    tiny_model.train()
    native = gradient()
    with adapter.assign(tiny_model, adapter.native):
        assert torch.equal(native, gradient())
    with adapter.assign(tiny_model, third_best):
        plain = gradient()
        tiny_model.gradient_checkpointing_enable()
        assert torch.equal(plain, gradient()) and not torch.equal(plain, native)
    turn = iter(range(99))
    fickle = adapter.assign(
        tiny_model, lambda _scores, call: ((call.index + next(turn)) % 8, call.weights)
    )
    with (
        fickle,
        pytest.raises(
            ValueError, match="computed again: the strategy must answer as it did before"
        ),
    ):
        gradient()


def test_autocast_counts_and_assigns(tiny_model):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = tiny_model(input_ids=TOKENS).logits
        with (
            adapter.record(tiny_model, scores=True) as rec,
            adapter.assign(tiny_model, adapter.native),
        ):
            during = tiny_model(input_ids=TOKENS).logits
    assert torch.equal(before, during) and rec.load.sum() == 2 * 3 * TOKENS.numel()
    assert rec.scores[0][0].dtype == torch.float32


def test_a_model_in_half_precision_is_calibrated(tiny_model):
    assert {str(layer.rule) for layer in adapter.layers(tiny_model.to(torch.bfloat16))} == {
        "softmax, not renormalised"
    }


def test_generation_under_assign(tiny_model):
    with (
        torch.no_grad(),
        adapter.assign(tiny_model, to_the_first),
        adapter.record(tiny_model) as rec,
    ):
        tiny_model.generate(TOKENS[:1], max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert rec.load.tolist() == [[11 + 4, *[0] * 7]] * 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda s, c: (c.index[1:], c.weights[1:]),
            r"shapes \(32, 2\) and \(32, 2\): must both be \[33, slots\]",
        ),
        (lambda s, c: (c.index, c.weights[:, :1]), "must both be"),
        (lambda s, c: (c.index + 8, c.weights), r"index: experts \d+ to \d+: must be from 0 to 7"),
    ],
)
def test_a_wrong_assignment_is_refused(tiny_model, answer, message):
    with (
        torch.no_grad(),
        adapter.assign(tiny_model, answer),
        pytest.raises(ValueError, match=message) as error,
    ):
        tiny_model(input_ids=TOKENS)
    assert "\n" not in str(error.value)
    with torch.no_grad():
        tiny_model(input_ids=TOKENS)  # nothing is left behind


def test_probing_leaves_no_trace(tiny_model):
    tiny_model.train()
    tiny_model.model.layers[1].eval()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    adapter.layers(tiny_model)
    assert torch.equal(state, torch.get_rng_state())
    assert tiny_model.training and not tiny_model.model.layers[1].training
    hooks = [m for m in tiny_model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == []


def test_bypassed_calls_are_refused(tiny_model):
    """As quantised kernels do: the block computes its experts without calling them."""
    for block in tiny_model.model.layers:
        block.mlp.forward = lambda hidden: hidden
    with pytest.raises(
        ValueError, match=r"0 layers seen .* must be 3, as its configuration says"
    ) as error:
        adapter.layers(tiny_model)
    assert "\n" not in str(error.value)


def test_a_dense_language_model_is_refused():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    with pytest.raises(ValueError, match="LlamaForCausalLM: has no mixture-of-experts layer"):
        adapter.layers(LlamaForCausalLM(LlamaConfig(**sizes)))


def test_a_router_without_a_known_rule_is_recorded_and_not_replaced(tiny_model):
    """Weights that are no function of the scores."""
    for layer in tiny_model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(lambda _m, args: (*args[:2], args[2] ** 1.7))
    with torch.no_grad(), adapter.record(tiny_model) as rec:
        tiny_model(input_ids=TOKENS)
    assert rec.load.sum(1).tolist() == [2 * TOKENS.numel()] * 3
    message = "0.mlp.experts: no known rule gives its weights: its assignment can be recorded, not"
    with pytest.raises(ValueError, match=message), adapter.assign(tiny_model, adapter.native):
        pass
    assert {layer.words for layer in adapter.layers(tiny_model)} == {"not one that is known"}


class Loop(nn.Module):
    """A block as checkpoints' own code often has it: a list of experts in a loop, no call that
    carries the assignment.
    """

    def __init__(self, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(experts))
        self.rows = [0] * experts

    def forward(self, hidden):
        flat = hidden.reshape(-1, hidden.shape[-1])
        weights, index = self.router(flat).softmax(-1).topk(2)
        output = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            row, slot = torch.where(index == number)
            self.rows[number] += len(row)
            output[row] += weights[row, slot, None] * expert(flat[row])
        return output.view_as(hidden)


def test_a_block_without_an_experts_call_is_recorded_at_its_own_topk(tiny_model):
    for layer in tiny_model.model.layers:
        layer.mlp = Loop(32, 8)
    found = adapter.layers(tiny_model)
    for layer in tiny_model.model.layers:
        layer.mlp.rows = [0] * 8
    with torch.no_grad(), adapter.record(tiny_model, indices=True) as rec:
        tiny_model(input_ids=TOKENS)
    assert rec.load.tolist() == [layer.mlp.rows for layer in tiny_model.model.layers]
    assert (
        rec.index(0).shape == (TOKENS.numel(), 2) and [layer.places for layer in found] == [()] * 3
    )
    with pytest.raises(
        ValueError, match="its weights are no argument of its experts, so no weights"
    ):
        adapter.record(tiny_model, weights=True).__enter__()
    with pytest.raises(ValueError, match="can be recorded, not replaced"):
        adapter.assign(tiny_model, adapter.native).__enter__()


def test_generation_from_padded_prompts_counts_text_only(tiny_model):
    mask = torch.ones_like(TOKENS)
    mask[0, :6] = 0
    mask[1, :3] = 0
    with torch.no_grad(), adapter.record(tiny_model) as rec:
        tiny_model.generate(
            TOKENS, attention_mask=mask, max_new_tokens=4, do_sample=False, eos_token_id=None
        )
    assert rec.load.sum(1).tolist() == [2 * (int(mask.sum()) + 3 * 3)] * 3


def test_a_mask_of_another_length_is_refused(tiny_model):
    now = hooks.Pass()
    now.begin(tiny_model, (), dict(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)))
    with pytest.raises(
        ValueError, match="attention_mask of 33 tokens: must be 40, the experts' rows"
    ):
        now.kept(40, torch.device("cpu"))
