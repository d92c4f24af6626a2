"""The adapter against every mixture-of-experts family of the installed transformers."""

import computed
import families
import pandas as pd
import pytest
import torch

from lib.routing import adapter

FOUND = families.families()


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    """The committed table of this version of transformers."""
    if not families.TABLE.exists():
        pytest.skip(f"{families.TABLE.name} is not committed: python tests/families.py writes it")
    return pd.read_csv(families.TABLE, keep_default_na=False).set_index("model")


@pytest.mark.parametrize("name", FOUND)
def test_family(name, published):
    row = families.row(name, FOUND[name])
    assert row["verdict"] != "fails", row["reason"]
    assert {key: str(value) for key, value in row.items() if key != "model"} == dict(
        published.loc[name].astype(str)
    )


def test_most_families_pass_and_each_other_has_its_reason(published):
    assert set(published.index) == set(FOUND)
    passed = published.verdict == "record and assign"
    assert (
        passed.sum() >= 45
        and (published.reason[~passed] != "").all()
        and (published.reason[passed] == "").all()
    )


def test_the_check_of_counts_can_fail(monkeypatch):
    model = families.build(FOUND["MixtralForCausalLM"])
    count = adapter.Record.count
    monkeypatch.setattr(
        adapter.Record, "count", lambda self, i, index, used: count(self, i, index * 0, used)
    )
    with pytest.raises(AssertionError, match="load is not the count"):
        computed.check_counts(model, adapter.layers(model))


def test_the_check_of_assignments_can_fail(monkeypatch):
    model = families.build(FOUND["MixtralForCausalLM"])
    alone = computed.expert_outputs
    monkeypatch.setattr(computed, "expert_outputs", lambda *args: alone(*args).flip(0))
    with pytest.raises(AssertionError, match="permuted, layer 0: not Σ w E"), torch.no_grad():
        computed.check_assign(model, adapter.layers(model))
