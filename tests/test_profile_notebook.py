"""The profile notebook by papermill alone: what it publishes follows from the routes it saves; bad
values.
"""

import json
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import PAPERMILL, ROOT

from lib import stats
from lib.model import load
from lib.routing import trace

SMALL = {
    "documents_per_domain": 2,
    "tokens_per_document": 64,
    "batch_tokens": 128,
    "batches": 20,
    "null_draws": 20,
    "locality_draws": 20,
    "shuffles": 1,
    "cost_tokens": 64,
    "cost_repeats": 5,
}


def profile(folder, **changes):
    """Papermill by hand, from any folder."""
    given = [part for name, value in (SMALL | changes).items() for part in ("-p", name, str(value))]
    source = ROOT / "notebooks/01_profile.ipynb"
    command = [*PAPERMILL, str(source), "out.ipynb", "-k", "python3", *given]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """A random model of another shape, with the embedded tokenizer (for mechanics only, never for a
    result).
    """
    import torch
    from transformers import OlmoeForCausalLM

    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    sizes = dict(
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=3,
        num_experts=8,
        num_experts_per_tok=3,
    )
    OlmoeForCausalLM(load.config(**sizes)).save_pretrained(folder)
    load.tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module", params=["embedded", "own"])
def made(request, tmp_path_factory):
    """The folder of a small run, and the arms that it must hold."""
    if request.param == "embedded":
        return request.getfixturevalue("tiny_run") / "01_profile", ("without", "with")
    folder = tmp_path_factory.mktemp("profile")
    done = profile(folder, model=request.getfixturevalue("own_model"))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "01_profile", ("model",)


def test_published_values_follow_from_the_saved_routes(made):
    """Recomputed from the routes by the definition over all pairs, in plain NumPy."""
    folder, arms = made
    values = {
        name: v["value"]
        for name, v in json.loads((folder / "values.json").read_text())["values"].items()
    }
    assert sorted(path.name for path in folder.glob("*.npz")) == sorted(
        f"trace_{arm}.npz" for arm in arms
    )
    for arm in arms:
        routes = trace.load(folder / f"trace_{arm}.npz")
        load_ = np.array(
            [[(row == e).sum() for e in range(routes.experts)] for row in routes.expert_index]
        )
        gini = np.abs(load_[:, :, None] - load_[:, None]).mean((1, 2)) / (2 * load_.mean(1))
        assert values[f"gini_{arm}"] == pytest.approx(gini.mean())
        assert values[f"gini_most_{arm}"] == pytest.approx(gini.max())
        assert values[f"maxvio_{arm}"] == pytest.approx((load_.max(1) / load_.mean(1) - 1).mean())
        assert values[f"dead_{arm}"] == (load_ == 0).sum()
        assert load_.sum(1).tolist() == [values["tokens"] * routes.expert_index.shape[2]] * len(
            load_
        )


def test_quarters_and_few_clusters(made):
    folder, arms = made
    table = pd.read_csv(folder / "figures/domains.csv")
    assert len(table) == 5 * len(arms) * len(
        pd.read_csv(folder / "figures/layers.csv").layer.unique()
    )
    assert (table.clusters < 8).all() and table.cv2_low.isna().all() and table.cv2.notna().all()
    places = pd.read_csv(folder / "figures/places.csv", index_col="arm")
    routes = trace.load(folder / f"trace_{arms[0]}.npz")
    first = np.concatenate(
        [
            np.flatnonzero(routes.document == d)[: -(-(routes.document == d).sum() // 4)]
            for d in np.unique(routes.document)
        ]
    )
    load_ = trace.counts(
        routes.expert_index[:, first].reshape(len(routes.expert_index), -1), routes.experts
    )
    assert places.gini_opening[arms[0]] == pytest.approx(stats.gini(load_).mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"documents_per_domain": -2},
            "01_profile: documents_per_domain = -2: must be a whole number from 2 to 10000",
        ),
        (
            {"model": "no/such/model"},
            "01_profile: model = 'no/such/model': must be 'embedded', 'without', 'with', a path",
        ),
    ],
)
def test_a_bad_value_is_one_line_and_writes_nothing(tmp_path, changes, message):
    done = profile(tmp_path, **changes)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "01_profile").exists()
