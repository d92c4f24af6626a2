"""What was declared of the number to watch, and what was decided: worked by hand."""

import numpy as np
import pandas as pd
import pytest

from lib.measure import elasticity, watching


def configurations(tokens, gain):
    """Configurations of three shapes whose own error is that much more than the rival's."""
    rows = [(s, t, 0.1 + gain, 0.1) for s in ("a", "b", "c") for t in tokens for _ in range(4)]
    return pd.DataFrame(rows, columns=["shape", "tokens", "own", "rival"])


def test_parts_are_judged_apart_by_clusters():
    rows = pd.concat([configurations((16, 64), 0.02), configurations((256, 1024, 4096), -0.05)])
    rows["own"] += np.random.default_rng(0).normal(0, 1e-4, len(rows))
    found = watching.judged(rows, "own", "rival", draws=200).set_index("part")
    assert found.clusters.to_dict() == dict(few=6, many=9)
    assert found.error_gain.to_dict() == pytest.approx(dict(few=0.02, many=-0.05), abs=1e-3)
    assert found.verdict.to_dict() == dict(few="not supported", many="supported")
    assert found.p["many"] < 1e-6 < found.p["few"]
    assert found.error_gain_low["few"] > 0 > found.error_gain_high["many"]


def test_a_hypothesis_of_two_parts_needs_both():
    parts = pd.DataFrame(
        [
            ("h4", "few", 0.5, "undecided"),
            ("h4", "many", 0.001, "supported"),
            ("h6b", "few", 0.01, "supported"),
            ("h6b", "many", 0.9, "not supported"),
        ],
        columns=["hypothesis", "part", "p", "verdict"],
    )
    told = watching.verdicts(parts)
    assert told.to_dict() == dict(h4="undecided", h4_p=0.5, h6b="supported", h6b_p=0.01)
    parts.loc[1, "verdict"] = "not supported"
    assert watching.verdicts(parts).h4 == "not supported"
    assert watching.verdicts(parts[:0]).h4 == "not measured"


def test_activated_experts_tell_what_rows_do_not():
    rows, active = np.meshgrid(2 ** np.arange(10), 2 ** np.arange(4))
    work = pd.DataFrame(dict(rows=rows.ravel(), active=active.ravel(), shape="olmoe"))
    work["part"] = np.where(np.log2(work.rows) % 2 == 0, "fit", "held_out")
    work["s"] = 1e-5 + 1e-6 * work.active + 1e-9 * work.rows
    found = watching.activated(work)
    few = found[found.tokens <= elasticity.FEW]
    assert few.by_both.max() < 1e-9 < few.by_rows.min()
    assert set(few.rows) == {2, 8, 32, 128, 512}


def test_the_dashboard_follows_the_errors():
    errors = pd.DataFrame(
        dict(
            when=["few", "many", "all"],
            by_rho=[0.2, 0.03, 0.1],
            by_gini=0.3,
            by_active=[0.01, 0.4, 0.2],
            by_tiles=[0.01, 0.02, 0.015],
        )
    )
    told = watching.dashboard(errors)
    tiles, active = watching.WORDS["by_tiles"], watching.WORDS["by_active"]
    # with few tokens both err alike: the one that is best of all batches is told
    assert told.watch_few == told.watch_many == told.watch_all == tiles
    assert told.watch == f"{tiles}; no other tells more"
    other = watching.dashboard(errors.assign(by_tiles=[0.05, 0.05, 0.05]))
    assert f"with few tokens {active} tells more" in other.watch
    assert f"with many tokens {watching.WORDS['by_rho']} tells more" in other.watch
    assert watching.dashboard(errors.assign(by_rho=np.nan)).isna().all()
