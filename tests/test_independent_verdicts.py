"""Every declared verdict from scripts that do not use the library, and what it hangs on."""

import independent_samples as samples
import independent_verdicts as own
import numpy as np
import pytest
import recomputed
from independent_headlines import ladder, published
from scipy.stats import t as student

MARGIN = 0.005


@pytest.fixture(scope="module")
def parts():
    return own.parts()


def verdict(row: dict, margin: float = 0.0, sign: int = 1) -> str:
    """Of a mean above the margin (sign −1: below its negative), by the interval that decides."""
    low, high = sorted((sign * row["low"], sign * row["high"]))
    return "supported" if low > margin else "not supported" if high < margin else "undecided"


def within(row: dict) -> str:
    """Of a mean within the margin: by two one-sided tests, or its interval beyond it."""
    if own.tail(row, MARGIN - abs(row["value"])) <= 0.05:
        return "supported"
    beyond = row["low"] > MARGIN or row["high"] < -MARGIN
    return "not supported" if beyond else "undecided"


def test_parts_and_their_intervals(parts):
    told = published("06")
    names = {name: name.removesuffix("_1.25") for name in parts}
    known = {name: told[of] for name, of in names.items() if of in told}
    assert len(known) == 6
    for name, of in known.items():
        row = parts[name]
        assert row["value"] == pytest.approx(of["value"], abs=1e-6), name
        assert (row["low"], row["high"]) == pytest.approx(of["interval"], abs=1e-5), name


def test_verdicts_holm_and_checkpoints(parts):
    told, p = published("06"), own.family(parts)
    for (name, _), adjusted in zip(p.items(), recomputed.holm([*p.values()]), strict=True):
        assert told[f"p_holm_{name}"]["value"] == pytest.approx(adjusted, rel=1e-3), name
        models = 0 if name in ("H4", "H6b") else len(own.SEEDS)
        assert told[f"checkpoints_{name}"]["value"] == models
    assert told["H1"]["value"] == verdict(parts["phi"], 0.5)
    drop = {verdict(row) for name, row in parts.items() if name.startswith("drop")}
    assert drop == {told["H2a"]["value"]} == {"not supported"}
    assert told["H2b"]["value"] == verdict(parts["bias_over_rival"], sign=-1)
    assert within(parts["entropy_over_switch"]) == "supported"
    assert told["H3"]["value"] == within(parts["gini_over_switch"]) == "not supported"
    ends = [told[f"placed_{text}"]["interval"] for text in ("same", "other")]
    assert all(low < 0 < high for low, high in ends) and told["H6a"]["value"] == "undecided"


def test_in_every_model_dropping_costs_less_and_the_bias_more_than_its_rival():
    """A sign in eight of eight has p = 1/128: these two need no interval."""
    none = [ladder()["none", seed] for seed in own.SEEDS]
    for gamma in (1.0, 1.25, 1.5):
        ways = [{"family": f, "gamma": gamma, "policy": "native"} for f in ("drop", "reroute")]
        assert max(own.above(row, *ways)[0] for row in none) < 0
    assert min(own.bias_over_rival(row)[0][0] for row in none) > 0


@pytest.mark.parametrize("balance", [own.violation, own.evenness])
def test_what_h3_hangs_on(balance):
    """Entropy is Switch however a curve is read; what Gini costs is read far from its points, and
    a parabola instead of straight lines leaves it undecided.
    """
    for way in (own.line, own.parabola):
        assert within(own.above_switch("entropy", balance, way)) == "supported"
    assert within(own.above_switch("gini", balance)) == "not supported"
    assert within(own.above_switch("gini", balance, own.parabola)) == "undecided"


def test_a_gain_differs_more_between_pairs_than_between_documents():
    """So the interval of a single pair, which covers its documents, says little of other pairs."""
    each = own.gains()
    over_pairs = np.std([row[0] for row in each.values()], ddof=1)
    of_one = [own.interval([row])["error"] for row in each.values()]
    assert over_pairs > 2 * np.mean(of_one)
    for end, name in (("smallest", "size-4m"), ("largest", "size-715m")):
        found = [row[0] for row in own.gains(f"{name}-none", f"{name}-switch").values()]
        assert published("06")[f"gain_{end}"]["value"] == pytest.approx(np.mean(found), abs=1e-6)


