"""The losses against imbalance: by hand, against the definition, their gradients, and where they
could break.
"""

import math

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import stats
from lib.balance import losses


def load_cv2(logits, load, mean=None):
    """Squared coefficient of variation of the straight-through load: not among the losses, since it
    is twice Switch.
    """
    return logits.shape[1] * losses._through("load_cv2", logits, load, mean).square().sum() - 1


OF_A_LAYER = {
    name: row.function
    for name, row in losses.LOSSES.items()
    if row.function is not None and not row.pooled
} | {"load_cv2": load_cv2}
THROUGH = ("load_cv2", "entropy", "gini", "max")
PUBLISHED = ROOT / "notebooks" / "params" / "paper.yml"
LOAD = torch.tensor([9.0, 4, 2, 1, 0, 8])


def logits(tokens=12, experts=6, dtype=torch.float64, seed=0):
    made = torch.randn(tokens, experts, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


def formula(name, share, load):
    """Each loss as a plain function of a share vector, in other words than the library's."""
    experts, total = len(share), load.sum().double()
    if name == "load_cv2":
        return share.var(unbiased=False) / share.mean() ** 2
    if name == "entropy":
        floored = torch.where(share >= 1 / total, share, 1 / total)
        return 1 + (share * floored.log()).sum() / math.log(experts)
    if name == "gini":
        order = share.argsort()
        weights = 2 * torch.arange(1, experts + 1) - experts - 1
        return (weights * share[order]).sum() / (experts * share.sum())
    tau = losses.TEMPERATURE
    return tau * torch.log(torch.exp(experts * share / tau).sum() / experts) - 1


@pytest.mark.parametrize("name", THROUGH)
def test_value_is_hard_and_gradient_is_that_of_the_formula_at_the_hard_load(name):
    z = logits()
    value = OF_A_LAYER[name](z, LOAD)
    share = (LOAD.double() / LOAD.sum()).requires_grad_()
    expected = formula(name, share, LOAD)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(expected, share)
    twin = logits()
    (torch.softmax(twin, -1).mean(0) * slope).sum().backward()
    value.backward()
    torch.testing.assert_close(z.grad, twin.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", THROUGH)
def test_formulas_are_differentiable_where_the_gradient_is_taken(name):
    share = torch.tensor(
        [0.31, 0.22, 0.17, 0.13, 0.09, 0.08], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda s: formula(name, s, LOAD), share)


@pytest.mark.parametrize("name", ["switch", "cv2", "z"])
def test_gradcheck_of_what_is_soft(name):
    assert torch.autograd.gradcheck(lambda z: OF_A_LAYER[name](z, LOAD), logits())


def test_straight_through_load_cv2_is_twice_switch():
    a, b = logits(), logits()
    load_cv2(a, LOAD).backward()
    (2 * losses.switch(b, LOAD)).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(lambda load: sum(load) > 0))
def test_values_are_the_metrics_of_the_load(load):
    counts, z = torch.tensor(load), torch.zeros(3, len(load))
    assert losses.gini(z, counts).item() == pytest.approx(float(stats.gini(load)), abs=1e-5)
    assert load_cv2(z, counts).item() == pytest.approx(float(stats.cv(load)) ** 2, abs=1e-4)
    assert losses.entropy(z, counts).item() == pytest.approx(
        1 - float(stats.entropy(load)), abs=1e-5
    )
    violation = float(stats.max_violation(load))
    assert (
        violation - losses.TEMPERATURE * math.log(len(load)) - 1e-4
        <= losses.maximum(z, counts)
        <= violation + 1e-4
    )


@pytest.mark.parametrize("name", ["switch", "cv2", *THROUGH])
def test_even_is_least_and_descent_goes_there(name):
    even = torch.zeros(8, 6, requires_grad=True)
    value = OF_A_LAYER[name](even, torch.full((6,), 5))
    value.backward()
    assert (
        value.item() == pytest.approx(1 if name == "switch" else 0, abs=1e-6)
        and even.grad.abs().max() < 1e-6
    )
    z = torch.tensor([[2.0, 0, 0, 0, 0, 0]] * 8, requires_grad=True)
    OF_A_LAYER[name](z, torch.tensor([11, 1, 1, 1, 1, 1])).backward()
    assert (z.grad[:, 0] > 0).all() and (z.grad[:, 1:] < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", OF_A_LAYER)
def test_dead_experts_one_expert_and_half_precision_are_finite(name, dtype):
    for load in ([40, 0, 0, 0], [0, 0, 0, 0], [20, 20, 0, 0], [1_000_000_007, 3, 0, 0]):
        z = torch.tensor([[60.0, -60, 0, 0]] * 5, dtype=dtype).requires_grad_()
        value = OF_A_LAYER[name](z, torch.tensor(load))
        value.backward()
        assert (
            value.dtype == torch.float32 and torch.isfinite(value) and torch.isfinite(z.grad).all()
        )


def test_a_dead_expert_is_raised():
    for name in ("entropy", "gini", "max", "switch"):
        z = torch.zeros(6, 4, requires_grad=True)
        OF_A_LAYER[name](z, torch.tensor([6, 4, 2, 0])).backward()
        assert (z.grad[:, 3] < 0).all() and z.grad[:, 3].min() == z.grad.min()


@pytest.mark.parametrize("name", OF_A_LAYER)
def test_parts_under_the_statistics_of_the_whole_are_the_whole(name):
    whole, parts = logits(), logits()
    mean = losses.probability(parts).detach()
    expected = OF_A_LAYER[name](whole, LOAD)
    expected.backward()
    values = [OF_A_LAYER[name](part, LOAD, mean) for part in parts.split(3)]
    torch.stack(values).mean().backward()
    assert torch.stack(values).mean().item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-10, atol=1e-15)


def test_the_stock_loss_adds_layers_up_and_is_blind_to_opposite_ones():
    """Two layers, each with one expert that all tokens take, another one in each: pooled they look
    even.
    """
    first = torch.tensor([[9.0, 0.0]] * 8, requires_grad=True)
    second = torch.tensor([[0.0, 9.0]] * 8, requires_grad=True)
    value = losses.stock((first, second), 1)
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-6) and first.grad.abs().max() < 1e-9
    own = first.detach().clone().requires_grad_()
    losses.switch(own, torch.tensor([8, 0])).backward()
    assert own.grad.abs().max() > 1e-6


