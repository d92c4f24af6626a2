"""Opening models: what is verified, what is refused, in one line each."""

import hashlib
import json
import re
import shutil

import pandas as pd
import pytest
import torch
import transformers
from conftest import data_script
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lib import provenance
from lib.model import corpus, filling, load, spreading, vocabulary


def test_the_shipped_checkpoints_are_the_declared_model():
    for arm in load.ARMS:
        model, tokenizer = load.embedded(arm)
        assert model.num_parameters() < 8e6 and tokenizer.get_vocab_size() == load.VOCABULARY
        known = model.config
        assert (known.num_hidden_layers, known.num_experts, known.num_experts_per_tok) == (6, 16, 2)


def test_every_file_of_data_is_listed_with_its_hash():
    listed = data_script("inventory").listed(load.DATA)
    files = {f.relative_to(load.DATA).as_posix() for f in load.DATA.rglob("*") if f.is_file()}
    own = {"manifest.csv"} | {name for name in files if name.endswith((".py", ".pyc"))}
    assert set(listed.file) == files - own and listed.notna().all().all()
    hashes = [provenance.sha256(load.DATA / name) for name in listed.file]
    assert hashes == listed.sha256.tolist()


def test_the_inventory_keeps_what_is_known_of_a_file_and_takes_new_ones(tmp_path):
    inventory = data_script("inventory")
    (tmp_path / "a.csv").write_text("old")
    (tmp_path / "tool.py").write_text("")
    inventory.write(tmp_path)
    table = inventory.listed(tmp_path)
    assert table.file.tolist() == ["a.csv"] and table.licence.tolist() == ["MIT"]
    table.assign(origin="someone", licence="BSD").to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "a.csv").write_text("new")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.csv").write_text("")
    inventory.write(tmp_path)
    table = inventory.listed(tmp_path)
    assert table.file.tolist() == ["a.csv", "b/c.csv"]
    assert table.licence.tolist() == ["BSD", "MIT"]
    assert table.sha256[0] == hashlib.sha256(b"new").hexdigest()
    assert not list(tmp_path.glob(".part*"))


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch):
    home = tmp_path / "data" / "model" / "without"
    shutil.copytree(load.HOME / "without", home)
    shutil.copy(load.DATA / "manifest.csv", tmp_path / "data")
    content = bytearray((home / "model.safetensors.packed").read_bytes())
    content[5_000_000] ^= 1
    (home / "model.safetensors.packed").write_bytes(content)
    monkeypatch.setattr(load, "DATA", tmp_path / "data")
    monkeypatch.setattr(load, "HOME", tmp_path / "data" / "model")
    with pytest.raises(
        ValueError,
        match=r"model/without/model.safetensors.packed: has SHA-256 .* must be .*damaged",
    ) as error:
        load.open("without")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "nothing"])
def test_an_unknown_path_is_refused(name):
    with pytest.raises(FileNotFoundError, match=re.escape(f"model = {name!r}: must be one of")):
        load.open(name)


def test_a_broken_folder_is_one_line(tmp_path):
    load.config().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="cannot be opened") as error:
        load.open(str(tmp_path))
    assert "\n" not in str(error.value)


def test_round_trip_keeps_tied_weights_once(tiny_model, tmp_path):
    load.save(tiny_model, tmp_path / "m")
    load.tokenizer().save(str(tmp_path / "m/tokenizer.json"))
    again, _ = load.open(str(tmp_path / "m"))
    for name, tensor in tiny_model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor.to(torch.bfloat16).float())
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m"]


def test_a_chapter_s_models_by_name():
    assert load.arms("embedded") == {"without": "without", "with": "with"}
    assert load.arms("owner/name") == {"model": "owner/name"}


def test_checkpoints_of_another_home_are_its_own(tiny_model, tmp_path):
    load.save(tiny_model, tmp_path / "with")
    load.tokenizer().save(str(tmp_path / "tokenizer.json"))
    model, _ = load.embedded("with", home=tmp_path)
    assert model.config.hidden_size == 32 and model.dtype == torch.float32
    with pytest.raises(ValueError, match="arm = 'best': must be one of without, with"):
        load.embedded("best", home=tmp_path)


