"""Strategies worked by hand, against textbook algorithms, and for what must hold of every
assignment.
"""

import inspect
from dataclasses import fields
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lib.routing import bind, capacity, fitting, strategies, table, weighing
from lib.routing.weighing import weights

RAW = weights("native")
# all three prefer expert 0; with one place each, the stable matching is not the one with the
# largest total
GATES = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.7, 0.05, 0.25]])
GAMMAS = ("0.5", "0.75", "1", "1.1", "1.25", "2")


def chosen(assigned):
    """The used experts of every token, as sets."""
    return [
        {int(e) for e, w in zip(*row, strict=True) if w > 0} for row in zip(*assigned, strict=True)
    ]


def total(scores, assigned):
    return float((scores.double().gather(-1, assigned[0]) * (assigned[1] > 0)).sum())


def every(tokens, experts, k, gamma="1.25", dtype=torch.float32):
    """Every strategy of the table bound to what its row says, for any scores of that shape."""
    known = dict(
        seed=(0, 1),
        token_ids=torch.arange(tokens) % 7,
        table=fitting.hash_table([9, 4, 4, 3, 1, 0, 2], experts, k),
        bias=torch.linspace(-0.1, 0.1, experts, dtype=dtype),
        cut=torch.full((experts,), 0.3, dtype=dtype),
        gamma=gamma,
        bias_scale=1.0,
        among=min(k + 1, experts),
    )
    bound = {}
    for name, row in table.STRATEGIES.items():
        swept = {row.sweep: known.get(row.sweep) or row.values[0]} if row.sweep else {}
        given = {need: known[need] for need in row.needs}
        bound[name] = partial(row.function, k=k, **row.fixed, **swept, **given)
    bound["optimal"] = partial(strategies.optimal, k=k, gamma=max(gamma, "1"))
    bound["expert_choice"] = partial(strategies.expert_choice, k=k, gamma=gamma)
    return bound