def test_the_stock_loss_is_k_times_switch_of_the_pooled_load():
    layers = [torch.randn(30, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    load = sum(torch.bincount(z.topk(2).indices.flatten(), minlength=8) for z in layers)
    pooled = losses.switch(torch.cat(layers), load)
    torch.testing.assert_close(losses.stock(tuple(layers), 2), 2 * pooled)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("gini", lambda share: float(stats.gini(share))),
        ("entropy", lambda share: 1 - float(stats.entropy(share))),
        ("cv2", lambda share: float(stats.cv(share)) ** 2),
    ],
)
def test_the_three_losses_of_the_earlier_study_are_there(name, metric):
    """Gini, entropy and coefficient of variation, which it named and never trained with: each is a
    row, is its metric, and is trained with in the published run.
    """
    share = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    value = losses.LOSSES[name].function(share.log()[None], 1000 * share)
    assert value.item() == pytest.approx(metric(share.numpy()), rel=1e-12)
    assert name in yaml.safe_load(PUBLISHED.read_text())["coefficients"]


def test_a_comparison_needs_no_loss_and_switch():
    assert losses.comparable({"none": [0.0], "switch": [0.1, 1.0]})
    for bad in ([], {"none": [0.0]}, {"none": [0.0], "switch": []}, {"none": 0, "switch": [1.0]}):
        assert not losses.comparable(bad)


def test_a_comparison_is_described_a_row_per_loss():
    table = losses.described({"none": [0.0], "gini": [1.0, 0.3]})
    assert table.loss.tolist()[:2] == ["none", "gini"] and set(table.loss) == {*losses.LOSSES}
    assert table.coefficients.tolist()[:2] == ["0", "0.3, 1"]
    assert set(table.coefficients[2:]) == {"not run"} and len(table) == len(losses.LOSSES)
    assert losses.absent(dict.fromkeys(losses.LOSSES)) == []
    assert table.adds[1] == losses.LOSSES["gini"].words


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match=r"losses.gini: logits \(2, 3\), load \(4,\): must be"):
        losses.gini(torch.zeros(2, 3), torch.ones(4))
    with pytest.raises(
        ValueError, match=r"loss = 'entrpy': must be one of .* \(did you mean entropy\?\)"
    ):
        losses.check("entrpy", 0.1)
    for bad in (-0.1, math.inf, np.nan):
        with pytest.raises(ValueError, match="must be a finite number ≥ 0"):
            losses.check("switch", bad)
