"""Skew and placement beside serving engines: draws, loads and times worked by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lib.measure import others
from lib.network import cost

FITS = {  # a start of 1 ms, 1 ms for each active expert of one megabyte, no arithmetic to speak of
    "experts of any shape": SimpleNamespace(
        parameters=dict(start_s=1e-3, memory_bytes_per_s=1e9, flop_per_s=1e30, join=1.0)
    )
}
SMALL = cost.Shape(1000, 500, 4, 2)  # 3 MB an expert


@pytest.mark.parametrize("tokens", [1, 7, 64, 4096])
@pytest.mark.parametrize("alpha", [1.01, 1.2])
def test_drawn_loads_add_up_and_no_token_chooses_an_expert_twice(tokens, alpha):
    load = others.drawn(tokens, 32, 4, alpha, 50, np.random.default_rng(0))
    assert (load.sum(1) == 4 * tokens).all() and load.min() >= 0 and load.max() <= tokens


def test_drawn_loads_are_of_the_power_law():
    """Before rounding a load's logarithm is nearly uniform at α = 1: its median is √(.8 tokens)."""
    tokens = 1 << 16
    load = others.drawn(tokens, 256, 8, 1.01, 400, np.random.default_rng(1))
    share = load / load.mean()
    mean = (0.8 * tokens - 1) / np.log(0.8 * tokens)  # of 1/x on [1, .8 tokens]
    assert np.median(share) == pytest.approx(np.sqrt(0.8 * tokens) / mean, rel=0.1)
    steeper = others.drawn(tokens, 256, 8, 1.2, 400, np.random.default_rng(1))
    assert np.median(steeper) < np.median(load)


def test_balanced_loads_are_shared_among_devices():
    assert others.balanced(16, 8, 2, 4).tolist() == [[4, 4]]
    assert others.balanced(3, 8, 2, 2).tolist() == [[1, 1, 1, 0]]  # experts 0, 2, 4 and 6


def test_the_busiest_group_is_the_one_with_most_tokens():
    load = np.array([[1, 1, 5, 0], [4, 4, 5, 0]])
    assert others.busiest(load, 2).tolist() == [[5, 0], [4, 4]]


def test_times_read_active_experts_and_half_of_them_at_a_byte():
    p = FITS["experts of any shape"].parameters
    load = np.array([[3, 0], [1, 9]])
    assert others.seconds(p, SMALL, load, 2) == pytest.approx([4e-3, 7e-3])
    assert others.seconds(p, SMALL, load, 1) == pytest.approx([2.5e-3, 4e-3])


def test_a_shape_that_was_measured_has_its_own_parameters():
    own = {**FITS, "experts of mixtral (m)": SimpleNamespace(parameters="own")}
    assert others.parameters(own, "m", "Mixtral-8x7B") == "own"
    assert others.parameters(own, "other", "Mixtral-8x7B") != "own"


def test_copies_take_their_share_and_packing_evens_out():
    load = np.array([8, 0, 0, 0])
    assert others._rearranged(load, 2, 0).sum() == 8  # no copy: one device keeps it all
    assert others._rearranged(load, 2, 4).sum() < 8
    assert others._rearranged(np.array([4, 4, 1, 1]), 2, 0).tolist() in ([4, 1], [1, 4])


def test_errors_and_bands_are_those_of_the_slowdown():
    rows = [("vLLM 0", "k", 2, "Mixtral-8x7B", 8, tokens, 1.2, 1.0) for tokens in (2, 4096)]
    names = ["engine", "kernel", "bytes", "shape", "devices", "tokens", "alpha", "theirs"]
    found = others.skewed(pd.DataFrame(rows, columns=names), FITS, "m", 20, 0)
    assert (found.ours == 1).all() and (found.error == 0).all() and found.within.all()
    told = others.told(found, ["batch"])
    assert told.batch.tolist() == ["few", "many"] and told.off.tolist() == [0, 0]


def test_two_engines_are_apart_by_a_factor():
    rows = [(e, "s", 8, 4096, 1.2, x) for e, x in (("a", 1.2), ("b", 2.4))]
    rows += [("a", "s", 8, 16, 1.2, 1.0)]  # no other has this case
    names = ["engine", "shape", "devices", "tokens", "alpha", "theirs"]
    (found,) = others.apart(pd.DataFrame(rows, columns=names)).to_dict("records")
    assert found == dict(batch="many", cases=1, kernels=2.0, kernels_p95=2.0)


def test_what_others_published_is_told_apart_from_what_is_simulated():
    of = ["theirs", "off", "lean", "kernels", "kernels_p95", "ours"]
    numbers = pd.DataFrame(dict(which="many", of=of, value=1.0))
    parts = {kind: rows.of.tolist() for kind, rows in others.kinds(numbers)}
    assert parts["published"] == ["theirs", "kernels", "kernels_p95"]
    assert parts["simulated"] == ["off", "lean", "ours"]


def test_the_published_tables_are_whole():
    skew = pd.read_csv(ROOT / "data/published/kernel_skew.csv.xz")
    gains = pd.read_csv(ROOT / "data/published/placement_gains.csv.xz")
    assert set(skew["shape"]) == set(others.SHAPES) and set(skew.alpha) == {1.01, 1.2}
    assert (skew.theirs > 0).all() and (gains.theirs > 0).all()
    keys = ["hidden", "experts", "slots", "devices", "tokens", "alpha"]
    assert not gains.duplicated(keys).any()
    # at hidden 7168 on 32 devices and 16,384 tokens: 1.45 → .78 ms, 2.05 → 1.81, with spares .77
    told = others.sentences(gains.assign(ours=1.0, ours_low=1.0, ours_high=1.0))
    known = told[told.devices == 32].set_index(["alpha", "slots"])
    after = (known.before_ms * known.theirs).to_dict()
    wanted = {(1.01, 256): 0.78, (1.2, 256): 1.81, (1.01, 288): 0.76, (1.2, 288): 0.77}
    assert after == pytest.approx(wanted, abs=0.01)
