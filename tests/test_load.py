"""Opening models: what is verified, what is refused, in one line each."""

import re
import shutil

import pandas as pd
import pytest
import torch

from lib.model import load


def test_the_shipped_checkpoints_are_the_declared_model():
    for arm in load.ARMS:
        model, tokenizer = load.embedded(arm)
        assert model.num_parameters() < 8e6 and tokenizer.get_vocab_size() == load.VOCABULARY
        assert (model.config.num_hidden_layers, model.config.num_experts, model.config.num_experts_per_tok) == (
            6,
            16,
            2,
        )


def test_every_file_of_data_is_listed_with_its_hash():
    listed = load.listed()
    files = {f.relative_to(load.DATA).as_posix() for f in load.DATA.rglob("*") if f.is_file()} - {"manifest.csv"}
    assert set(listed.file) == files and listed.notna().all().all()
    assert [load.sha256(load.DATA / name) for name in listed.file] == listed.sha256.tolist()


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch):
    home = tmp_path / "data" / "model" / "without"
    shutil.copytree(load.HOME / "without", home)
    shutil.copy(load.DATA / "manifest.csv", tmp_path / "data")
    content = bytearray((home / "model.safetensors").read_bytes())
    content[5_000_000] ^= 1
    (home / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(load, "DATA", tmp_path / "data")
    monkeypatch.setattr(load, "HOME", tmp_path / "data" / "model")
    with pytest.raises(ValueError, match=r"model/without/model.safetensors: has SHA-256 .* must be .*damaged") as error:
        load.open("without")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere", "nothing"])
def test_an_unknown_path_is_refused(name):
    with pytest.raises(FileNotFoundError, match=re.escape(f"model = {name!r}: must be one of")):
        load.open(name)


def test_a_broken_folder_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "olmoe"}')
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="cannot be opened") as error:
        load.open(str(tmp_path))
    assert "\n" not in str(error.value)


def test_round_trip_keeps_tied_weights_once(tiny_model, tmp_path):
    load.save(tiny_model, tmp_path / "m")
    shutil.copy(load.HOME / "tokenizer.json", tmp_path / "m")
    again, _ = load.open(str(tmp_path / "m"))
    for name, tensor in tiny_model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor.to(torch.bfloat16).float())
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m"]


def test_device_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            load.device("cuda")
    assert load.device("cpu").type == "cpu"


def test_published_tables_have_their_sources():
    for name in ("rates", "fabrics"):
        assert pd.read_csv(load.DATA / f"published/{name}.csv").source.str.len().min() > 20