def test_the_model_whose_cost_is_timed(tiny_model, monkeypatch):
    opened = {"a": (tiny_model, load.tokenizer())}
    assert load.timed("model", opened, torch.device("cpu"))[0] is tiny_model and opened
    sizes = dict(num_hidden_layers=2, num_experts=4, hidden_size=32, num_attention_heads=2)
    small = dict(sizes, num_key_value_heads=2, intermediate_size=8, vocab_size=50)
    monkeypatch.setitem(load.SHAPES, "small", small)
    model, words = load.timed("small", opened, torch.device("cpu"))
    assert not opened and words == "random weights of the shape of small, for cost only"
    assert model.config.num_experts == 4 and model.dtype == torch.bfloat16


def test_device_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            load.device("cuda")
    assert load.device("cpu").type == "cpu"


def test_published_tables_have_their_sources():
    for name in ("rates", "fabrics"):
        assert pd.read_csv(load.DATA / f"published/{name}.csv").source.str.len().min() > 20


def folder(tmp_path, **changes):
    """A local model folder of the declared kind, with what a config may say besides."""
    settings = load.config(
        hidden_size=32,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    settings.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def refused(error, message):
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)


def test_a_model_with_its_own_code_is_refused_unless_asked_for_by_name(tmp_path):
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    name = folder(
        tmp_path,
        model_type="own",
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    )
    with pytest.raises(OSError) as error:
        load.open(name)
    refused(
        error,
        "brings its own Python code, which runs only if the parameter remote_code names this model",
    )
    with pytest.raises(OSError) as error:
        load.open(name, code="another/model")
    refused(error, "brings its own Python code")


def test_quantisation_is_refused_or_undone(tmp_path):
    name = folder(
        tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    )
    with pytest.raises(ValueError) as error:
        load.open(name)
    refused(error, "quantised by bitsandbytes, which leaves fused experts at 16 bits")
    settings = load.config(quantization_config={"quant_method": "mxfp4"})
    assert filling.quantisation("x", settings)["quantization_config"].dequantize is True


