"""The page about one's own model: every command of it works at toy size."""

import json
import re
import shlex

import pytest
from conftest import ROOT, command
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from lib.model import corpus, load

PAGE = (ROOT / "book/your-model.md").read_text()
COMMANDS = [
    line.removeprefix("python -m lib ")
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python -m lib ")
]
TOY = ["batches=20", "null_draws=20", "locality_draws=20", "cost_repeats=5", "cost_tokens=32"]
TOY += ["seeds=20", "num_tokens=256", "step_seeds=8", "exact_up_to=8", "placement_tokens=32"]
TOY += ["device_tokens=[4, 64]", "step_levels=[0.0, 0.3]", "scale_devices=[8, 16]", "scale_exact=8"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder with a tiny model, and a file of own text."""
    home = tmp_path_factory.mktemp("mine")
    sizes = dict(hidden_size=32, moe_intermediate_size=16, intermediate_size=32, head_dim=8)
    experts = dict(num_experts=8, num_experts_per_tok=2, decoder_sparse_step=1)
    more = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024)
    settings = Qwen3MoeConfig(vocab_size=8192, num_hidden_layers=2, **sizes, **experts, **more)
    Qwen3MoeForCausalLM(settings).save_pretrained(home / "model")
    load.tokenizer().save(str(home / "model/tokenizer.json"))
    texts = [document.text[:1500] for document in corpus.sample(3)]
    lines = (json.dumps({"text": text}) + "\n" for text in texts)
    (home / "text.jsonl").write_text("".join(lines))
    return home


def called(line, mine):
    words = [{"PATH": str(mine / "model")}.get(word, word) for word in shlex.split(line)]
    words = [word.replace("=PATH", f"={mine}/model") for word in words]
    return [
        str(mine / "text.jsonl") if word == "FILE" else word.replace("=FILE", f"={mine}/text.jsonl")
        for word in words
    ]


def test_the_page_has_these_commands():
    assert [line.split()[0] for line in COMMANDS] == ["run", "run", "run", "advise", "affected"]
    assert "never executed" in PAGE  # of the one that needs a hub


@pytest.mark.parametrize("line", COMMANDS[3:])
def test_one_answer(line, mine, tmp_path):
    done = command(*called(line, mine), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_one_chapter_about_it_and_its_routes_go_on(mine):
    """The page's command, and with it the network, which takes that profile's routes."""
    name = "tests-your-model"
    folder = ROOT / "_build/runs" / name
    try:
        words = called(COMMANDS[2], mine)
        words[words.index("mine")] = name
        given = (part for item in TOY for part in ("-p", item))
        done = command(*words, "--only", "04", *given)
        assert done.returncode == 0, done.stderr[-2000:]
        shown = command("show", name).stdout
        assert "gini_model" in shown and "gini_without" not in shown
        html = folder / "book/_build/html"
        page = (html / "notebooks/01_profile.html").read_text()
        assert "The router of this model" in page and "not available" not in page.split("<table")[0]
        intro = (html / "book/intro.html").read_text()
        assert "not available" not in intro  # sentences about the published pair are left out
        assert "paper-elsewhere" in intro  # chapters that were not run are told in grey
        network = json.loads((folder / "04_network/values.json").read_text())
        assert network["values"]["slowdown_trace_model"]["value"] >= 1
        read = {name.split("/")[-1] for name in network["provenance"]["files"]}
        assert {name for name in read if name.startswith("trace")} == {"trace_model.npz"}
    finally:
        command("clean", name)