def test_where_a_gain_falls_with_size_is_told_by_pairs():
    """Welch's interval by hand: from 4 to 7.8 million it falls, from there to 113 undecided."""
    each = [
        np.array([row[0] for row in own.gains(f"{size}none", f"{size}switch").values()])
        for size in ("size-4m-", "", "size-113m-")
    ]
    for part, a, b in zip(("8m", "113m"), each, each[1:], strict=False):
        squared = [x.var(ddof=1) / len(x) for x in (a, b)]
        freedom = sum(squared) ** 2 / sum(
            s**2 / (len(x) - 1) for s, x in zip(squared, (a, b), strict=True)
        )
        half = student.ppf(0.975, freedom) * sum(squared) ** 0.5
        told, more = published("06")[f"more_{part}"], a.mean() - b.mean()
        assert told["value"] == pytest.approx(more, abs=1e-6)
        assert told["interval"] == pytest.approx([more - half, more + half], abs=1e-6)
    assert published("06")["more_8m"]["interval"][0] > 0 > told["interval"][0]


def test_the_shapes_that_show_the_price_again():
    """Two of four reach what was asked; of two, one pair each does not tell on which side."""
    asked, rows = own.transfer()
    assert sum(row["value"] >= asked for row in rows.values()) == 2
    assert published("06")["found_again"]["value"] == 2
    assert min(row["low"] for row in rows.values()) > 0
    unsure = [shape for shape, row in rows.items() if row["low"] < asked < row["high"]]
    assert unsure == ["32-4", "64-8"]


def test_settings_are_settings():
    names = {"02": ["gamma"], "03": ["margin"], "04": ["devices", "step_level"]}
    for of, own_names in (names | {"01": ["k", "experts"], "06": ["stage_devices"]}).items():
        for name in own_names:
            assert published(of)[name]["kind"] == "setting", name


@pytest.mark.parametrize("arm", ["without", "with"])
def test_from_how_many_documents_a_profile_is_settled(arm):
    told = published("01")
    for name, shares in samples.near(arm, 150).items():
        words = told[f"settled_{name}_{arm}"]["value"]
        most = samples.SIZES[-1]
        can = {samples.settled(shares, 0.95 + apart) for apart in (-0.03, 0.0, 0.03)}
        assert words in {f"{n:,}" if n else f"more than {most}" for n in can}, name


def test_domains_are_less_even_than_clusters_dealt_at_random():
    """Any part of a text is less even than the whole; domains are beyond that."""
    for arm in ("without", "with"):
        inside, null = samples.inside_domains(arm, 100)
        assert published("01")[f"gini_domain_{arm}"]["value"] == pytest.approx(inside)
        assert published("01")[f"gini_{arm}"]["value"] < null.min() < null.max() < inside


def test_the_draw_of_serving_batches_moves_a_percentile():
    told, drawn = published("03"), samples.violations("without", 30)
    spread = drawn.std(ddof=1)
    assert told["draw_least"]["value"] < drawn.mean() < told["draw_most"]["value"]
    assert 0.5 < told["drawn"]["value"] / spread < 1.5  # of nine draws
    over_seeds = told["drawn"]["value"] / told["over_seeds"]["value"]
    assert spread > 3 * over_seeds


def test_what_a_placement_keeps_on_another_text():
    for arm, name in (("without", "none"), ("with", "switch")):
        kept = np.mean([samples.kept(ladder()[name, seed]) for seed in own.SEEDS])
        assert published("06")[f"kept_{arm}"]["value"] == pytest.approx(kept, abs=0.02)
    told = {"sft": "tuned", "dpo": "preferred", "text": "text"}
    for way, copies in (("packed", 0), ("copied", samples.DEVICES)):
        for stage, kept in samples.stages(copies).items():
            known = published("06")[f"{way}_kept_{told[stage]}"]["value"]
            assert known == pytest.approx(kept, abs=0.04)