@st.composite
def problems(draw, least_gamma=0):
    """Scores on a coarse grid, so that ties abound, with k and γ."""
    groups, tokens, experts = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 6)),
    )
    k, gamma = draw(st.integers(1, experts)), draw(st.sampled_from(GAMMAS[least_gamma:]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    grid = (
        rng.integers(1, draw(st.sampled_from([2, 5, 1000])) + 1, size=(groups, tokens, experts)) / 8
    )
    return torch.tensor(grid, dtype=torch.float32), k, gamma


# worked by hand
# -------------------------------------------------------------------------------------------------


def test_capacity_is_exact():
    assert capacity.capacity(400, 16, 2, 1.1) == capacity.capacity(400, 16, 2, "1.1") == 55
    assert (
        capacity.capacity(400, 16, 2, Fraction(11, 10)) == 55
        and int(np.ceil(1.1 * 400 * 2 / 16)) == 56
    )
    assert capacity.capacity(1, 16, 2, 1) == 1 and capacity.capacity(3, 3, 1, np.float64(1.5)) == 2


def test_native_random_and_round_robin_by_hand():
    index, weight = strategies.native(GATES, 2)
    assert index.tolist() == [[0, 1], [0, 1], [0, 2]] and torch.equal(
        weight, GATES.gather(1, index)
    )
    offset = torch.tensor(1)
    index, _ = strategies.round_robin(GATES, 2, offset=offset)
    assert index.tolist() == [[1, 2], [0, 1], [2, 0]] and offset == 7
    assert strategies.round_robin(GATES, 2)[0].tolist() == [[0, 1], [2, 0], [1, 2]]
    draw = [strategies.random(GATES, 2, seed=seed)[0].tolist() for seed in ((0, 1), (0, 1), (0, 2))]
    assert draw[0] == draw[1] != draw[2] and all(len(set(row)) == 2 for row in draw[0])


def test_hash_by_hand():
    table = fitting.hash_table([5, 3, 3, 1, 0], experts=3, k=1)
    assert table.tolist() == [[0], [1], [2], [1], [2]]
    index, weight = strategies.hashed(
        GATES, 1, token_ids=torch.tensor([3, 0, 2]), table=table, weigh=RAW
    )
    assert index.tolist() == [[1], [0], [2]] and weight.tolist() == GATES.gather(1, index).tolist()


def test_drop_by_hand():
    drop = partial(strategies.drop, GATES, 1, 1)
    assert chosen(drop(priority="score")) == [set(), set(), {0}]
    assert chosen(drop(priority="position")) == [{0}, set(), set()]
    assert chosen(strategies.drop(GATES, 2, 1, priority="score")) == [{0, 1}, {1}, {0, 2}]
    assert chosen(strategies.drop(GATES, 2, 1, priority="position")) == [{0, 1}, {0, 1}, {2}]
    swapped = torch.tensor(
        [[0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.7, 0.1, 0.2]]
    )  # γ = .75: one place fewer, 2
    assert chosen(strategies.drop(swapped, 2, 0.75, priority="position")) == [{0, 1}, {0, 1}, {2}]
    assert chosen(strategies.drop(swapped, 2, 0.75, priority="choice")) == [{1}, {0, 1}, {0, 2}]


def test_expanded_drop_by_hand():
    expanded = partial(strategies.expanded_drop, GATES, 2, 1)
    assert chosen(expanded(extra=0)) == chosen(strategies.drop(GATES, 2, 1))
    assert chosen(expanded(extra=1)) == [{0, 1}, {1, 2}, {0, 2}]
    assert chosen(expanded(extra=1, device=torch.tensor([0, 0, 1]))) == [{0, 1}, {1}, {0, 2}]


def test_reroute_and_optimal_by_hand():
    assert strategies.reroute(GATES, 1, 1)[0].tolist() == [[2], [1], [0]]
    assert strategies.optimal(GATES, 1, 1)[0].tolist() == [[0], [1], [2]]
    assert total(GATES, strategies.reroute(GATES, 1, 1)) == pytest.approx(1.2)
    assert total(GATES, strategies.optimal(GATES, 1, 1)) == pytest.approx(1.25)
    for strategy in (strategies.reroute, strategies.optimal):
        assert chosen(strategy(GATES, 2, 1)) == [{0, 1}, {1, 2}, {0, 2}]


def test_empty_slot_of_reroute_names_the_expert_that_refused():
    gates = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    index, weight = strategies.reroute(gates, 1, "0.5")
    assert index.tolist() == [[0], [0], [1]] and (weight > 0).tolist() == [[True], [False], [True]]


def test_sinkhorn_by_hand():
    """Rows and columns rescaled are undone, whatever they were: the doubly stochastic matrix is the
    plan.
    """
    plan = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]], dtype=torch.float64)
    scores = (plan * torch.tensor([10.0, 1.0, 1.0]) * torch.tensor([[2.0], [3.0], [1.0]])).log()
    assert strategies.native(scores, 1, weigh=weights("native", gate=torch.exp))[
        0
    ].flatten().tolist() == [0, 0, 0]
    index, _ = strategies.sinkhorn(scores, 1, weigh=weights(gate=weighing.softmax))
    assert index.flatten().tolist() == [0, 1, 2]
    found = capacity.sinkhorn(scores[None], 1, 1.0, 200).softmax(-1)[0]
    torch.testing.assert_close(found, plan, rtol=1e-9, atol=1e-9)


def test_bias_by_hand():
    bias = fitting.fit_bias([GATES], 1, rate=0.3)
    torch.testing.assert_close(bias, torch.tensor([-0.4, 0.2, 0.2]))
    index, weight = strategies.biased(GATES, 1, bias=torch.tensor([-0.25, 0.0, 0.0]), weigh=RAW)
    assert index.flatten().tolist() == [0, 1, 0] and weight[1] == GATES[1, 1]


