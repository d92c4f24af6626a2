"""Tables of a trace: against direct computation, hand-worked cases, and their nulls' rates."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import stats
from lib.routing import observe, profile, trace


def made(index, document, domain=None, cluster=None, experts=4, token=None):
    """A trace from [layers, tokens, k] and the document of each token."""
    document = np.asarray(document)
    n = document.max() + 1
    domain = np.zeros(n, int) if domain is None else np.asarray(domain)
    starts = np.searchsorted(document, np.arange(n))
    return trace.Trace(
        expert_index=np.asarray(index, dtype=np.uint8),
        document=document,
        position=np.arange(len(document)) - starts[document],
        domain=domain[document],
        token=np.zeros(len(document), int) if token is None else np.asarray(token),
        cluster=np.arange(n) if cluster is None else np.asarray(cluster),
        domains=np.array([f"d{i}" for i in range(domain.max() + 1)]),
        clusters=np.arange(n).astype(str),
        experts=experts,
        model="made",
    )


@pytest.fixture
def random():
    rng = np.random.default_rng(0)
    index = rng.random((3, 400, 4)).argsort(2)[:, :, :2]
    return made(index, np.repeat(np.arange(20), 20), domain=np.arange(20) % 2)


def test_layers_are_those_of_the_metrics_and_never_added_up(random):
    table = profile.layers(random, 50, np.random.default_rng(0))
    assert table.layer.tolist() == [1, 2, 3]
    for name, metric in profile.METRICS.items():
        np.testing.assert_allclose(table[name], [metric(load) for load in random.load])
    assert (table.cv2_low <= table.cv2).all() and (table.null_mean < table.null).all()


def test_a_serving_engine_s_mistake_cannot_happen():
    """One recorder averages over all layers before it divides max by mean; opposite layers then
    look balanced.
    """
    load = np.array([[9, 1], [1, 9]])
    assert (load.sum(0) == 10).all()  # what it reports as perfect balance
    assert stats.max_violation(load).tolist() == pytest.approx([0.8, 0.8])
    with pytest.raises(ValueError, match="shape"):
        trace.Trace(**{**vars(made([[[0, 1]]], [0])), "expert_index": load})


def test_domains_and_documents_are_parts_of_the_whole(random):
    domains = profile.domains(random, 20, np.random.default_rng(0))
    assert len(domains) == 6 and domains.documents.eq(10).all()
    assert {name: load.sum() for name, load in random.domain_load().items()} == {
        "d0": 1200,
        "d1": 1200,
    }
    documents = profile.documents(random)
    assert len(documents) == 60 and documents.groupby("layer").tokens.sum().eq(400).all()


def test_information_share_by_hand():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 2000)
    assert stats.information_share(y, y, 3, rng) == pytest.approx(1, abs=0.01)
    assert stats.information_share(rng.integers(0, 50, 4000), y, 20, rng) == pytest.approx(
        0, abs=0.005
    )  # bias is taken off
    half = np.where(np.arange(4000) < 2000, y, 2)  # known in one half only
    assert stats.information_share(half, y, 3, rng) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="not constant"):
        stats.information_share(y, np.zeros(4000, int), 1, rng)


def test_structure_finds_what_was_put_in():
    rng = np.random.default_rng(1)
    token, document = rng.integers(0, 4, 4000), np.repeat(np.arange(40), 100)
    other = rng.integers(0, 4, 4000)
    t = made(
        np.stack([[token, (token + 1) % 4], [other, (token + other) % 4]]).transpose(0, 2, 1),
        document,
        token=token,
    )
    share = profile.structure(t, 5, rng).set_index(["layer", "source"]).share
    assert share[1, "token"] == pytest.approx(1, abs=0.01) and share[1, "second"] == pytest.approx(
        1, abs=0.01
    )
    assert (
        abs(share[2, "token"]) < 0.01
        and abs(share[2, "before"]) < 0.01
        and abs(share[1, "position"]) < 0.01
    )


def test_coactivation_by_hand():
    index = [[[0, 1], [0, 1], [2, 3], [2, 3]]]
    ratio = profile.coactivation(made(index, [0, 0, 1, 1]), 0)
    assert np.isnan(np.diag(ratio)).all()
    assert (
        ratio[0, 1] == pytest.approx(3) and ratio[0, 2] == 0
    )  # 4 of 12 ordered pairs occur, all equally expected


def test_locality_is_one_where_domains_cancel_and_zero_where_they_agree():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 30)
    favourite = np.eye(2)[group]
    cancel = rng.poisson(50 * (0.2 + favourite))[:, None, :]
    agree = rng.poisson(50 * (0.2 + np.eye(2)[np.zeros(60, int)]))[:, None, :]
    assert profile.locality(cancel, group) == pytest.approx(1, abs=0.03)
    assert profile.locality(agree, group) == pytest.approx(0, abs=0.03)
    found = profile.locality_test(cancel, group, np.arange(60) // 3, 199, rng)
    assert found["p"] <= 0.01 and found["interval"][0] > 0.5
    assert profile.locality_test(agree, group, np.arange(60) // 3, 199, rng)["p"] > 0.01


def test_the_locality_test_holds_its_rate():
    """Clusters with favourites of their own, dealt to two groups at random: no more than the
    nominal rate is rejected.
    """
    rng = np.random.default_rng(2)
    p = []
    for _ in range(120):
        cluster = np.repeat(np.arange(12), 3)
        counts = rng.poisson(20 * rng.dirichlet(np.ones(4), 12)[cluster])[:, None, :]
        p.append(
            profile.locality_test(
                counts, rng.permutation(np.repeat([0, 1], 6))[cluster], cluster, 39, rng
            )["p"]
        )
    assert 0 <= np.mean(np.array(p) <= 0.05) <= 0.12


def test_recorded_counts_are_read_from_every_recorder(tmp_path):
    load = np.arange(1, 13).reshape(3, 4)
    torch.save(
        {"rank": 0, "logical_count": torch.from_numpy(np.stack([load, load]))},
        tmp_path / "sglang.pt",
    )
    np.save(tmp_path / "vllm.npy", load[None])
    chosen = torch.tensor([[[0, 1], [0, 2], [-1, -1]]])
    torch.save({"records": [{"topk_ids_of_layer": chosen}]}, tmp_path / "tokens.pt")
    (tmp_path / "list.json").write_text(str(load.tolist()))
    for name, expected in (
        ("sglang.pt", 2 * load),
        ("vllm.npy", load),
        ("list.json", load),
        ("tokens.pt", [[2, 1, 1]]),
    ):
        found = observe.recorded_counts(tmp_path / name).pivot(
            index="layer", columns="expert", values="count"
        )
        np.testing.assert_array_equal(found, expected)
    assert observe.recorded_counts(tmp_path / "tokens.pt").top_k.iloc[0] == 2
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(
        ValueError, match=r"bad.json: cannot be read as counts: shape \(2,\): must end in"
    ):
        observe.recorded_counts(tmp_path / "bad.json")


def test_metrics_of_recorded_counts_are_those_of_the_library():
    frame = pd.DataFrame(
        [
            dict(model="m", experts=4, top_k=2, domain=d, layer=0, tokens=50, expert=e, count=c)
            for d, row in (("a", (80, 10, 5, 5)), ("b", (10, 80, 5, 5)))
            for e, c in enumerate(row)
        ]
    )
    found = profile.recorded(frame).set_index("domain")
    assert found.gini["a"] == pytest.approx(stats.gini([80, 10, 5, 5]))
    assert found.gini_share["a"] == pytest.approx(found.gini["a"] / 0.5)
    pooled, single = stats.cv([90, 90, 10, 10]) ** 2, stats.cv([80, 10, 5, 5]) ** 2
    assert found.locality["pooled"] == pytest.approx(1 - pooled / single)


def test_published_routers_are_those_of_the_literature():
    """Gini of OLMoE's counts as its authors' tables give them, to three digits."""
    table = (
        profile.published()
        .query("model == 'OLMoE-1B-7B'")
        .pivot(index="domain", columns="layer", values="gini")
    )
    assert table.loc["c4"].round(3).tolist() == [0.137, 0.212, 0.288]
    assert table.loc["github"].round(3).tolist() == [0.291, 0.584, 0.589]
    assert table.loc["pooled"].round(3).tolist() == [0.169, 0.246, 0.269]


def test_recording_s_cost_is_timed_in_pairs(tiny_model):
    times = observe.cost(tiny_model, 64, 6)
    assert times.groupby("way").size().to_dict() == {"plain": 6, "record": 6, "router_logits": 6}
    assert (times.seconds > 0).all()


def test_a_document_beyond_the_context_is_refused(tiny_model):
    long = SimpleNamespace(token_ids=tuple(range(2)) * 700, domain="a", cluster="a", name="x")
    with pytest.raises(
        ValueError, match="a document of 1400 tokens: must be at most 1024, the context"
    ):
        observe.trace(tiny_model, [long])
