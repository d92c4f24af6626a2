"""A router's rule is recovered from what it does, and none is invented."""

import itertools

import pytest
import torch
from torch import nn

from lib.routing.rule import Groups, Rule, Sample, Vector, calibrate

TOKENS, EXPERTS, K = 38, 16, 3


class Held(nn.Module):
    """What a block holds besides its matrices."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.bias = nn.Buffer(0.3 * torch.randn(EXPERTS))
        self.unused = nn.Buffer(torch.randn(EXPERTS))
        self.scale = nn.Parameter(0.5 + torch.rand(EXPERTS))


HELD = Held()
BIAS, UNUSED, SCALE = (Vector(HELD, name) for name in ("bias", "unused", "scale"))
GROUPS = (Groups(4, 2, 2), Groups(4, 2, 1), Groups(8, 3, 2), Groups(8, 3, 1))


def behaviour(rule: Rule, dtype: torch.dtype = torch.float32, width: int = EXPERTS) -> Sample:
    """What a router of this rule does with random logits, its weights rounded to `dtype`."""
    torch.manual_seed(2)
    logits = 1.5 * torch.randn(TOKENS, width).to(dtype)
    index = rule.choice(logits).topk(K).indices
    weights = rule.weights(logits, index).detach().to(dtype)
    return Sample(
        logits, index, weights, torch.arange(TOKENS), EXPERTS, (UNUSED, BIAS, SCALE), GROUPS
    )


@pytest.mark.parametrize(
    ("score", "renormalised", "scale", "bias", "groups"),
    itertools.product(
        ("softmax", "sigmoid", "sqrt-softplus"),
        (False, True),
        (1.0, 2.5),
        (None, BIAS),
        (None, *GROUPS),
    ),
)
def test_every_combination_is_recovered(score, renormalised, scale, bias, groups):
    rule = Rule(score, renormalised, scale, bias=bias, groups=groups)
    sample = behaviour(rule)
    found, why = calibrate(sample)
    assert why == "" and (found.score, found.renormalised, found.bias) == (
        score,
        renormalised,
        bias,
    )
    assert found.scale == pytest.approx(scale, rel=1e-5)
    assert torch.equal(found.choice(sample.logits).topk(K).indices, sample.index)


def test_worked_by_hand():
    logits = torch.tensor([[1.0, 2.0, 4.0, 1.0]]).log()
    rule = Rule("softmax", renormalised=True, scale=2.0)
    torch.testing.assert_close(rule.scores(logits), torch.tensor([[1 / 8, 2 / 8, 4 / 8, 1 / 8]]))
    torch.testing.assert_close(
        rule.weights(logits, torch.tensor([[2, 1]])), torch.tensor([[8 / 6, 4 / 6]])
    )
    inf = (
        torch.inf
    )  # of the groups (1, 2) and (4, 1) the second has the larger sum and the larger maximum
    limited = Rule("softmax", False, 1.0, groups=Groups(number=2, kept=1, best=2)).choice(logits)
    torch.testing.assert_close(limited, torch.tensor([[-inf, -inf, 4 / 8, 1 / 8]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_half_precision(score, dtype):
    found, _ = calibrate(behaviour(Rule(score, True, 2.5, bias=BIAS), dtype))
    assert (found.score, found.renormalised, found.bias) == (score, True, BIAS)


def test_a_scale_per_expert_and_shared_experts_in_the_sum():
    found, _ = calibrate(behaviour(Rule("softmax", True, 1.0, expert_scale=SCALE)))
    assert found.expert_scale == SCALE and str(found) == "softmax, renormalised, × per expert"
    found, _ = calibrate(
        behaviour(Rule("sigmoid", True, 8.0, bias=BIAS, shared=2), width=EXPERTS + 2)
    )
    assert found.shared == 2 and str(found) == "sigmoid, renormalised, × 8, shared in the sum, bias"


def test_a_bias_is_followed_while_it_is_trained():
    found, _ = calibrate(behaviour(Rule("sigmoid", True, 1.0, bias=BIAS)))
    logits = torch.zeros(1, EXPERTS)
    before = HELD.bias.clone()
    HELD.bias[5] = 9.0
    assert found.choice(logits).argmax() == 5 and found.scores(logits).unique().tolist() == [0.5]
    HELD.bias.copy_(before)


def test_unused_slots_do_not_count():
    sample = behaviour(Rule("softmax", False, 1.0))
    sample.weights[:, 2] = 0
    sample.index[:, 2] = 0
    assert calibrate(sample)[0] == Rule("softmax", False, pytest.approx(1.0))


def test_a_table_by_token_is_known_by_repeated_tokens():
    rule = Rule("sigmoid", True, 1.0)
    sample = behaviour(rule)
    token = torch.arange(TOKENS) % (TOKENS // 2)
    index = torch.stack([token % 7, 7 + token % 5, 12 + token % 3], 1)
    fixed = Sample(sample.logits, index, rule.weights(sample.logits, index), token, EXPERTS)
    assert str(calibrate(fixed)[0]) == "sigmoid, renormalised, ranked by token"
    loose = Sample(
        sample.logits, index, rule.weights(sample.logits, index), torch.arange(TOKENS), EXPERTS
    )
    assert calibrate(loose) == (None, "no known rule gives its choice of experts")


def test_no_rule_is_invented():
    sample = behaviour(Rule("softmax", False, 1.0))
    other = Sample(
        sample.logits,
        sample.index,
        sample.weights**1.5,
        sample.token,
        EXPERTS,
        (UNUSED, BIAS),
        GROUPS,
    )
    assert calibrate(other) == (None, "no known rule gives its weights")
