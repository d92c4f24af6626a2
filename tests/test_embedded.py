"""What is read back of trained checkpoints, and how a repeated evaluation is held against it."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.balance import embedded
from lib.model.corpus import Document

LN2 = float(np.log(2))


def documents(**nats: float) -> pd.DataFrame:
    """Two documents of two domains of 10 bytes and 4 tokens, half of them guessed; nats of a in
    units of ln 2, so that they are bits.
    """
    rows = [
        dict(name=name, domain=domain, cluster=name, bytes=10, tokens=4, nats=bits * LN2, correct=2)
        for (name, domain), bits in zip((("a", "x"), ("b", "y")), nats.values(), strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def folder(tmp_path):
    """A folder as training writes it: two arms of two steps, one held-out document a domain."""
    bars = {"domain": ["x", "y"], "5-gram": [2.0, 3.0], "xz -9": [4.0, 1.0]}
    pd.DataFrame(bars).assign(training_tokens=500).to_csv(tmp_path / "bars.csv", index=False)
    for arm, bits in (("with", 10.0), ("without", 15.0)):
        history = dict(tokens=[500, 1000], gini=[0.9, 0.1 * len(arm)], tokens_per_s=[1e6, 3e6])
        pd.DataFrame(history).to_csv(tmp_path / f"training_{arm}.csv.xz", index=False)
        (tmp_path / f"provenance_{arm}.json").write_text(json.dumps({"device": f"of {arm}"}))
        whole, first = documents(a=bits, b=2 * bits), documents(a=1.0, b=1.0)
        table = pd.concat([whole.assign(cut=0), first.assign(cut=2)])
        table.to_csv(tmp_path / f"held_out_{arm}.csv.xz", index=False)
    return tmp_path


def test_what_a_folder_holds_by_hand(folder):
    assert len(embedded.files(folder)) == 7
    curves, recorded = embedded.curves(folder), embedded.held_out(folder)
    bars = embedded.bars(folder, recorded)
    assert bars.set_index("domain").loc["y"].to_dict() == pytest.approx(
        dict(
            bits_per_byte_5gram=3.0,
            bits_per_byte_xz=1.0,
            bits_per_byte_with=2.0,
            bits_per_byte_without=3.0,
        )
    )
    rows = embedded.checkpoints(curves, recorded, bars).set_index("arm")
    assert rows.loc["with"].to_dict() == pytest.approx(
        # bits per byte 1 and 2; over the better bar 1/2 and 2/1
        dict(bits_per_byte=1.5, accuracy=0.5, worst_over_bar=2.0, training_gini=0.4)
    )
    assert rows.worst_over_bar["without"] == pytest.approx(3.0)
    assert rows.training_gini["without"] == pytest.approx(0.7)


def test_the_facts_of_training_by_hand(folder):
    facts = embedded.training(folder, embedded.curves(folder))
    assert facts.to_dict() == dict(
        training_tokens_m=0.001,
        unique_tokens_m=0.0005,
        training_rate_m=2.0,
        bits_per_byte_5gram=2.5,
        bits_per_byte_xz=2.5,
    )


def test_what_was_chosen_by_hand(folder, tiny_model):
    size = sum(part.numel() for part in tiny_model.parameters())
    wanted = dict(parameters_m=size / 1e6, epochs=2.0, training_device="of with")
    assert embedded.chosen(folder, tiny_model).to_dict() == wanted


def test_agreement_compares_the_same_documents_at_the_same_length(folder):
    here = documents(a=1.5, b=1.0).assign(arm="with")
    found = embedded.agreement(here, embedded.held_out(folder), 2)
    assert found.documents_here == 2 and found.compared_documents == 2
    assert found.difference_here == pytest.approx(0.5 * LN2 / 8) and not embedded.agreed(found)
    shorter = embedded.agreement(here.assign(tokens=3), embedded.held_out(folder), 2)
    assert shorter.compared_documents == 0 and shorter.difference_here == 0
    other = embedded.agreement(here, embedded.held_out(folder), 9)
    assert other.compared_documents == 0


def test_the_first_document_of_each_domain_is_completed(tiny_model):
    class Words:
        @staticmethod
        def decode(ids):
            return " ".join(map(str, ids))

    texts = [
        Document(name, domain, "c", "", tuple(range(3, 60)))
        for name, domain in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    table = embedded.completions(tiny_model, Words, texts, prompt=48, tokens=3).set_index("domain")
    assert table.document.to_dict() == {"y": "c", "x": "a"}
    assert table.original["x"] == "51 52 53" and len(table.continuation["x"].split()) == 3


def test_an_evaluation_here_is_that_of_each_model(tiny_model):
    texts = [Document("a", "x", "c", "", tuple(range(3, 13)), 9)]
    table = embedded.evaluated({"one": tiny_model, "two": tiny_model}, texts)
    assert table.arm.tolist() == ["one", "two"] and table.tokens.tolist() == [9, 9]
    domains = embedded.domains(table)
    assert domains.arm.tolist() == ["one", "two"] and domains.bytes.tolist() == [9, 9]
    assert domains.nats_per_token.tolist() == pytest.approx((table.nats / 9).tolist())
