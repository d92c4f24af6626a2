"""The tiny models of other families, and how the profile tells of routers at the ends of what there
is.
"""

import json

import pytest
import tiny_models
import torch
from test_profile_notebook import profile

from lib.model import corpus, load, texts
from lib.paper import columns
from lib.routing import adapter, observe


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    losses = tiny_models.make(folder, 0.0)
    assert list(losses) == list(tiny_models.FAMILIES) and all(map(all, losses.values()))
    return folder


@pytest.mark.parametrize(
    ("family", "layers", "k", "experts"),
    [("deepseek_v3", 2, 4, 16), ("mixtral", 3, 1, 8), ("qwen3_moe", 3, 3, 12)],
)
def test_they_open_as_their_owner_s_and_are_routed(home, family, layers, k, experts):
    model, tokenizer = load.open(str(home / family))
    documents = corpus.encode(texts.read(str(home / "text"), 4), tokenizer, 32)
    assert all(document.token_ids[0] == 0 for document in documents)  # begun by its own token
    routes = observe.trace(model, documents)
    assert (len(routes.expert_index), routes.expert_index.shape[2]) == (layers, k)
    assert routes.experts == experts and set(routes.domains) == {*tiny_models.SUBFOLDERS}
    assert len(adapter.layers(model)) == layers
    lines = texts.read(str(home / "text.jsonl"), 1000)
    assert {one.text for one in lines} == {one.text for one in texts.read(str(home / "text"), 1000)}


def extreme(kind):
    """A model whose router sends every token to one expert; takes every expert; has one layer."""
    if kind == "collapsed":
        model = tiny_models.build("mixtral")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("gate.weight") and len(weight) == 8:
                    weight.zero_()  # equal scores: the first expert
        return model
    if kind == "every":
        return tiny_models.build("mixtral", num_experts_per_tok=8)
    return tiny_models.build("qwen3_moe", num_hidden_layers=1, num_experts_per_tok=1)


@pytest.mark.parametrize("kind", ["collapsed", "every", "one_layer"])
def test_an_extreme_router_is_profiled_and_told_without_gaps(home, tmp_path, kind):
    tiny_models.save(extreme(kind), tiny_models.tokenizer(), tmp_path / "model")
    done = profile(tmp_path, model=tmp_path / "model", text=home / "text")
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads((tmp_path / "01_profile/values.json").read_text())
    values = {name: known["value"] for name, known in made["values"].items()}
    assert values["effective_model"] == pytest.approx(
        {"collapsed": 1, "every": 8}.get(kind, 11), 0.1
    )
    texts_told = [known["alt"] for known in made["figures"].values()]
    texts_told += [known["text"] for known in made["values"].values() if known["value"] is not None]
    assert not [text for text in texts_told if "nan" in text or columns.show(None, "") in text]
    assert ("none." in made["figures"]["coactivation"]["alt"]) == (kind != "every")
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    streams = [out for cell in cells for out in cell.get("outputs", []) if "text" in out]
    assert not [out for out in streams if "Warning" in "".join(out["text"])]