def test_expert_choice_and_threshold_by_hand():
    assert chosen(strategies.expert_choice(GATES, 1)) == [set(), {1}, {0, 2}]
    cut = fitting.fit_cut([GATES], 1)
    torch.testing.assert_close(cut, torch.tensor([0.7, 0.4, 0.25]))
    assert chosen(strategies.threshold(GATES, 1, cut=cut)) == [set(), {1}, {0, 2}]
    moving = torch.zeros(3)
    assert chosen(strategies.threshold(GATES, 1, cut=moving, rate=0.5)) == [{0, 1, 2}] * 3
    torch.testing.assert_close(moving, cut / 2)


def test_least_loaded_by_hand():
    load = torch.zeros(3, dtype=torch.int64)
    assert strategies.least_loaded(GATES, 1, among=2, load=load)[0].flatten().tolist() == [0, 1, 2]
    assert strategies.least_loaded(GATES[:1], 1, among=2, load=load)[
        0
    ].item() == 0 and load.tolist() == [2, 1, 1]
    assert strategies.least_loaded(GATES[:1], 1, among=2, load=load)[0].item() == 1


def test_activate_fewer_by_hand():
    gates = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    assert strategies.activate_fewer(gates, 2, least=1)[0].tolist() == [[0, 2], [0, 2], [2, 0]]
    assert chosen(strategies.activate_fewer(GATES, 2, least=1)) == [{0}] * 3
    assert (
        strategies.activate_fewer(gates, 2, least=2)[0].tolist()
        == strategies.native(gates, 2)[0].tolist()
    )


def test_weight_policies_by_hand():
    index, native = strategies.reroute(GATES, 2, 1, weigh=RAW)
    assert index[1].tolist() == [1, 2]
    torch.testing.assert_close(native[1], torch.tensor([0.4, 0.1]))
    torch.testing.assert_close(strategies.reroute(GATES, 2, 1)[1][1], torch.tensor([0.4, 0.1]))
    torch.testing.assert_close(
        strategies.reroute(GATES, 2, 1, weigh=weights("mass"))[1][1], torch.tensor([0.72, 0.18])
    )
    torch.testing.assert_close(
        strategies.reroute(GATES, 2, 1, weigh=weights("rank"))[1][1], torch.tensor([0.5, 0.4])
    )
    for policy, expected in [
        ("native", [0.0, 4 / 9]),
        ("mass", [0.0, 1.0]),
        ("rank", [0.0, 5 / 9]),
    ]:
        _, weight = strategies.drop(GATES, 2, 1, weigh=weights(policy, renormalise=True, scale=2.0))
        torch.testing.assert_close(weight[1], 2 * torch.tensor(expected))
    logits = GATES.log() + 3
    same = strategies.reroute(logits.softmax(-1), 2, 1)[1]
    torch.testing.assert_close(
        strategies.native(logits, 2, weigh=weights(gate=weighing.softmax))[1][0], same[0]
    )


# what must hold of every assignment
# ---------------------------------------------------------------------------------


LEAVES_EMPTY = ("drop", "drop_position", "expanded_drop", "reroute", "activate_fewer")


@settings(deadline=None)
@given(problems())
def test_every_assignment_is_one(problem):
    scores, k, gamma = problem
    for name, strategy in every(scores.shape[1], scores.shape[2], k, gamma).items():
        if "token_ids" in strategy.keywords:
            ids = strategy.keywords["token_ids"].expand(scores.shape[:2])
            strategy = partial(strategy, token_ids=ids)
        index, weight = strategy(scores)
        assert index.dtype == torch.int64 and index.shape == weight.shape, name
        assert index.shape[:2] == scores.shape[:2] and weight.dtype == scores.dtype, name
        assert index.min() >= 0 and index.max() < scores.shape[2] and weight.min() >= 0, name
        assert all(len(set(row)) == len(row) for row in index.flatten(0, 1).tolist()), name
        used = (weight > 0).sum(-1)
        if name in ("expert_choice", "threshold"):
            continue
        assert index.shape[2] == k, name
        if name not in LEAVES_EMPTY:
            assert (used == k).all(), name


