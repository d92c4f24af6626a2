"""A layer's time by part: the parts add up, even routes cost nothing more, and on the measured
machine it is the calibrated model.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lib import stats
from lib.measure import calibrate, grid, records
from lib.network import cost, fabric, fluid, layers, placement, step, synthetic, tails, traffic

SHAPE = cost.Shape(2048, 1024, 64, 8)
CHANCES = synthetic.inclusion(64, 8, 0.5)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def known():
    """The calibrated machine with OLMoE's own experts, and the layers that were measured with their
    predictions.
    """
    tables, _, _ = records.load(ROOT / "data/measured")
    _, fits, measured = calibrate.everything(tables, 2**20, draws=0)
    base = calibrate.base(tables)
    machine = step.Machine(
        "measured",
        fits["exchange"].parameters,
        fits[f"experts of olmoe ({base})"].parameters,
        fits["layer"].parameters,
        50e9,
    )
    return machine, measured[(measured.machine == base) & (measured["shape"] == "olmoe")]


def test_it_is_the_model_that_was_calibrated(known):
    machine, measured = known
    net = fabric.star(2, machine.exchange["wire_bytes_per_s"])
    aimed = [c for c in grid.layers(2, {}) if c["placement"] == "aimed"]
    cases = [c for c in aimed if c["shape"] == "olmoe"][::5]
    for c in cases:
        sent, rows = tails.routed(c["index"], [(slice(None), c["home"])], SHAPE, 2)
        same = measured[
            (measured.tokens == c["tokens"])
            & (measured.level == c["level"])
            & (measured.rho_wanted == c["rho_wanted"])
            & (measured.seed == c["seed"])
        ]
        assert step.total_s(step.layer(sent, rows, SHAPE, net, machine)) == pytest.approx(
            same.predicted_s.item(), rel=1e-6
        )
    assert len(cases) > 20


@pytest.mark.parametrize("overlap", [False, True])
def test_parts_add_up_to_the_slowdown(known, overlap):
    for machine in (known[0], step.published()):
        net = fabric.nodes(16, 8, machine.exchange["wire_bytes_per_s"], 50e9)
        even = step.layer(
            *step.even_layer(16 * 256, SHAPE, 16), SHAPE, net, machine, overlap=overlap
        )
        parts = step.layer(
            *layers.drawn(SHAPE, 16, 256, CHANCES, 10), SHAPE, net, machine, overlap=overlap
        )
        slowdown = step.total_s(parts) / step.total_s(even) - 1
        np.testing.assert_allclose(sum(step.excess(parts, even).values()), slowdown, atol=1e-12)
        assert (slowdown > 0.2).all()
        assert sum(step.excess(even, even).values()) == 0
        if overlap:
            apart = step.layer(*layers.drawn(SHAPE, 16, 256, CHANCES, 10), SHAPE, net, machine)
            longer = np.maximum(apart["wire"], apart["arithmetic"])
            np.testing.assert_allclose(
                step.total_s(parts), apart["start"] + longer + apart["order"]
            )


def test_the_ideal_machine_by_hand():
    """One device gets all: 64 rows of 4,096 bytes over 450 GB/s, there and twice as much back; one
    expert's tile of 128 rows.
    """
    sent, rows = np.zeros((2, 2)), np.zeros((2, 64))
    sent[0, 1], rows[1, 3] = 64 * 4096, 64
    parts = step.layer(sent, rows, SHAPE, fabric.star(2, 450e9), step.published(), combine_share=2)
    assert parts["start"] == parts["order"] == parts["hidden"] == 0
    assert parts["wire"] == pytest.approx(3 * 64 * 4096 / 450e9)
    assert parts["arithmetic"] == pytest.approx(
        max(6 * 2048 * 1024 / 3.35e12, 128 * 6 * 2048 * 1024 / 989.4e12), rel=1e-3
    )
    with pytest.raises(ValueError, match="rows: must be finite and ≥ 0"):
        step.experts_s(-rows, SHAPE, step.published())


def test_a_mirrored_fabric_gives_the_combine_for_nothing(known):
    """The same layer on the same links without the promise that they are mirrored, exactly fair."""
    sent, rows = layers.drawn(SHAPE, 8, 64, CHANCES, 5)
    for made in (fabric.star(8), fabric.nodes(8, 2, oversubscription=2)):
        given = sent, rows, SHAPE
        options = dict(combine_share=1.5, time_s=fluid.makespan_s)
        both = step.layer(*given, made, known[0], **options)
        apart = step.layer(*given, dataclasses.replace(made, mirrored=False), known[0], **options)
        np.testing.assert_allclose(both["wire"], apart["wire"], rtol=1e-12)
    late = fabric.star(8, latency_s=1e-3)  # twice the bytes take no longer to set out
    twice = step.layer(sent, rows, SHAPE, late, step.published(), combine_share=2)
    once = step.layer(sent, rows, SHAPE, late, step.published())
    assert (twice["wire"] < 1.5 * once["wire"]).all()


def test_one_formula_of_a_layer():
    """Start 1 s, two exchanges of 2 s, experts 3 s, 10 bytes sorted at 5 a second, and 8 of a
    source at 2.
    """
    p = dict(start_s=1.0, source_bytes_per_s=2.0, order_bytes_per_s=5.0)
    rows = dict(source_bytes=8, own_bytes=10, expert_s=3.0)
    assert cost.layer_s(p, dict(rows, exchange_s=2.0)) == 1 + 4 + 3 + 4 + 2
    parts = cost.layer_parts(p, dict(rows, start_s=0.5, wire_s=3.5))
    assert parts == dict(start=1.5, wire=3.5, arithmetic=3.0, order=6.0)


def test_an_exchange_by_hand():
    """Small ones at 10 bytes a second, large ones after 5 s at 100; the copy beside it at 1; half
    of what goes the other way counts too.
    """
    p = dict(
        start_s=1.0,
        first_s=0.5,
        message_s=0.25,
        back_share=0.5,
        small_bytes_per_s=10.0,
        large_s=5.0,
        wire_bytes_per_s=100.0,
        copy_bytes_per_s=1.0,
    )
    sizes = dict(wire_bytes=np.array([20, 200, 20]), own_bytes=np.array([20, 200, 30]))
    given = {**sizes, "messages": np.array([1, 3, 1]), "back_bytes": np.array([20, 100, 0])}
    assert cost.exchange_s(p, given).tolist() == [1.5 + 3, 2 + 7.5, 1.5 + 10]
    assert cost.start_s(p, np.array([0, 1, 2])).tolist() == [1, 1.5, 1.75]
    assert cost.even_s(p, given).tolist() == [1 + 2, 1 + 7, 1 + 2]


def test_what_goes_the_other_way_is_the_busiest_devices():
    sent = np.array([[9, 5, 1], [2, 9, 0], [4, 3, 9]])  # 1 gets 8 and sends 2; 0 gets and sends 6
    assert cost.features(sent) == dict(wire_bytes=8, back_bytes=2, own_bytes=17, messages=2)


def test_a_further_message_costs_what_is_published():
    """Recomputed without the library: slopes over 1, 3 and 7 messages, of sizes up to 64 KiB."""
    table = pd.read_csv(ROOT / "data/published/alltoall.csv")
    small = table[table.bytes <= 65536].pivot(index="bytes", columns="devices", values="time_us")
    x = np.array([1, 3, 7]) - 11 / 3
    slopes = small.to_numpy() @ x / (x @ x)
    assert step.message_s() == pytest.approx(1e-6 * np.median(slopes))
    assert 0 < step.message_s() < 5e-7


def test_even_routes_are_whole_rows():
    for tokens, shape, devices in ((64 * 16, cost.Shape(8, 8, 256, 8), 64), (21, SHAPE, 2)):
        sent, rows = step.even_layer(tokens, shape, devices)
        rest = sent / (2 * shape.hidden)
        assert (rest == np.rint(rest)).all() and rest.sum() == rows.sum() == tokens * shape.k
        assert np.ptp(rows.sum(0)) <= 1 and np.ptp(rest, axis=1).max() <= 1


def test_a_machine_is_measured_where_it_was_calibrated():
    fits = {name: {"start_s": 1.0} for name in ("exchange", "experts of any shape", "layer")}
    found = step.machine("measured", fits, "two cards")
    assert (found.kind, found.origin, found.layer) == ("measured", "two cards", {"start_s": 1.0})
    for kind, given in (("published", fits), ("measured", {})):
        assert step.machine(kind, given, "two cards") == step.published()


def test_a_step_is_its_layers_and_the_rest():
    model, machine = step.models()["Mixtral-8x7B"], step.published()
    few, many = (step.step_s(np.full(32, 1e-3), tokens, model, machine) for tokens in (1, 10**6))
    assert few == pytest.approx(32e-3 + 2 * model.rest_parameters / 3.35e12)
    assert many == pytest.approx(32e-3 + 2e6 * model.rest_parameters / 989.4e12)


def test_published_shapes_are_those_of_their_configurations():
    """Sizes, layers and the rest, counted in transformers' own classes; where defaults are not the
    model's, what differs is named.
    """
    t, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    configs = {
        "OLMoE-1B-7B": (t.OlmoeConfig(intermediate_size=1024), 6.92),
        "Mixtral-8x7B": (t.MixtralConfig(), 46.70),
        "Qwen3-30B-A3B": (t.Qwen3MoeConfig(num_hidden_layers=48, head_dim=128), 30.53),
        "DeepSeek-V3": (t.DeepseekV3Config(), 671.03),
        "gpt-oss-20b": (t.GptOssConfig(num_hidden_layers=24, num_local_experts=32), 20.91),
        "gpt-oss-120b": (t.GptOssConfig(), 116.83),
    }
    assert set(configs) == set(step.models())
    for name, model in step.models().items():
        config, billions = configs[name]
        with torch.device("meta"):
            parts = {
                key: one.numel()
                for key, one in t.AutoModelForCausalLM.from_config(config).named_parameters()
            }
        experts = {key: size for key, size in parts.items() if ".experts." in key}
        assert sum(parts.values()) / 1e9 == pytest.approx(
            billions, abs=0.006
        )  # the published total
        assert (config.hidden_size, config.num_experts_per_tok) == (
            model.shape.hidden,
            model.shape.k,
        )
        assert model.layers == len({key.split(".experts.")[0] for key in experts})
        weights = sum(
            size for size in experts.values() if size > 1e6 * model.shape.experts / 8
        )  # without the biases of gpt-oss
        assert (
            weights
            == model.layers * model.shape.experts * 3 * model.shape.hidden * model.shape.width
        )
        embedding = sum(size for key, size in parts.items() if "embed_tokens" in key)
        assert model.rest_parameters == sum(parts.values()) - sum(experts.values()) - embedding


def test_what_goes_out_in_fp8_comes_back_in_bf16():
    """DeepEP's published 7,408 bytes of a dispatched row are these and a header of 16; its
    combine's are 14,336.
    """
    models, machine, net = step.models(), step.published(), fabric.star(8)
    deep = models["DeepSeek-V3"]
    assert 2 * deep.shape.hidden * deep.out_share + 16 == 7408
    even = step.even_layer(8 * 256, deep.shape, 8)
    plain, own = (
        step.layer(*even, deep.shape, net, machine),
        step.of_model(*even, deep, net, machine),
    )
    assert (
        own["wire"] == pytest.approx(plain["wire"] * (deep.out_share + 1) / 2)
        and own["arithmetic"] == plain["arithmetic"]
    )
    olmoe = models["OLMoE-1B-7B"]
    even = step.even_layer(8 * 256, olmoe.shape, 8)
    assert step.of_model(*even, olmoe, net, machine) == step.layer(*even, olmoe.shape, net, machine)


# ---- routes and bytes


@pytest.mark.parametrize("share", [1, 50])
def test_drawn_experts_keep_their_probabilities_and_spread(share):
    chances = synthetic.inclusion(16, 4, 0.4)
    draws = [
        np.bincount(
            synthetic.sample(chances, 4, 200, np.random.default_rng(i), share).reshape(-1),
            minlength=16,
        )
        for i in range(400)
    ]
    np.testing.assert_allclose(np.mean(draws, 0), 200 * chances, atol=4 * np.sqrt(200 / 4 / 400))
    np.testing.assert_allclose(np.var(draws, 0), 200 * chances * (1 - chances), rtol=0.35, atol=0.5)
    routes = synthetic.sample(chances, 4, 200, RNG, share)
    assert all(len(set(row)) == 4 for row in routes.tolist())


def test_forwarding_crosses_once_per_node():
    index, home = RNG.integers(0, 32, (64, 6)), placement.random(32, 16, RNG)
    across, inside = traffic.forwarded(index, home, 16, 4, 100.0)
    want_across, want_inside = np.zeros((16, 16)), np.zeros((16, 16))
    for token, chosen in enumerate(index):
        source = token * 16 // 64
        for device in {int(home[e]) for e in chosen}:
            landing = device // 4 * 4 + source % 4 if device // 4 != source // 4 else source
            want_inside[landing, device] += 100
        for node in {int(home[e]) // 4 for e in chosen}:
            landing = node * 4 + source % 4
            want_across[source, landing] += 100
    np.testing.assert_array_equal(across, want_across)
    np.testing.assert_array_equal(inside, want_inside)


def test_limited_routes_stay_in_few_groups():
    routes = synthetic.group_limited(synthetic.inclusion(32, 6, 0.3), 6, 500, RNG, groups=8, kept=3)
    assert max(len(set(row)) for row in (routes // 4).tolist()) <= 3 and all(
        len(set(row)) == 6 for row in routes.tolist()
    )
    free = synthetic.sample(synthetic.inclusion(32, 6, 0.3), 6, 500, RNG)
    assert max(len(set(row)) for row in (free // 4).tolist()) > 3
    with pytest.raises(ValueError, match="groups must divide"):
        synthetic.group_limited(np.full(32, 6 / 32), 6, 5, RNG, groups=5, kept=3)


@pytest.mark.parametrize(
    ("experts", "k"), [(8, 2), (16, 2), (32, 4), (64, 8), (128, 4), (128, 8), (256, 8)]
)
@pytest.mark.parametrize("level", [0.0, 0.2, 0.65])
def test_a_popularity_carries_its_share_of_the_largest_gini(level, experts, k):
    chances = synthetic.inclusion(16, 2, level, "lognormal")
    larger = synthetic.fitted(1e6 * RNG.permutation(chances), experts, k, 2)
    assert (
        larger.sum() == pytest.approx(k)
        and (larger <= 1 + 1e-12).all()
        and (np.diff(larger) <= 1e-15).all()
    )
    assert stats.gini(larger) / (1 - k / experts) == pytest.approx(level / (1 - 2 / 16), abs=1e-9)
    if (experts, k) == (16, 2):
        np.testing.assert_allclose(larger, chances, rtol=1e-6)
    drawn = synthetic.sample(larger, k, 20_000, np.random.default_rng(0), share=50)
    assert stats.gini(np.bincount(drawn.reshape(-1), minlength=experts)) == pytest.approx(
        stats.gini(larger), abs=0.03
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.array([1.0, -1.0]), 8, 2, 1), "must be \\[experts\\]"),
        (
            (np.ones(16), 8, 8, 2),
            "top_k = 8 of 8, recorded 2 of 16: must be from 1 to below the experts",
        ),
        ((np.array([1.0, 0, 0, 0]), 8, 2, 2), "load of Gini 0.75: must be below 0.5, top-2's most"),
    ],
)
def test_a_load_that_cannot_be_carried_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        synthetic.fitted(*given)


def test_rows_are_counted_where_they_are_computed():
    index, home = RNG.integers(0, 8, (40, 2)), placement.replicated(np.arange(1.0, 9), 4, 4)
    rows = traffic.slots(index, home, 4, 8)
    assert rows.sum() == 80 and all(set(np.flatnonzero(rows[d])) <= set(home[d]) for d in range(4))
    np.testing.assert_array_equal(rows.sum(0), np.bincount(index.reshape(-1), minlength=8))
