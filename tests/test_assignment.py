"""Another assignment: in which groups, what it does to a model, what looks ahead, what is tried."""

from dataclasses import replace
from types import SimpleNamespace

import families
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import OlmoeForCausalLM

from lib.commands import declared, ladder_balance
from lib.model import load, rows
from lib.routing import adapter, assignment, bind, comparison, study, table
from lib.routing.rule import Rule


def documents(n, tokens):
    return [
        SimpleNamespace(
            name=f"n{i}", domain="d", cluster=f"c{i}", token_ids=tuple(range(i, i + tokens))
        )
        for i in range(n)
    ]


@pytest.fixture
def ids():
    return torch.randint(0, 97, (6, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fits(tiny_model, ids):
    return bind.fit(tiny_model, ids, batch_tokens=32, steps=50)


def run(model, ids, setting, fits=None, groups=None, **more):
    group = torch.from_numpy(assignment.prefix_groups(*ids.shape)) if groups is None else groups
    return assignment.run(
        model, ids, bind.bound(setting, group, fits), group, first=ids.shape[1] // 2, **more
    )


def test_groups_of_both_protocols_by_hand():
    assert assignment.prefix_groups(2, 4).tolist() == [0, 0, 2, 3, 1, 1, 2, 3]
    assert assignment.prefill_groups(2, 4, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_only_whole_documents_are_taken():
    kept, grid = assignment.grid(documents(3, 8) + documents(1, 5), 6)
    assert len(kept) == 3 and grid.shape == (3, 6)
    with pytest.raises(ValueError, match="0 documents of 9 tokens: must be at least 2"):
        assignment.grid(documents(3, 8), 9)


def test_the_native_choice_costs_nothing_and_is_scored_as_by_hand(tiny_model, ids):
    found = run(tiny_model, ids, dict(strategy="native"))
    with torch.no_grad():
        logp = tiny_model(input_ids=ids).logits.log_softmax(-1)
    expected = -logp[:, 7:-1].gather(2, ids[:, 8:, None]).squeeze(2).sum(1)
    np.testing.assert_allclose(found["nats"], expected, rtol=1e-5)
    assert (
        found["tokens"] == 8
        and found["churn"] == 0
        and found["kept"] == 1
        and found["dropped"] == 0
    )
    assert (
        found["load"].shape == (3, 8, 8) and (found["load"].sum(2) == 12).all()
    )  # 8 positions of 6 documents, top-2
    with adapter.record(tiny_model, indices=True) as rec, torch.no_grad():
        tiny_model(input_ids=ids)
    index = rec.index(0).view(6, 16, 2)[:, 8:]
    assert found["load"][0, 0].tolist() == np.bincount(index[:, 0].ravel(), minlength=8).tolist()
    np.testing.assert_allclose(found["max_over_nominal"], found["load"].max(2) / (6 * 2 / 8))


def test_a_capacity_is_kept_in_every_group_and_overflow_is_told(tiny_model, ids, fits):
    drop, reroute = (
        run(tiny_model, ids, dict(strategy=name, gamma=1)) for name in ("drop", "reroute")
    )
    assert drop["load"].max() <= 2 and reroute["load"].max() <= 2
    assert drop["dropped"] > 0 and 0 < reroute["churn"] < 1 and reroute["kept"] < 1
    assert run(tiny_model, ids, dict(strategy="biased"), fits)["dropped"] == 0


def test_one_layer_at_a_time_leaves_the_others(tiny_model, ids):
    native, one = (
        run(tiny_model, ids, dict(strategy="native")),
        run(tiny_model, ids, dict(strategy="reroute", gamma=1), layer=1),
    )
    np.testing.assert_array_equal(one["load"][0], native["load"][0])
    assert one["load"][1].max() <= 2 and one["load"][2].max() > 2


def test_causal_strategies_leak_exactly_nothing_and_others_do(tiny_model, ids, fits):
    plan = bind.settings([n for n in table.STRATEGIES if n != "activate_fewer"], [1.25], [1.0], [4])
    text, other = torch.cat([ids[0], ids[1]]), torch.cat([ids[2], ids[3]])
    moved = assignment.leak(tiny_model, text, other, plan, fits)
    assert moved.setting.tolist() == [setting["name"] for setting in plan]
    assert ((moved.leak == 0) == moved.causal).all(), moved
    assert moved.causal.any() and not moved.causal.all()
    assert tiny_model.config._experts_implementation != "batched_mm"


def test_the_native_choice_put_in_by_hand_changes_nothing(tiny_model, ids, monkeypatch):
    assert assignment.unchanged(tiny_model, ids)
    monkeypatch.setattr(adapter, "native", lambda _, call: (call.index, call.weights * 1.01))
    assert not assignment.unchanged(tiny_model, ids)


def test_domains_take_turns():
    texts = [SimpleNamespace(domain=domain) for domain in "bbbaac"]
    assert assignment.in_turn(texts, 5) == [0, 3, 5, 1, 4]


# strategies bound to a model
# -------------------------------------------------------------------------------------------------


def test_settings_are_named_and_unknown_ones_refused():
    plan = bind.settings(["native", "reroute", "biased"], [1.0, 1.25], [0.5], [4])
    assert [s["name"] for s in plan] == ["native", "reroute 1", "reroute 1.25", "biased 0.5"]
    assert plan[2] == dict(name="reroute 1.25", family="reroute", strategy="reroute", gamma=1.25)
    only = bind.settings(["optimal", "least_loaded"], [2.0], [], [3, 4])
    assert [s["name"] for s in only] == ["optimal 1.25", "least_loaded 3", "least_loaded 4"]
    with pytest.raises(ValueError, match=r"'reroot': must be .* \(did you mean reroute\?\)"):
        bind.settings(["reroot"], [1.0], [1.0], [4])


def test_what_must_be_fitted_is_asked_for():
    group = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="biased: fits = None: must hold its bias"):
        bind.bound(dict(strategy="biased"), group)
    with pytest.raises(ValueError, match="hashed: fits = None: must hold its table"):
        bind.bound(dict(strategy="hashed"), group)


def call(scores, layer=0):
    """What a layer with these native gates [tokens, experts] would hand over, top-1."""
    weights, index = scores.max(1, keepdim=True)
    about = dict(logits=scores.log(), rule=Rule("softmax", False, 1.0))
    token = torch.arange(len(scores))
    return SimpleNamespace(layer=layer, index=index, weights=weights, token=token, **about)


def test_a_setting_is_bound_by_hand():
    scores = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.9, 0.1]])
    group = torch.tensor([0, 1, 0, 1])
    fits = bind.Fits(
        table=torch.tensor([[0], [1], [1], [0]]),
        bias=[torch.zeros(2), torch.tensor([-0.3, 0.3])],
        cut=[torch.zeros(2), torch.tensor([0.75, 0.15])],
    )

    def chosen(layer=0, **setting):
        return bind.bound(setting, group, fits)(scores, call(scores, layer))

    assert bind.bound(dict(strategy="native"), group) is adapter.native
    assert chosen(strategy="drop", gamma=1, priority="position")[1].flatten().tolist() == (
        pytest.approx([0.6, 0.7, 0, 0])
    )
    row = chosen(strategy="drop_position", gamma=1)
    assert torch.equal(row[1], chosen(strategy="drop", gamma=1, priority="position")[1])
    index, weight = chosen(strategy="reroute", gamma=1)
    assert index.flatten().tolist() == [1, 1, 0, 0]
    assert weight.flatten().tolist() == pytest.approx([0.4, 0.3, 0.8, 0.9])
    assert chosen(strategy="reroute", gamma=1, policy="mass")[1].flatten().tolist() == (
        pytest.approx([0.6, 0.7, 0.8, 0.9])
    )
    assert chosen(strategy="hashed")[0].flatten().tolist() == [0, 1, 1, 0]
    assert chosen(strategy="biased")[0].flatten().tolist() == [0, 0, 0, 0]
    assert chosen(1, strategy="biased")[0].flatten().tolist() == [1, 1, 0, 0]
    assert chosen(1, strategy="biased", bias_scale=0.5)[0].flatten().tolist() == [1, 0, 0, 0]
    assert (chosen(1, strategy="threshold")[1] > 0).sum(1).tolist() == [1, 1, 2, 1]
    assert chosen(strategy="random")[0].tolist() != chosen(1, strategy="random")[0].tolist()


