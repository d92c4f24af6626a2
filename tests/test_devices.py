"""A model that is spread over two devices: nothing mixes them, and its numbers are those of one."""

import copy
from types import SimpleNamespace

import devices
import numpy as np
import pytest
import torch
from transformers import OlmoeForCausalLM

from lib.balance import evaluate, losses, objective
from lib.model import load
from lib.routing import adapter, assignment, bind, observe, table


@pytest.fixture
def both():
    """The same random model on one device and, its last two layers and its head elsewhere, on two;
    for mechanics, never for results.
    """
    torch.manual_seed(0)
    sizes = dict(vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=3)
    whole = OlmoeForCausalLM(load.config(**sizes, num_experts=8, tie_word_embeddings=False)).eval()
    whole.set_experts_implementation("eager")  # another would ask what kind of device it is on
    spread = copy.deepcopy(whole)
    devices.split(spread, 1)
    return whole, spread


def texts():
    draw = np.random.default_rng(0)
    about = dict(domain="d", cluster="c", bytes=40)
    return [
        SimpleNamespace(name=f"d{i}", token_ids=draw.integers(0, 97, 12 + i).tolist(), **about)
        for i in range(6)
    ]


def test_a_mixture_of_devices_is_refused():
    here, there = torch.ones(2), devices.On(torch.ones(2), devices.FAR)
    with devices.Devices(), torch.no_grad():
        assert float((there + there.to("meta:1")).sum()) == 4
        with pytest.raises(RuntimeError, match="must be on one device"):
            here + there
        with pytest.raises(RuntimeError, match="must be on one device"):
            torch.stack([here, there])
        assert there.cpu().tolist() == [1, 1] and there[torch.tensor([0])].device == devices.FAR


def test_the_profile_is_that_of_one_device(both):
    one, two = both
    wanted = observe.trace(one, texts()), observe.entropies(one, texts())
    with devices.Devices():
        found = observe.trace(two, texts()), observe.entropies(two, texts())
    np.testing.assert_array_equal(found[0].expert_index, wanted[0].expert_index)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6)


def test_other_assignments_cost_what_they_do_on_one_device(both):
    ids = torch.randint(0, 97, (6, 16), generator=torch.Generator().manual_seed(0))
    group = torch.from_numpy(assignment.prefix_groups(*ids.shape))
    plan = bind.settings(list(table.STRATEGIES), [1.25], [1.0], [4])

    def made(model):
        fits = bind.fit(model, ids, batch_tokens=32, steps=20)
        runs = [
            assignment.run(model, ids, bind.bound(setting, group, fits), group, first=8)
            for setting in plan
        ]
        leaks = assignment.leak(model, ids[0], ids[1], plan, fits)
        return runs, leaks, bind.price_correlation(fits, 2)

    wanted = made(both[0])
    with devices.Devices():
        found = made(both[1])
    for one, two in zip(wanted[0], found[0], strict=True):
        np.testing.assert_allclose(two["nats"], one["nats"], rtol=1e-5)
        np.testing.assert_array_equal(two["load"], one["load"])
    np.testing.assert_allclose(found[1].leak, wanted[1].leak, rtol=1e-4)
    np.testing.assert_allclose(found[2], wanted[2], rtol=1e-6)


def test_evaluation_is_that_of_one_device(both):
    def made(model):
        return evaluate.routed(model, texts(), serving_tokens=16, draws=4, context=8)

    wanted = made(both[0])
    with devices.Devices():
        found = made(both[1])
    np.testing.assert_allclose(found[0].nats, wanted[0].nats, rtol=1e-5)
    for name, part in wanted[1].items():
        np.testing.assert_allclose(found[1][name], part, rtol=1e-5)


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_a_step_of_training_is_that_of_one_device(both, name):
    batch = torch.randint(0, 97, (4, 9), generator=torch.Generator().manual_seed(0))
    loss = losses.LOSSES[name]

    def made(model):
        if loss.moves_bias:
            objective.selection_bias(model)[:] += 0.01
        with objective.biased(model), adapter.record(model, scores=True) as rec:
            nats, balance, load = objective.gradients(
                model, rec, batch, loss, 0.1, micro_sequences=2
            )
        own = [part.grad.cpu() for part in model.parameters() if part.grad is not None]
        return float(nats), float(balance), load.cpu(), own

    wanted = made(both[0])
    with devices.Devices():
        found = made(both[1])
    assert found[:2] == pytest.approx(wanted[:2], rel=1e-5)
    assert torch.equal(found[2], wanted[2]) and len(found[3]) == len(wanted[3])
    for one, two in zip(wanted[3], found[3], strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-7)
