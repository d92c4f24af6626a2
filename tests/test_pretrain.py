"""Training the shipped checkpoints, at a size that takes seconds: the whole path, from text to
files.
"""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from lib.balance import evaluate, pretrain
from lib.model import corpus, load


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    rows = corpus.manifest().query("bytes < 1500 and split != 'copy'")
    corpus.write_pack(rows.groupby(["domain", "split"]).head(5), folder / "pack.xz")
    parameters = SimpleNamespace(
        arms=["without", "with"],
        epochs=1.0,
        steps=3,
        time_budget_s=60.0,
        batch_sequences=4,
        sequence_tokens=32,
        learning_rate=2e-3,
        balance_coefficient=0.01,
        corpus_source=str(folder / "pack.xz"),
        allow_partial=True,
        device="cpu",
        seed=0,
    )
    pretrain.run(folder / "model", parameters)
    return folder / "model", parameters


def test_everything_a_reader_needs_is_written(trained):
    folder, _ = trained
    for arm in load.ARMS:
        history = pd.read_csv(folder / f"training_{arm}.csv.xz")
        assert history.step.iloc[-1] == 3 and history.held_out.notna().iloc[-1]
        facts = json.loads((folder / f"provenance_{arm}.json").read_text())
        assert facts["parameters"]["seed"] == 0 and "corpus_source" not in facts["parameters"]
        table = pd.read_csv(folder / f"held_out_{arm}.csv.xz")
        assert set(table.cut) == set(pretrain.CUTS) and (table.tokens > 0).all()
    bars = pd.read_csv(folder / "bars.csv", index_col="domain")
    assert len(bars) == 5 and (bars[["5-gram", "xz -9"]] > 0).all(axis=None)


def test_the_recorded_evaluation_is_that_of_the_saved_file(trained):
    folder, p = trained
    model, _ = load.open(str(folder / "with"))
    documents = corpus.held_out(
        None, 512, load.tokenizer(), source=p.corpus_source, allow_partial=True
    )
    again = evaluate.per_document(model, documents)
    recorded = pd.read_csv(folder / "held_out_with.csv.xz").query("cut == 512")
    assert again.nats.sum() == pytest.approx(recorded.nats.sum(), rel=1e-5)


def test_both_arms_start_alike_and_part(trained):
    folder, _ = trained
    first = [pd.read_csv(folder / f"training_{arm}.csv.xz") for arm in load.ARMS]
    assert first[0].balance.iloc[0] == 0 and first[1].balance.iloc[0] > 1


def test_the_time_budget_shortens_a_run(trained):
    import numpy as np
    import torch

    _, p = trained
    stream = np.arange(4000, dtype=np.uint16) % 8000
    plan = pretrain.train.Plan(steps=0, batch_sequences=2, sequence_tokens=16, learning_rate=1e-3)
    quick = SimpleNamespace(**vars(p) | {"time_budget_s": 1e-6})
    assert pretrain.affordable_steps(stream, plan, torch.device("cpu"), "float32", quick) == 1
