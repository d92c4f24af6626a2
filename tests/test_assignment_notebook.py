"""The notebook on assigning otherwise by papermill alone, for a model and a text of the user's own;
bad values.
"""

import json
import random
import subprocess

import pytest
import torch
from conftest import PAPERMILL, ROOT
from transformers import MixtralConfig, MixtralForCausalLM

from lib.model import load, rows
from lib.paper import rules
from lib.routing import bind, study

SMALL = {
    "documents": 12,
    "tokens_per_document": 32,
    "fit_documents": 12,
    "fit_steps": 20,
    "group_sizes": [16],
    "prefill_tokens": 32,
}


def assigned(folder, **changes):
    """Papermill by hand, from any folder."""
    given = [
        part for name, value in (SMALL | changes).items() for part in ("-y", f"{name}: {value}")
    ]
    source = ROOT / "notebooks/02_assignment.ipynb"
    command = [*PAPERMILL, str(source), "out.ipynb", "-k", "python3", *given]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a random model of another family, one layer of 4 experts top-1 (for mechanics
    only, never for a result), and a JSONL file of texts.
    """
    folder = tmp_path_factory.mktemp("own") / "a model, of mine"
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=load.VOCABULARY,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=1,
        max_position_embeddings=64,
    )
    MixtralForCausalLM(MixtralConfig(**sizes)).save_pretrained(folder)
    load.tokenizer().save(str(folder / "tokenizer.json"))
    words = ["router", "expert", "token", "layer", "balance", "load", "loss", "wire"]
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=90)) for _ in range(40)]
    lines = [json.dumps({"text": text, "cluster": f"c{i}"}) for i, text in enumerate(texts)]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("assignment")
    done = assigned(folder, model=json.dumps(str(own)), text=json.dumps(str(own / "texts.jsonl")))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_model_of_ones_own_gets_the_whole_chapter(made, own):
    """Every value that prose uses is there but for those of another arm; no name holds a path."""
    record = json.loads((made / "02_assignment/values.json").read_text())
    values = record["values"]
    assert values["documents"]["value"] == 12 and values["k"]["value"] == 1
    assert values["delta_reroute"]["value"] is not None and values["leak_least"]["value"] > 0
    assert all(name.isidentifier() for name in (*values, *record["claims"]))
    assert not any(name.endswith(("_with", "_without")) for name in (*values, *record["claims"]))
    assert "without balance loss" not in json.dumps([record["claims"], record["figures"]])
    assert {"H2a_native", "H2a_mass", "H2a_rank", "dearer_mass_over_native"} == set(
        record["claims"]
    )
    documents = study.read(rows.read(made / "02_assignment/documents.packed"))
    assert documents.name.str.startswith("texts.jsonl:").all() and documents.name.nunique() == 12


def test_the_fitted_bias_is_where_it_is_said(made, own):
    values = json.loads((made / "02_assignment/values.json").read_text())["values"]
    net, _ = load.open(str(own))
    fits = bind.kept_bias(made / "02_assignment" / values["bias_file"]["value"], net)
    assert len(fits.bias) == 1 and fits.bias[0].shape == (4,) and fits.bias[0].abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": -2}, "02_assignment: documents = -2: must be a whole number from 2 to"),
        (
            {"arms": ["wihtout"]},
            "arms = ['wihtout']: must be a list; each item another one that must",
        ),
        (
            {"policies": ["mas"]},
            "policies = ['mas']: must be a list; each item another one that must",
        ),
        ({"strategy_names": ["reroot"]}, "'reroot': must be one of"),
    ],
)
def test_a_bad_value_is_refused_before_any_chapter_runs(changes, message):
    (line,) = rules.refused("02_assignment", changes)
    assert message in line


def test_a_document_beyond_the_context_is_one_line_and_writes_nothing(tmp_path):
    done = assigned(tmp_path, tokens_per_document=2048, documents=2)
    message = "tokens_per_document = 2048: must be at most 1024, the model's context"
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "02_assignment").exists()