@settings(deadline=None)
@given(problems())
def test_capacity_is_never_exceeded_and_drops_are_what_overflows(problem):
    scores, k, gamma = problem
    _, tokens, experts = scores.shape
    size = capacity.capacity(tokens, experts, k, gamma)
    bound = every(tokens, experts, k, gamma)
    bound |= {"choice": partial(strategies.drop, k=k, gamma=gamma, priority="choice")}
    capped = ("drop", "drop_position", "choice", "expanded_drop", "reroute", "expert_choice")
    for name in capped:
        for group in scores:
            assert strategies.load(*bound[name](group), experts).max() <= size, name
    for group in scores:
        asked = strategies.load(*strategies.native(group, k), experts)
        for name in ("drop", "drop_position", "choice"):
            assert torch.equal(
                strategies.load(*bound[name](group), experts), asked.clamp(max=size)
            ), name
        assert torch.equal(
            strategies.load(*bound["expert_choice"](group), experts),
            torch.full((experts,), min(size, tokens)),
        )


@settings(deadline=None)
@given(problems())
def test_groups_do_not_touch(problem):
    scores, k, gamma = problem
    bound = every(*scores.shape[1:], k, gamma)
    for name in (
        "native",
        "drop",
        "expanded_drop",
        "reroute",
        "sinkhorn",
        "expert_choice",
        "activate_fewer",
        "optimal",
    ):
        whole = bound[name](scores)
        for number, group in enumerate(scores):
            assert chosen([side[number] for side in whole]) == chosen(bound[name](group)), name


def gale_shapley(scores, k, size):
    """One proposal at a time, from the textbook: the set of experts of every token."""
    tokens, experts = scores.shape
    wish = [sorted(range(experts), key=lambda e: (-row[e], e)) for row in scores.tolist()]
    held, next_wish = [[] for _ in range(experts)], [0] * tokens
    mine = [set() for _ in range(tokens)]
    free = list(range(tokens))
    while free:
        token = free.pop()
        while len(mine[token]) < k and next_wish[token] < experts:
            expert = wish[token][next_wish[token]]
            next_wish[token] += 1
            held[expert].append(token)
            mine[token].add(expert)
            if len(held[expert]) > size:
                worst = max(held[expert], key=lambda t: (-scores[t, expert], t))
                held[expert].remove(worst)
                mine[worst].remove(expert)
                free.append(worst)
    return mine


@settings(deadline=None)
@given(problems())
def test_reroute_is_the_textbook_and_no_pair_blocks(problem):
    scores, k, gamma = problem
    _, tokens, experts = scores.shape
    size = capacity.capacity(tokens, experts, k, gamma)
    index, kept, rounds = capacity.reroute(scores, k, size)
    assert 1 <= rounds <= max(experts * (tokens - size), 0) + 1
    for group, row, held in zip(scores, index, kept, strict=True):
        mine = chosen((row, held.int()))
        assert mine == gale_shapley(group, k, size)
        load = torch.bincount(row[held], minlength=experts)
        for token in range(tokens):
            for expert in set(range(experts)) - mine[token]:
                there = [t for t in range(tokens) if expert in mine[t]]
                worst = max((-group[t, expert], t) for t in [*there, token])
                admitted = load[expert] < size or (-group[token, expert], token) != worst
                last = max((-group[token, e], e) for e in {*mine[token], expert})
                wanted = len(mine[token]) < k or (-group[token, expert], expert) != last
                assert not (admitted and wanted)


@settings(max_examples=50, deadline=None)
@given(problems(least_gamma=2))
def test_optimal_has_the_largest_total(problem):
    scores, k, gamma = problem
    _, tokens, experts = scores.shape
    size = capacity.capacity(tokens, experts, k, gamma)
    bound = every(tokens, experts, k, gamma)
    for group in scores:
        found = strategies.optimal(group, k, gamma)
        assert strategies.load(*found, experts).max() <= size and (found[1] > 0).sum() == tokens * k
        for name, strategy in bound.items():
            other = strategy(group)
            fits = (
                strategies.load(*other, experts).max() <= size
                and ((other[1] > 0).sum(-1) == k).all()
            )
            assert not fits or total(group, found) >= total(group, other) - 1e-9, name