def test_memory_is_weighed_before_anything_is_loaded(tmp_path, monkeypatch):
    name = folder(tmp_path, hidden_size=4096, num_hidden_layers=2)
    need = spreading.needed(transformers.AutoConfig.from_pretrained(name), torch.float32)
    model = load.config(
        hidden_size=4096,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    assert need == 4 * sum(
        p.numel() for p in transformers.AutoModelForCausalLM.from_config(model).parameters()
    )
    monkeypatch.setattr(spreading, "available", lambda device: need // 2 + need // 8)
    with pytest.raises(MemoryError) as error:
        load.open(name)
    refused(
        error,
        rf"needs {need / 1e9:.1f} GB in float32, .* GB are available: dtype = 'bfloat16' would fit",
    )
    monkeypatch.setattr(spreading, "available", lambda device: need // 4)
    with pytest.raises(
        MemoryError, match="a model of at most 0.1 billion parameters would fit in bfloat16"
    ):
        load.open(name)


def test_a_local_model_is_opened_in_the_number_type_asked_for(tiny_model, tmp_path):
    load.save(tiny_model, tmp_path)
    load.tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert load.open(str(tmp_path))[0].dtype == torch.float32  # on a CPU
    model, _ = load.open(str(tmp_path), dtype="bfloat16", revision="v1")
    assert model.dtype == torch.bfloat16 and model.config.revision == "v1"
    with pytest.raises(ValueError, match="dtype = 'int3': must be one of auto, float32"):
        load.open(str(tmp_path), dtype="int3")


def changed(tiny_model, folder, change, **says):
    """A folder of the tiny model whose weights and configuration were changed."""
    load.save(tiny_model, folder)
    held = load_file(folder / "model.safetensors")
    file = {name: part.contiguous() for name, part in change(dict(held)).items()}
    save_file(file, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | says
    (folder / "config.json").write_text(json.dumps(config))
    load.tokenizer().save(str(folder / "tokenizer.json"))
    return str(folder)


ROUTER = "model.layers.0.mlp.gate.weight"
FAULTS = {
    "a renamed router": (
        lambda held: {k.replace("mlp.gate", "mlp.router"): v for k, v in held.items()},
        rf"missing: {ROUTER} and 2 more; not of this model: .*0.mlp.router.weight and 2 more",
    ),
    "no last layer": (
        lambda held: {k: v for k, v in held.items() if "layers.2." not in k},
        r"weights missing: model.layers.2.\S+ and \d+ more: must be",
    ),
    "an expert less": (
        lambda held: {k: v for k, v in held.items() if ".experts.5." not in k},
        r"of another shape: model.layers.0.mlp.experts.down_proj and 5 more: must be",
    ),
    "a router of another size": (
        lambda held: held | {ROUTER: torch.ones(9, 32)},
        rf"weights of another shape: {ROUTER}: must be",
    ),
    "a prefix": (
        lambda held: {f"module.{k}": v for k, v in held.items()},
        r"missing: .* and \d+ more; not of this model: module.model.\S+ and \d+ more",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fill_the_model_are_named(tiny_model, tmp_path, fault):
    change, message = FAULTS[fault]
    with pytest.raises(ValueError) as error:
        load.open(changed(tiny_model, tmp_path, change))
    refused(error, message)


def test_what_a_folder_holds_besides_its_weights_is_not_passed_over(tiny_model, tmp_path):
    def whole(held):
        return held | {ROUTER: held[ROUTER].mul(50).to(torch.int8)}

    name = changed(tiny_model, tmp_path / "i8", whole)
    with pytest.raises(ValueError) as error:
        load.open(name)
    refused(error, rf"weights of type I8: {ROUTER}: must be floating numbers, or config.json name")
    name = changed(tiny_model, tmp_path / "lora", lambda held: held)
    (tmp_path / "lora/adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError) as error:
        load.open(name)
    refused(error, "has an adapter, which is not applied: must be merged into the weights first")
    name = changed(tiny_model, tmp_path / "g", lambda held: held, n_group=4, topk_group=5)
    with pytest.raises(ValueError) as error:
        load.open(name)
    refused(error, "topk_group = 5: must be from 1 to 4, the groups")


def test_scales_that_an_unknown_quantisation_would_drop_are_named(tiny_model, tmp_path):
    def scaled(held):
        return held | {f"{k}_scale_inv": torch.ones(1) for k in held if "down_proj" in k}

    name = changed(tiny_model, tmp_path, scaled, quantization_config={"quant_method": "own"})
    with pytest.raises(ValueError) as error:
        load.open(name)
    refused(error, r"weights not of this model: \S+weight_scale_inv and 23 more: must be")


def words(**says):
    """A tokenizer of whole words, saved as some are: padding and cutting what it reads."""
    made = Tokenizer(models.WordLevel({"[U]": 0, "a": 1, "b": 2, "<s>": 3, "</s>": 4}, "[U]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>", "</s>", corpus.END_OF_TEXT])
    made.enable_padding(length=9)
    made.enable_truncation(3)
    made.post_processor = processors.TemplateProcessing(**says) if says else None
    return made


@pytest.mark.parametrize(
    ("rule", "config", "start"),
    [
        ({}, None, (5,)),
        ({}, {"bos_token": "<s>"}, (3,)),
        ({}, {"bos_token": {"content": "<s>"}, "add_bos_token": True}, (3,)),
        ({}, {"bos_token": None}, ()),
        ({}, {"bos_token": "<s>", "add_bos_token": False}, ()),
        (dict(single="$A </s>", special_tokens=[("</s>", 4)]), {"bos_token": "<s>"}, (3,)),
        (dict(single="<s> $A </s>", special_tokens=[("<s>", 3), ("</s>", 4)]), None, (3,)),
        (dict(single="$A </s>", special_tokens=[("</s>", 4)]), None, ()),
    ],
)  # fmt: skip
def test_a_text_begins_as_its_tokenizer_says_and_is_read_whole(tmp_path, rule, config, start):
    words(**rule).save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    texts = [corpus.Document("x", "d", "c", "a b a b a b"), corpus.Document("y", "d", "c", "a")]
    long, short = corpus.encode(texts, vocabulary.local(tmp_path))
    assert long.token_ids == (*start, 1, 2, 1, 2, 1, 2) and short.token_ids == (*start, 1)
    assert long.bytes == 11
