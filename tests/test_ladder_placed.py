"""H6a: a placement against a frozen bias, on counts that can be followed by hand."""

import numpy as np
import pytest

from lib.commands import ladder_placed, ladder_summary
from lib.network import step, traffic

EXPERTS, TOKENS = 16, 64  # on eight devices, two each


def result(seed, native, biased, made):
    """One layer; the same two groups in both halves; the bias costs .002 on the other clusters."""
    halves = np.stack([native, native])[:, :, None], np.stack([biased, biased])[:, :, None]
    return {
        "job": {"name": "placed", "seed": seed},
        "placed": {
            "group_tokens": 2 * TOKENS,
            "tokens": [1000, 1000],
            "made": np.array(made)[:, None].tolist(),
            "scale": 0.5,
            "scales": [{"scale": 0.0, "nats": [5.0, 5.0]}, {"scale": 0.5, "nats": [6.0, 7.0]}],
            "native": halves[0].tolist(),
            "biased": halves[1].tolist(),
        },
    }


def loads(*busy):
    """Counts of a group: 14 tokens more for each of the busy experts, of 2 · 64 in all."""
    found = np.full(EXPERTS, 8.0)
    found[list(busy)] += 14
    found[[e for e in range(EXPERTS) if e not in busy]] -= 14 * len(busy) / (EXPERTS - len(busy))
    return np.rint(found).astype(int)


# experts 0 and 1 stand together in order; the first domain shows both, the second neither
TOGETHER, EVEN, APART = loads(0, 1), np.full(EXPERTS, 8), loads(0, 15)
RESULTS = {
    f"placed_{seed}": result(seed, [TOGETHER, second], [EVEN, EVEN], [TOGETHER, APART])
    for seed, second in ((1, EVEN), (2, APART))
}


def by_hand(load, home):
    """Seconds of the layer of one group, its matrix built row by row."""
    model, net = (
        step.models()["OLMoE-1B-7B"],
        ladder_placed.advise.cluster(8, ladder_placed.machine()),
    )
    sent = np.zeros((8, 8))
    rows = np.zeros((8, EXPERTS))
    for expert, device in enumerate(home):
        rows[device, expert] = load[expert]
        sent[:, device] += load[expert] / 8 * 2 * model.shape.hidden
    assert traffic.received(sent) > 0
    parts = step.layer(sent, rows, model.shape, net, ladder_placed.machine())
    return float(step.total_s(parts))


def test_the_time_of_a_step_is_that_of_its_layers():
    home = np.arange(EXPERTS) // 2
    counts = np.stack([TOGETHER, APART])[:, None].repeat(3, 1)  # three layers
    found = ladder_placed.step_s(counts, np.stack([home] * 3), 2)
    assert found == pytest.approx([3 * by_hand(TOGETHER, home), 3 * by_hand(APART, home)])


def test_a_row_per_checkpoint():
    table = ladder_placed.table(RESULTS)
    assert table.seed.tolist() == [1, 2] and table.scale.tolist() == [0.5, 0.5]
    assert table.bias_lost.tolist() == pytest.approx([0.002] * 2)
    order = np.arange(EXPERTS) // 2
    slow, even = by_hand(2 * TOGETHER, order), by_hand(2 * EVEN, order)
    assert table.in_order_us[0] == pytest.approx(1e6 * (even + 0.95 * (slow - even)))
    assert table.bias_us[0] == pytest.approx(1e6 * even)
    # packed by its own text no placement can be as even as even routes, yet better than in order
    assert table.bias_us[0] < table.same_us[0] < table.in_order_us[0]
    assert table.same[0] == pytest.approx(table.same_us[0] / table.bias_us[0] - 1)


def test_a_hypothesis_of_two_parts():
    found = ladder_summary.hypotheses(RESULTS)
    assert found.hypothesis.tolist() == ["H6a", "H6a"] and found.n.tolist() == [2, 2]
    verdicts = ladder_summary.verdicts(found, RESULTS)
    assert verdicts.hypothesis.tolist() == ["H6a"]
    # the bias makes these routes even, the placement cannot
    assert verdicts.verdict.tolist() == ["not supported"] and verdicts.p.item() > 0.9
    other = {
        name: own | {"placed": own["placed"] | {"biased": own["placed"]["native"]}}
        for name, own in RESULTS.items()
    }
    again = ladder_summary.verdicts(ladder_summary.hypotheses(other), other)
    assert again.verdict.tolist() == ["supported"]