@settings(max_examples=30, deadline=None)
@given(problems(least_gamma=2))
def test_prices_certify_the_optimum(problem):
    """Duality: everyone takes its best k of score − price, and only full experts have a price."""
    scores, k, gamma = problem
    group, prices = scores[0], strategies.optimal_prices(scores, k, gamma)[0]
    _, tokens, experts = scores.shape
    size = capacity.capacity(tokens, experts, k, gamma)
    found = strategies.optimal(group, k, gamma)
    net = group.double() - prices
    bound = float(net.topk(k).values.sum() + size * prices.sum())
    assert (prices >= -1e-9).all() and total(group, found) == pytest.approx(bound, abs=1e-6)


def test_single_optimum_agrees_with_the_linear_program():
    scores = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    single = capacity.optimal_single(scores, 6)
    mask, _ = capacity.optimal(scores, 1, 6)
    assert torch.equal(mask.int().argmax(-1, keepdim=True), single)


def gates(tokens, experts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(tokens, experts, generator=generator)
        + torch.randn(experts, generator=generator)
    ).softmax(-1)


def test_room_for_all_changes_nothing_bit_for_bit():
    scores = gates(64, 8)
    for renormalise in (False, True):
        expected = strategies.native(
            scores, 2, weigh=weights("native", renormalise=renormalise, scale=2.5)
        )
        for policy in weighing.POLICIES:
            weigh = weights(policy, renormalise=renormalise, scale=2.5)
            for strategy in (
                partial(strategies.drop, gamma=4),
                partial(strategies.expanded_drop, gamma=4, extra=3),
                partial(strategies.reroute, gamma=4),
                partial(strategies.biased, bias=torch.zeros(8)),
                partial(strategies.activate_fewer, least=2),
            ):
                for got, want in zip(strategy(scores, 2, weigh=weigh), expected, strict=True):
                    assert torch.equal(got, want)


@settings(deadline=None)
@given(problems())
def test_mass_is_preserved(problem):
    scores, k, gamma = problem
    own = strategies.native(scores, k)[1].sum(-1)
    for name in ("drop", "expanded_drop", "reroute", "expert_choice", "random", "threshold"):
        _, weight = every(*scores.shape[1:], k, gamma)[name](scores, weigh=weights("mass"))
        some = (weight > 0).any(-1)
        torch.testing.assert_close(weight.sum(-1)[some], own[some])


@pytest.mark.parametrize("name", [*table.STRATEGIES, "choice"])
def test_causal_strategies_never_look_ahead(name):
    first, later = gates(32, 8), gates(32, 8, seed=1).flip(1)
    bound = every(32, 8, 2, "1")
    bound["choice"] = partial(strategies.drop, k=2, gamma=1, priority="choice")
    changed = torch.cat([first[:16], later[16:]])
    before, after = chosen(bound[name](first))[:16], chosen(bound[name](changed))[:16]
    assert (before == after) == (name != "choice" and table.find(name).causal)


def test_ties_go_to_the_lower_numbers():
    even = torch.full((8, 4), 0.25)
    bound = every(8, 4, 2, "1")
    assert strategies.native(even, 2)[0].tolist() == [[0, 1]] * 8
    assert chosen(bound["drop"](even)) == [{0, 1}] * 4 + [set()] * 4
    assert (
        chosen(bound["expanded_drop"](even))
        == chosen(bound["reroute"](even))
        == [{0, 1}] * 4 + [{2, 3}] * 4
    )
    assert chosen(bound["expert_choice"](even)) == [{0, 1, 2, 3}] * 4 + [set()] * 4
    assert chosen(bound["least_loaded"](even))[:3] == [{0, 1}, {0, 2}, {1, 2}]


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices_and_threads_agree(device):
    coarse = (gates(300, 8) * 16).ceil() / 16  # ties everywhere
    threads = torch.get_num_threads()
    for name, strategy in every(300, 8, 2).items():
        torch.set_num_threads(1)
        expected = strategy(coarse)
        torch.set_num_threads(2)
        index, weight = strategy(coarse.to(device))
        torch.set_num_threads(threads)
        assert index.device.type == weight.device.type == device, name
        assert torch.equal(index.cpu(), expected[0]), name
        torch.testing.assert_close(weight.cpu(), expected[1])


