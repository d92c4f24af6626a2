"""The step: parts add up, even load costs nothing more, and a measured layer is predicted as calibrate does."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_calibrate import TRUE

from lib.network import calibrate, fabric, fluid, grid, placement, step, traffic

SHAPE = grid.Shape(1024, 512, 32, 4)
LAYER = dict(start_s=4e-5, order_bytes_per_s=3.4e11)
MEASURED = step.Constants(TRUE["exchange"], TRUE["expert"], LAYER, TRUE["exchange"]["wire_bytes_per_s"], 50e9, "measured")
BOTH = pytest.mark.parametrize("constants", [step.published(), MEASURED], ids=["published", "measured"])


def drawn(level, tokens=64, devices=8, seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(shape.experts)
    counts = traffic.counts(traffic.inclusion(shape.experts, shape.k, level), shape.k, tokens, devices, rng)
    return step.drawn(counts[:, labels], placement.contiguous(shape.experts, devices), 2 * shape.hidden)


@BOTH
def test_even_load_costs_nothing_more(constants):
    for devices in (4, 8, 16):
        net = step.network(devices, 8, constants)
        even = step.even(64, devices, SHAPE, 2 * SHAPE.hidden)
        home = placement.contiguous(32, devices)
        own = step.drawn(np.full((devices, 32), 8), home, 2 * SHAPE.hidden)  # each expert gets the same from everyone
        for a, b in zip(even, own, strict=True):
            np.testing.assert_allclose(a, b)
        one, other = (step.layer(*load, net, SHAPE, constants) for load in (even, own))
        for overlap in (False, True):
            assert step.layer_s(one, overlap) == pytest.approx(step.layer_s(other, overlap))
        assert all(value == pytest.approx(0, abs=1e-12) for value in step.attribution(other, one).values())


@BOTH
@given(st.floats(0, 0.8), st.integers(0, 99), st.sampled_from([4, 64, 4096]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_parts_and_attribution_add_up_exactly(constants, level, seed, tokens, overlap):
    net = step.network(16, 8, constants)
    found = step.layer(*drawn(level, tokens, 16, seed), net, SHAPE, constants)
    base = step.layer(*step.even(tokens, 16, SHAPE, 2 * SHAPE.hidden), net, SHAPE, constants)
    assert step.layer_s(found) == pytest.approx(sum(found[name] for name in step.PARTS), rel=1e-12)
    parts = step.attribution(found, base, lambda p: step.layer_s(p, overlap))
    assert sum(parts.values()) == pytest.approx(step.layer_s(found, overlap) - step.layer_s(base, overlap), rel=1e-9, abs=1e-15)
    if not overlap:
        assert parts["wire_s"] == pytest.approx(found["wire_s"] - base["wire_s"], rel=1e-9, abs=1e-15)
    assert step.layer_s(found, True) <= 2 * step.layer_s(found) * (1 + 1e-12)


def test_a_hidden_part_is_blamed_for_what_shows_only():
    base = dict(start_up_s=0.0, wire_s=1.0, arithmetic_s=1.0)
    more = base | {"wire_s": 2.0, "arithmetic_s": 2.0}
    both = step.attribution(more, base, lambda p: step.layer_s(p, True))
    assert both == pytest.approx(dict(start_up_s=0, wire_s=1, arithmetic_s=1))
    assert step.attribution(base | {"wire_s": 2.0}, base | {"arithmetic_s": 2.0}, lambda p: step.layer_s(p, True))["start_up_s"] == 0


def test_a_measured_layer_is_predicted_as_calibrate_does():
    """On one node at the measured rate, with the bound: the same seconds from the same constants."""
    sent, rows, active = drawn(0.6, tokens=256, devices=2)
    about = pd.DataFrame([grid.features(sent)])
    worst = calibrate.expert_s(TRUE["expert"], dict(rows=rows, active=active, expert_bytes=SHAPE.expert_bytes, row_flop=SHAPE.row_flop)).max()
    known = {name: about[name].to_numpy() for name in about}
    expected = calibrate.layer_s(LAYER, dict(exchange_s=calibrate.exchange_s(TRUE["exchange"], known), expert_s=worst, own_bytes=known["own_bytes"]))
    net = fabric.star(2, TRUE["exchange"]["wire_bytes_per_s"])
    assert step.layer_s(step.layer(sent, rows, active, net, SHAPE, MEASURED)) == pytest.approx(expected[0], rel=1e-9)


def test_published_constants_by_hand():
    """Two devices; 100 rows go across each way, 300 and 100 rows on one expert each."""
    shape, p = grid.Shape(1000, 500, 2, 1), step.published()
    sent = np.array([[2e5, 0], [1e5, 1e5]]) * 1.0
    parts = step.layer(sent, np.array([300.0, 100]), np.array([1.0, 1]), fabric.star(2, 450e9), shape, p, combine_share=2)
    assert parts["start_up_s"] == pytest.approx(2 * (8.4e-6 + 0.6e-6))
    assert parts["wire_s"] == pytest.approx(1e5 / 450e9 + 2e5 / 450e9)
    read, work = 6 * 1000 * 500 / 4.8e12, 300 * 6 * 1000 * 500 / 989.4e12
    assert parts["arithmetic_s"] == pytest.approx(max(read, work), rel=0.02)  # a smooth maximum


def test_scaling():
    shape, p = SHAPE, step.published()
    sent, rows, active = drawn(0.5, tokens=8192)
    net = step.network(8, 8, p)
    one, ten = (step.layer(c * sent, c * rows, active, net, shape, p) for c in (1, 10))
    for name in ("wire_s", "arithmetic_s"):
        assert ten[name] == pytest.approx(10 * one[name], rel=1e-3)
    assert ten["start_up_s"] == one["start_up_s"]
    several = step.layer(np.stack([sent, 2 * sent]), np.stack([rows, 2 * rows]), np.stack([active] * 2), net, shape, p)
    assert several["wire_s"][0] == pytest.approx(one["wire_s"]) and several["wire_s"].shape == (2,)
    exact = step.layer(sent, rows, active, net, shape, p, time_s=fluid.makespan_s)
    assert exact["wire_s"] >= one["wire_s"] * (1 - 1e-12)


def test_fewer_active_experts_can_make_a_skewed_batch_faster():
    """Decode: reading weights is the cost, and a skewed batch reads fewer of them."""
    shape, p = grid.Shape(4096, 4096, 64, 2), step.published()
    net = step.network(8, 8, p)
    even = step.layer(*step.even(8, 8, shape, 8192), net, shape, p)
    skewed = step.layer(*drawn(0.9, 8, shape=shape), net, shape, p)
    assert step.layer_s(skewed) < step.layer_s(even) and step.attribution(skewed, even)["arithmetic_s"] < 0


def test_a_model_is_its_layers_and_the_rest():
    model, p = step.models()["OLMoE-1B-7B"], step.published()
    parts = step.layer(*step.even(512, 8, model, 4096), step.network(8, 8, p), model, p)
    rest = step.rest_s(512, model, p)
    assert step.model_s(parts, rest, model) == pytest.approx(16 * step.layer_s(parts) + rest)
    assert rest == pytest.approx(max(2 * model.rest_parameters * 512 / 989.4e12, 2 * model.rest_parameters / 4.8e12), rel=0.02)
    hidden = step.model_s(parts, rest, model, overlap=True)
    assert 2 * max(16 * parts["wire_s"], rest) < hidden < 2 * step.model_s(parts, rest, model)


def test_shapes_are_those_of_the_published_configurations():
    """Sizes from transformers' own classes; the rest by counting the parameters of the whole model."""
    import torch
    import transformers as t

    configs = {
        "OLMoE-1B-7B": t.OlmoeConfig(intermediate_size=1024), "Mixtral-8x7B": t.MixtralConfig(), "DeepSeek-V3": t.DeepseekV3Config(),
        "Qwen3-30B-A3B": t.Qwen3MoeConfig(num_hidden_layers=48, head_dim=128), "gpt-oss-120b": t.GptOssConfig(),
        "gpt-oss-20b": t.GptOssConfig(num_hidden_layers=24, num_local_experts=32),
    }  # fmt: skip
    billions = {"OLMoE-1B-7B": 6.9, "Mixtral-8x7B": 46.7, "DeepSeek-V3": 671.0, "Qwen3-30B-A3B": 30.5, "gpt-oss-120b": 116.8, "gpt-oss-20b": 20.9}
    assert set(configs) == set(step.models())
    for name, model in step.models().items():
        config = configs[name]
        with torch.device("meta"):
            parts = {k: v.numel() for k, v in t.AutoModelForCausalLM.from_config(config).named_parameters()}
        experts = sum(n for k, n in parts.items() if ".experts." in k)
        assert model.hidden == config.hidden_size and model.k == config.num_experts_per_tok and model.layers == config.num_hidden_layers
        assert model.moe_layers == len({k.split(".experts.")[0] for k in parts if ".experts." in k})
        assert experts / model.moe_layers / model.experts == pytest.approx(3 * model.hidden * model.width, rel=1e-3)
        assert model.rest_parameters == sum(parts.values()) - experts - sum(n for k, n in parts.items() if "embed_tokens" in k)
        assert sum(parts.values()) / 1e9 == pytest.approx(billions[name], abs=0.06)
        if model.measured_as:
            known = grid.SHAPES[model.measured_as]
            assert (known.hidden, known.width, known.experts, known.k) == (model.hidden, model.width, model.experts, model.k)


def test_every_published_constant_has_its_source():
    for name in ("step.csv", "shapes.csv", "fabrics.csv", "rates.csv"):
        assert pd.read_csv(step.DATA / name).source.str.len().gt(20).all(), name
    star = fabric.preset("H200", 8)
    assert star.capacity_bytes_per_s[0] == step.published().nvlink_bytes_per_s


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rows=np.ones(7)), r"rows \(7,\), active \(8,\): must both be \(8,\)"),
        (dict(rows=-np.ones(8)), "rows, active: must be ≥ 0"),
        (dict(active=np.zeros(8)), "rows need an active expert"),
        (dict(traffic=-np.ones((8, 8))), "finite numbers of bytes ≥ 0"),
    ],
)
def test_bad_input_is_one_line(change, message):
    p = step.published()
    given_ = dict(traffic=np.ones((8, 8)), rows=np.ones(8), active=np.ones(8)) | change
    with pytest.raises(ValueError, match=message) as error:
        step.layer(**given_, net=step.network(8, 8, p), shape=SHAPE, constants=p)
    assert "\n" not in str(error.value)


def test_what_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="machine = 'x': must have fits of exchanges, experts and layers"):
        step.measured({}, "x", SHAPE)