FAMILIES = (
    "DeepseekV3ForCausalLM",  # a selection bias, limited groups, renormalised, scaled
    "MixtralForCausalLM",
    "GptOssForCausalLM",
    "GraniteMoeForCausalLM",  # its head divides the logits
    "Gemma4ForCausalLM",  # a scale per expert
    "InklingForCausalLM",  # shared experts in the sum
    "ZayaForCausalLM",  # top-1
    "DeepseekV4ForCausalLM",  # a table by token id
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_capacity_that_nobody_exceeds_changes_nothing(family):
    """Whatever a router ranks and however it weighs: strategies start from its own choice."""
    model = families.build(families.families()[family])
    ids = torch.randint(20, 110, (3, 12), generator=torch.Generator().manual_seed(2))
    group = torch.from_numpy(assignment.prefix_groups(*ids.shape))
    native = run(model, ids, dict(strategy="native"), groups=group)
    with torch.no_grad():
        logp = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    expected = -logp[:, 5:-1].gather(2, ids[:, 6:, None]).squeeze(2).sum(1)
    np.testing.assert_allclose(native["nats"], expected, rtol=1e-4)
    for policy in ("native", "mass", "rank"):
        for name in ("drop", "reroute", "optimal"):
            setting = dict(strategy=name, gamma=16, policy=policy)
            found = run(model, ids, setting, groups=group)
            assert found["churn"] == found["dropped"] == 0, (policy, name)
            np.testing.assert_allclose(found["nats"], native["nats"], rtol=1e-4)


def _olmoe(experts, k, layers):
    torch.manual_seed(0)
    sizes = dict(vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=layers)
    return OlmoeForCausalLM(load.config(**sizes, num_experts=experts, num_experts_per_tok=k)).eval()


def _collapsed():
    """Every token of every layer goes to the same experts, by a margin that leaves the gates of all
    others exactly 0.
    """
    model = families.build(families.families()["GptOssForCausalLM"])
    for layer in adapter.layers(model):
        router = model.get_submodule(layer.name.rpartition(".")[0]).router
        router.bias.data = torch.cat([torch.tensor([900.0, 850.0]), torch.zeros(14)])
        router.weight.data *= 1e-3
    return model


MODELS = {
    "one layer, top-1": lambda: _olmoe(4, 1, 1),
    "every expert": lambda: _olmoe(4, 4, 2),
    "two experts": lambda: _olmoe(2, 1, 2),
    "collapsed": _collapsed,
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", MODELS)
def test_every_strategy_is_told_of_the_oddest_router(name):
    """From the passes to each table of the chapter, for all strategies and policies."""
    text = documents(10, 24)
    own = study.subject(MODELS[name](), text, text, documents=9, tokens=16, fit_steps=20)
    names = [name for name in table.STRATEGIES if name != "native"]
    settings = bind.settings(["native", *names], [1.0, 1.25], [1.0, 2.0], [4, 8])
    plan = study.Study(settings, group_sizes=[8], prefill_tokens=16)
    tried = study.measured(plan, {"model": own})
    runs = comparison.against_native(tried)
    assert np.isfinite(runs[["delta", "perplexity_ratio", "accuracy_points", "p95"]]).all(None)
    each = comparison.one_each(comparison.only(runs, protocol="prefix", authors=True), 1.25)
    assert each.family.tolist() == ["native", *names]
    legal = comparison.only(tried, protocol="prefix", authors=True, slow=False)
    target = ladder_balance.target(9, *study.size(own)[["experts", "k"]].tolist())
    reach = comparison.reach(runs, target, ["model"], "biased")
    level = comparison.at_level(legal, {"model": float(reach.level[0])})
    assert len(comparison.against_rival(level, ["model"])) == 1
    pairs = {"gap": ("drop 1.25", "reroute 1.25")}
    gaps = comparison.gaps(comparison.only(tried, protocol="prefix"), pairs, ["model"], others=7)
    assert gaps.policy.tolist() == ["native", "mass", "rank"] and gaps.gap.notna().all()
    leaks = study.leaks(plan, own, tokens=16)
    assert (leaks.leak[leaks.causal] == 0).all() and len(leaks) == len(table.STRATEGIES)
    assert len(study.prices({"model": own})) == len(adapter.layers(own.model))


def test_prices_and_biases_are_held_together_per_layer(fits):
    found = bind.price_correlation(fits, 2)
    assert found.shape == (3,) and (np.abs(found) <= 1).all()


# what is tried
# -------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(tiny_model):
    return study.subject(
        tiny_model, documents(9, 16), documents(4, 16), documents=8, tokens=12, fit_steps=5
    )


def test_a_subject_holds_what_it_is_judged_on(subject):
    assert len(subject.documents) == 8 and subject.ids.shape == (8, 12)
    assert subject.ids[3].tolist() == list(range(3, 15))
    assert subject.groups(None).tolist() == assignment.prefix_groups(8, 12).tolist()
    assert subject.groups(5).tolist() == [i // 5 for i in range(96)]
    assert study.size(subject).to_dict() == dict(documents=8, clusters=8, k=2, experts=8)
    assert len(subject.fits.bias) == 3 and subject.fits.scores[0].shape == (4 * 12, 8)


def test_documents_longer_than_the_context_are_refused(tiny_model):
    text = documents(9, 2000)
    rule = r"tokens_per_document = 1025: must be at most 1024, the model's context"
    with pytest.raises(ValueError, match=rule):
        study.subject(tiny_model, text, text, documents=8, tokens=1025, fit_steps=5)


def test_every_pass_is_listed_by_hand():
    names = ["native", "drop", "reroute", "optimal"]
    plan = study.Study(
        bind.settings(names, [1.0, 1.25], [], []),
        policies=["native", "mass"],
        group_sizes=[2, 4],
        prefill_tokens=7,
    )
    layers = [SimpleNamespace(k=2, num_experts=8)] * 3
    jobs = plan.jobs({"a": layers})
    told = [(j.protocol, j.setting["name"], j.policy, j.size, j.layer) for j in jobs]
    changed = ["drop 1", "drop 1.25", "reroute 1", "reroute 1.25", "optimal 1.25"]
    assert told == [
        ("prefix", "native", "native", None, None),
        *(("prefix", name, how, None, None) for name in changed for how in ("native", "mass")),
        *(("prefill", n, "native", 7, None) for n in ("native", "drop 1.25", "reroute 1.25")),
        *(("size", n, "native", size, None) for n in ("native", "reroute 1.25") for size in (2, 4)),
        *(("layer", "reroute 1.25", "native", None, layer) for layer in range(3)),
    ]
    assert all(job.arm == "a" for job in jobs)
    without = replace(plan, ablation=False, policies=["mass"]).jobs({"a": layers, "b": layers[:1]})
    assert {job.protocol for job in without} == {"prefix", "prefill", "size"}
    assert len(without) == 2 * (6 + 5 + 3 + 4)


def test_what_a_router_does_not_admit_is_not_tried():
    plan = bind.settings(["native", "least_loaded"], [], [], [1, 3, 4, 16])
    found = [(s["name"], s.get("among")) for s in bind.suited(plan, k=2, experts=4)]
    wanted = [("least_loaded 3", 3), ("least_loaded 4", 4)]  # of two there is no choice
    assert found == [("native", None), *wanted]
    assert len(bind.suited(plan, k=16, experts=16)) == 2


def test_each_method_is_judged_with_the_weights_that_were_declared():
    """A strategy that came later was not declared."""
    assert {name: table.STRATEGIES[name].policy for name in declared.WEIGHTS} == declared.WEIGHTS


def test_a_study_is_measured_run_by_run(subject):
    names = ["reroute", "biased", "random"]
    settings = bind.settings(["native", *names], [1.25], [1.0], [])
    plan = study.Study(settings, ("native", "rank"), group_sizes=[32], prefill_tokens=24)
    found = study.measured(plan, {"a": subject})
    runs = found.drop_duplicates("run")
    assert len(runs) == 1 + 2 * 3 + 4 + 2 + 3 and len(found) == 8 * len(runs)
    native = found[found.run == 0]
    assert (native.tokens == 6).all() and (native.churn == 0).all() and native.causal.all()
    assert (found[found.protocol == "prefill"].tokens == 11).all()
    by_hand = run(subject.model, subject.ids, settings[1])
    own = found[(found.setting == "reroute 1.25") & found.authors & found.layer.isna()]
    np.testing.assert_array_equal(own[own.protocol == "prefix"].nats, by_hand["nats"])
    assert own.p95.iloc[0] == np.quantile(by_hand["max_over_nominal"], 0.95)
    ranked = found[(found.setting == "reroute 1.25") & (found.policy == "rank")]
    assert not ranked.authors.any() and (ranked.nats != by_hand["nats"]).any()
    kept = study.read(rows.unpack(rows.pack(study.stored(found))))
    columns = [*study.OF_DOCUMENT, *study.OF_RUN, "tokens", "correct", "run"]
    pd.testing.assert_frame_equal(kept[columns], found[columns], check_dtype=False)
    assert (kept.nats == found.nats.round(4)).all() and kept.nats[0] != found.nats[0]
    compared = comparison.against_native(found)
    assert len(compared) == len(runs) and (compared.delta[compared.family == "native"] == 0).all()


def test_the_fitted_bias_is_kept(subject, tmp_path):
    """Read back it gives the same numbers; a file of another model is refused."""
    file = tmp_path / "bias.safetensors"
    bind.keep_bias(file, subject.model, subject.fits)
    again = bind.kept_bias(file, subject.model)
    setting = dict(strategy="biased", bias_scale=2.0)
    one, two = (run(subject.model, subject.ids, setting, fits) for fits in (subject.fits, again))
    assert (one["nats"] == two["nats"]).all() and one["churn"] == two["churn"] > 0
    with safe_open(file, "pt") as held:
        assert sorted(held.keys()) == [layer.name for layer in adapter.layers(subject.model)]
    save_file({"model.layers.0.mlp.experts": torch.zeros(4)}, file)
    with pytest.raises(ValueError, match=r"layers.0.mlp.experts: \[4\]: must be \[8\]"):
        bind.kept_bias(file, subject.model)
    with pytest.raises(ValueError, match="threshold: fits without cut: must hold its cut"):
        bind.bound(dict(strategy="threshold"), torch.zeros(4, dtype=torch.int64), again)


def test_prices_are_told_by_layer(subject):
    found = study.prices({"a": subject, "b": subject})
    assert found.arm.tolist() == ["a"] * 3 + ["b"] * 3 and found.layer.tolist() == [1, 2, 3] * 2
    np.testing.assert_array_equal(
        found.price_correlation[:3], bind.price_correlation(subject.fits, 2)
    )