def test_in_groups():
    scores = gates(70, 8)
    for size in (1, 16, 70, 4096):
        for strategy in (
            partial(strategies.reroute, k=2, gamma=1),
            partial(strategies.expert_choice, k=2),
        ):
            expected = [part for group in scores.split(size) for part in chosen(strategy(group))]
            assert chosen(bind.in_groups(strategy, size)(scores)) == expected
            label = torch.arange(70) // size
            mixed = torch.randperm(70, generator=torch.Generator().manual_seed(size))
            found = bind.in_groups(strategy, label[mixed])(scores[mixed])
            assert chosen(found) == [expected[token] for token in mixed]


def test_random_is_uniform_and_streams_balance():
    scores = gates(8000, 8)
    load = strategies.load(*strategies.random(scores, 2, seed=3), 8)
    assert scipy_stats.chisquare(load).pvalue > 0.001
    unbalanced = strategies.load(*strategies.native(scores, 2), 8)
    streamed = strategies.load(*strategies.least_loaded(scores, 2, among=4), 8)
    assert streamed.max() < unbalanced.max()


def test_what_was_fitted_evens_the_load_of_text_not_seen():
    train, test = gates(20000, 8).split(16000)
    bias = fitting.fit_bias(list(train.split(1000)), 2, rate=0.02, steps=200)
    load = strategies.load(*strategies.biased(test, 2, bias=bias), 8)
    assert abs(float(bias.sum())) < 1e-5 and load.max() < 1.15 * load.double().mean()
    cut = fitting.fit_cut(train.split(1000), 2)
    load = strategies.load(*strategies.threshold(test, 2, cut=cut), 8)
    assert load.min() > 0.85 * 1000 and load.max() < 1.15 * 1000
    rng = np.random.default_rng(0)
    words = rng.zipf(1.3, 200_000) % 500
    table = fitting.hash_table(np.bincount(words, minlength=500), 8, 2)
    load = np.bincount(table[words].flatten(), minlength=8)
    assert (
        load.max() / load.mean() < 8 / 2 * 1.01
        and load[np.argsort(load)[:-2]].std() < 0.02 * load.mean()
    )


def test_prices_are_the_bias_that_evens_the_load():
    scores = gates(2000, 8)
    prices = strategies.optimal_prices(scores.log(), 2, 1).float()
    load = strategies.load(
        *strategies.biased(scores.log(), 2, bias=-prices, weigh=weights(gate=torch.exp)), 8
    )
    assert load.max() <= 1.02 * 500


