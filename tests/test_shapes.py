"""The layer of a model by its configuration alone."""

from types import SimpleNamespace

import pytest
import torch
import traces
import transformers as t

from lib.commands import asked, shapes
from lib.network import step
from lib.paper import chapters

CONFIGS = {
    "OLMoE-1B-7B": t.OlmoeConfig(intermediate_size=1024, dtype="bfloat16"),
    "Mixtral-8x7B": t.MixtralConfig(dtype="bfloat16"),
    "Qwen3-30B-A3B": t.Qwen3MoeConfig(num_hidden_layers=48, head_dim=128, dtype="bfloat16"),
    "DeepSeek-V3": t.DeepseekV3Config(quantization_config={"quant_method": "fp8"}),
    "gpt-oss-20b": t.GptOssConfig(
        num_hidden_layers=24, num_local_experts=32, quantization_config={"quant_method": "mxfp4"}
    ),
}
TINY = dict(hidden_size=32, moe_intermediate_size=16, intermediate_size=32, head_dim=8)


@pytest.mark.parametrize("name", CONFIGS)
def test_published_models_have_their_published_shapes(name):
    found, wanted = shapes.of_config(CONFIGS[name], name), step.models()[name]
    assert (found.shape, found.layers) == (wanted.shape, wanted.layers)
    assert found.rest_parameters == wanted.rest_parameters


def test_only_the_configuration_of_a_folder_is_read(tmp_path):
    config = t.Qwen3MoeConfig(
        vocab_size=64,
        num_hidden_layers=3,
        num_experts=8,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **TINY,
    )
    config.save_pretrained(tmp_path / "mine")
    (own,) = shapes.models(["Mixtral-8x7B"], str(tmp_path / "mine"), dtype="float16")
    assert (own.name, own.layers) == ("mine", 2)
    assert vars(own.shape) == dict(hidden=32, width=16, experts=8, k=2, weight_bytes=2.0)
    assert own.words.startswith("hidden size 32, 8 experts of width 16, 2 a token, in 2 layers")
    whole = sum(p.numel() for p in t.Qwen3MoeForCausalLM(config).parameters())
    assert own.rest_parameters == whole - 2 * 8 * 3 * 32 * 16  # tied: the output matrix counts


def test_without_a_model_of_ones_own_the_published_ones_are_taken():
    for model in ("embedded", "without", "with"):
        assert [m.name for m in shapes.models(["Mixtral-8x7B"], model)] == ["Mixtral-8x7B"]
        assert shapes.own(model) is None


@pytest.mark.parametrize(("experts", "few", "many"), [(12, 4, {6}), (60, 4, {6}), (16, 8, {8})])
def test_experts_that_no_number_of_devices_divides_are_shared_by_fewer(
    tmp_path, experts, few, many
):
    """Of 8 and 64 asked for: by as many as divide them, in one node or whole ones."""
    sizes = dict(num_attention_heads=4, num_key_value_heads=2, num_experts_per_tok=2)
    config = t.Qwen3MoeConfig(
        vocab_size=64, num_hidden_layers=1, num_experts=experts, **sizes, **TINY
    )
    config.save_pretrained(tmp_path)
    p = SimpleNamespace(**chapters.defaults("04_network") | {"model": str(tmp_path)})
    place = asked.place(p)
    assert asked.routed(p, place).devices == few
    study = asked.computed(p, place)
    assert {devices for _, devices, _ in study.cases()} == many
    assert asked.sent(p, place, study).devices in (4, 16)
    routes = traces.made([[[0, 1], [0, 2], [2, 3]]], [0, 0, 1])
    found = vars(asked.shape(p, study, routes))
    assert found == dict(hidden=32, width=16, experts=routes.experts, k=2, weight_bytes=4.0)
    embedded = SimpleNamespace(model="embedded", hidden_size=64)
    assert vars(asked.shape(embedded, study, routes)) == found | dict(
        hidden=64, width=32, weight_bytes=2.0
    )
    unasked = dict(num_devices=3, num_experts=32)
    with pytest.raises(ValueError, match="experts = 32, devices = 3: experts must be a multiple"):
        asked.routed(SimpleNamespace(**vars(p) | unasked), place)


def test_what_is_refused(tmp_path):
    dense = t.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1)
    with pytest.raises(ValueError, match="model = 'x': has no experts: must have the same"):
        shapes.of_config(dense, "x")
    packed = t.MixtralConfig(quantization_config={"quant_method": "unheard"})
    with pytest.raises(ValueError, match="quant_method = 'unheard': must be one of fp8, mxfp4"):
        shapes.of_config(packed, "x")
    with pytest.raises(FileNotFoundError, match="model = 'nowhere': must be one of"):
        shapes.models([], "nowhere")


def test_bytes_of_a_weight():
    config = t.MixtralConfig(dtype=torch.float32)
    assert shapes.of_config(config, "x").shape.weight_bytes == 4
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    assert shapes.of_config(config, "x").shape.weight_bytes == 0.5
    groups = {"a": {"weights": {"num_bits": 8}}}
    config.quantization_config = {"quant_method": "compressed-tensors", "config_groups": groups}
    assert shapes.of_config(config, "x").shape.weight_bytes == 1
    assert shapes.of_config(config, "x", dtype="bfloat16").shape.weight_bytes == 2
