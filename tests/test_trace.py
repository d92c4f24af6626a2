"""Traces: round trip, counts, batches, refusals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.routing import adapter, observe, profile, scoring, trace

DOCUMENTS = [
    SimpleNamespace(token_ids=tuple(range(3, 3 + n)), domain=domain, cluster=f"c{n}")
    for n, domain in ((5, "b"), (12, "a"), (9, "b"), (12, "a"))
]


@pytest.fixture
def routes(tiny_model):
    return observe.trace(tiny_model, DOCUMENTS, batch_tokens=24, name="tiny")


def test_every_document_is_routed_as_if_alone(tiny_model, routes):
    assert routes.expert_index.shape == (3, 38, 2)
    lengths = np.bincount(routes.document)
    assert sorted(lengths) == [5, 9, 12, 12]
    for number, length in enumerate(lengths):
        with torch.no_grad(), adapter.record(tiny_model, indices=True) as rec:
            tiny_model(input_ids=torch.arange(3, 3 + length)[None])
        for layer in range(3):
            np.testing.assert_array_equal(
                routes.expert_index[layer][routes.document == number], rec.index(layer)
            )
    domains = [str(routes.domains[i]) for i in routes.document_domain()]
    assert sorted(zip(lengths.tolist(), domains, strict=True)) == [
        (5, "b"),
        (9, "b"),
        (12, "a"),
        (12, "a"),
    ]


def test_a_trace_holds_its_documents_and_no_others(routes):
    assert routes.holds(DOCUMENTS) and not routes.holds(DOCUMENTS[:3])


def test_loads_add_up(routes):
    np.testing.assert_array_equal(routes.load.sum(1), 76)
    for layer in range(3):
        np.testing.assert_array_equal(routes.per_document(layer).sum(0), routes.load[layer])


def test_round_trip(routes, tmp_path):
    routes.save(tmp_path / "trace.npz")
    again = trace.load(tmp_path / "trace.npz")
    np.testing.assert_array_equal(again.expert_index, routes.expert_index)
    assert (
        again.experts == 8
        and again.model == "tiny"
        and [f.name for f in tmp_path.iterdir()] == ["trace.npz"]
    )


def test_refusals(routes, tmp_path):
    with pytest.raises(ValueError, match="from 0 to 3"):
        replace(routes, experts=4)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a trace"):
        trace.load(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="0 documents"):
        observe.trace(None, [])


def named(*rows):
    return [
        SimpleNamespace(name=f"t{i}", token_ids=row, domain="d", cluster="c")
        for i, row in enumerate(rows)
    ]


def test_numbers_that_are_none_are_refused_by_document_and_layer(tiny_model):
    documents = named((3, 4, 5), (3, 7, 5), (3, 4))
    with torch.no_grad():
        tiny_model.model.embed_tokens.weight[7] = float("inf")
    with pytest.raises(ValueError, match="document t1: MoE layer 1: what its experts and router g"):
        observe.trace(tiny_model, documents, batch_tokens=4)
    with pytest.raises(ValueError, match="its logits: must be finite"):  # tied: its row of them too
        observe.trace(tiny_model, [documents[0], documents[2]])


@pytest.mark.parametrize("part", ["lm_head", "model.norm"])
def test_logits_that_are_no_numbers_are_refused_by_document(tiny_model, part):
    with torch.no_grad():
        tiny_model.get_submodule(part).weight.view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="document t1: its logits: must be finite numbers"):
        observe.trace(tiny_model, named((3, 4, 5), (3, 7, 5))[::-1], batch_tokens=4)


def test_numbers_too_large_for_their_type_are_refused(tiny_model):
    with torch.no_grad():
        tiny_model.model.layers[0].mlp.experts.down_proj.fill_(6e4)
        tiny_model.model.layers[0].mlp.experts.gate_up_proj.fill_(1.0)
    documents = named((3, 4, 5))
    observe.trace(tiny_model, documents)
    with pytest.raises(ValueError, match="document t0: MoE layer 2: .* dtype too narrow"):
        observe.trace(tiny_model.half(), documents)


def test_a_single_token_whose_logits_alone_overflow_is_refused(tiny_model):
    """Neither the last token of its row nor a state of the body is broken."""
    model, documents = tiny_model.half(), named((3, 4, 5), (8, 9, 10))
    with torch.no_grad():
        states = model.model(torch.tensor([documents[0].token_ids]))[0][0].float()
        away = states[1] - states[1] @ states[2] / states[2].square().sum() * states[2]
        model.lm_head.weight[6] = away / away.square().sum() * 7e4
        logits = model(torch.tensor([documents[0].token_ids])).logits[0]
    assert states.isfinite().all() and logits.isinf().any(1).tolist()[1:] == [True, False]
    with pytest.raises(ValueError, match="document t0: its logits: must be finite numbers"):
        observe.trace(model, documents)


def test_no_logits_are_computed_where_none_can_overflow(tiny_model, monkeypatch):
    monkeypatch.setattr(scoring, "_splits", lambda _model: True)
    monkeypatch.setattr(scoring, "head", lambda *_: pytest.fail("computed"))
    observe.trace(tiny_model, named((3, 4, 5), (3, 7)))


@pytest.mark.parametrize("bias", [False, True])
def test_no_logit_exceeds_its_reach(bias):
    head = torch.nn.Linear(8, 30, bias=bias)
    states = torch.randn(50, 8)
    most = scoring.reach(SimpleNamespace(get_output_embeddings=lambda: head))
    longest = (states.square().sum(1) + bias).sqrt()
    largest = head(states).abs().amax(1)
    assert (largest <= longest * most).all() and largest.max() > (longest * most).min() / 4
    assert scoring.reach(SimpleNamespace()) == float("inf")
    assert scoring.within(states, most).all() and not scoring.within(states, float("nan")).any()


def test_a_token_beyond_the_vocabulary_is_named(tiny_model):
    with pytest.raises(ValueError, match="document t0: token 97: must be below 97, the model's"):
        observe.trace(tiny_model, named((3, 97)))


def test_batches_take_every_token_once_per_pass(routes):
    rng = np.random.default_rng(0)
    rows = profile.batches(routes, 19, 2, rng)
    assert sorted(rows.reshape(-1)) == list(range(38))
    np.testing.assert_array_equal(profile.batch_loads(routes, rows)[1].sum(0), routes.load[1])
    with pytest.raises(ValueError, match="tokens = 39"):
        profile.batches(routes, 39, 1, rng)


def test_even_load_has_k_distinct_experts_a_token():
    load = profile.even_load(500, 4, 3, 20, np.random.default_rng(0))
    assert (load.sum(1) == 1500).all() and load.max() <= 500 and abs(load.mean(0) - 375).max() < 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            lambda t: {"expert_index": t.expert_index[0]},
            "must be whole numbers .layers, tokens, k.",
        ),
        (lambda t: {"expert_index": t.expert_index.astype(float)}, "must be whole numbers"),
        (lambda t: {"expert_index": t.expert_index.astype(int) - 8}, "from 0 to 7"),
        (lambda t: {"experts": int(t.expert_index.max())}, "must name experts from 0 to 6"),
        (
            lambda t: {"expert_index": t.expert_index[:, :, [0, 0]]},
            "expert_index: layer 0, token 0: must name different experts",
        ),
        (lambda t: {"cluster": t.cluster - 1}, r"cluster of shape \(4,\): must be \[4\] whole n"),
        (lambda t: {"position": t.position[1:]}, r"position of shape \(37,\): must be \[38\]"),
        (lambda t: {"token": t.token - 100}, "token of shape .*≥ 0"),
        (
            lambda t: {"document": t.document + 1},
            "document: has number 4: must be below 4, the length of cluster",
        ),
        (lambda t: {"domains": t.domains[:1]}, "domain: has number 1: must be below 1"),
        (lambda t: {"clusters": t.clusters[:2]}, "cluster: has number 2: must be below 2"),
    ],
)
def test_a_damaged_trace_is_refused(routes, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(routes, **changes(routes))


def test_a_failed_save_leaves_the_old_file_and_nothing_else(routes, tmp_path, monkeypatch):
    routes.save(tmp_path / "trace.npz")
    before = (tmp_path / "trace.npz").read_bytes()

    def full(path, **parts):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        routes.save(tmp_path / "trace.npz")
    assert [f.name for f in tmp_path.iterdir()] == ["trace.npz"] and (
        tmp_path / "trace.npz"
    ).read_bytes() == before