def test_refusals():
    nan = GATES.clone()
    nan[1, 1] = torch.nan
    one = GATES[:0]
    for call, message in [
        (lambda: strategies.drop(GATES, 2, 0), "gamma = 0: must be a finite number > 0"),
        (lambda: strategies.reroute(GATES, 2, -1.5), "gamma = -1.5: must be"),
        (lambda: strategies.reroute(GATES, 2, float("nan")), "gamma = nan: must be"),
        (lambda: strategies.expert_choice(GATES, 2, "much"), "gamma = much: must be"),
        (
            lambda: strategies.optimal(GATES, 2, 0.5),
            "gamma = 0.5: 6 slots have only 3 places: must be ≥ 1",
        ),
        (lambda: strategies.native(GATES, 4), "native: k = 4: must be from 1 to 3"),
        (lambda: strategies.reroute(GATES, 0, 1), "reroute: k = 0"),
        (lambda: fitting.hash_table([1, 2], 2, 3), "hash_table: k = 3"),
        (lambda: strategies.reroute(nan, 2, 1), "reroute: scores: must be finite"),
        (lambda: strategies.optimal(nan / 0, 2, 1), "optimal: scores: must be finite"),
        (lambda: strategies.native(one, 2), r"native: scores \[0, 3\]: must be"),
        (lambda: bind.in_groups(partial(strategies.native, k=2), 4)(one), r"scores \[0, 3\]"),
        (lambda: strategies.native(GATES.int(), 2), "must be floats"),
        (lambda: table.find("re_route"), r"'re_route': must be .* \(did you mean reroute\?\)"),
        (lambda: table.find("xyz"), "'xyz': must be one of native"),
        (lambda: weights("half"), "policy = 'half'"),
        (lambda: strategies.native(GATES.log(), 2), "gates: must be ≥ 0; logits need gate"),
        (lambda: strategies.drop(GATES, 2, 1, priority="luck"), "priority = 'luck'"),
        (lambda: strategies.expanded_drop(GATES, 2, 1, extra=-1), "extra = -1"),
        (lambda: strategies.sinkhorn(GATES, 2, temperature=0), "temperature = 0"),
        (lambda: strategies.least_loaded(GATES, 2, among=1), "among = 1"),
        (lambda: strategies.activate_fewer(GATES, 2, least=3), "least = 3"),
        (
            lambda: strategies.hashed(GATES, 2, token_ids=torch.zeros(2), table=torch.zeros(3, 2)),
            "one id per token",
        ),
        (lambda: fitting.fit_bias([], 2), "0 batches"),
        (lambda: fitting.fit_cut([], 2), "0 batches"),
        (lambda: bind.in_groups(strategies.native, 0), "group = 0"),
        (
            lambda: bind.in_groups(partial(strategies.native, k=2), torch.zeros(4))(GATES),
            r"must be \[3\]",
        ),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


# what is known of each
# -------------------------------------------------------------------------------------------------


def test_no_kind_of_strategy_is_lost():
    """Kinds that the book must keep, those of the predecessor's five strategies among them."""
    kinds = {
        "by the router": {"native"},
        "by chance": {"random"},
        "in turn": {"round_robin"},
        "by token": {"hashed"},
        "under a capacity": {"drop", "reroute"},
        "by load": {"least_loaded", "biased"},
    }
    for kind, names in kinds.items():
        assert names <= set(table.STRATEGIES), kind


@pytest.mark.parametrize("name", table.STRATEGIES)
def test_a_row_says_what_can_be_done_with_it(name):
    row = table.find(name)
    keywords = inspect.signature(row.function).parameters
    asked = {*row.fixed, *row.needs, *([row.sweep] if row.sweep else [])}
    required = {n for n, known in keywords.items() if known.default is known.empty}
    assert asked <= set(keywords) and required <= {"scores", "k", *asked}
    assert len(asked) == len(row.fixed) + len(row.needs) + bool(row.sweep)
    assert row.policy in weighing.POLICIES
    assert {*row.needs} <= {*bind.GIVEN, *(field.name for field in fields(bind.Fits))}
    assert row.values or row.sweep in ("", "gamma", "bias_scale", "among")
    assert row.sweep or not row.values


def test_a_strategy_that_adds_scores_up_takes_logarithms():
    """Gates of two tokens: in sum the swap is worth less, in product more."""
    scores = torch.tensor([[0.9, 0.1], [0.5, 0.02]])
    assert strategies.optimal(scores, 1, 1)[0].tolist() == [[0], [1]]
    assert strategies.optimal(scores.log(), 1, 1, weigh=weights(gate=torch.exp))[0].tolist() == [
        [1],
        [0],
    ]
    assert table.find("optimal").on_logs and table.find("sinkhorn").on_logs
