"""The race of the training loop against the Trainer, as read from what was measured."""

import numpy as np
import pytest

from lib import stats
from lib.balance import throughput


def test_the_ratio_is_taken_round_by_round(tmp_path):
    (tmp_path / "throughput.csv").write_text(
        "path,round,tokens_per_s,device\n"
        "this book,0,4000,abacus\nTrainer,0,1000,abacus\n"
        "Trainer,1,2000,abacus\nthis book,1,4000,abacus\n"
    )
    race = throughput.raced(tmp_path)
    assert (race.trainer_ratio, race.rate_book, race.rate_trainer) == (3.0, 4.0, 1.5)
    limits = (race.trainer_ratio_low, race.trainer_ratio_high)
    assert limits == pytest.approx(stats.mean_interval([4, 2]))
    assert throughput.device(tmp_path) == "abacus"
    assert throughput.files(tmp_path) == [tmp_path / "throughput.csv"]


def test_where_nothing_was_measured_numbers_are_missing(tmp_path):
    race = throughput.raced(tmp_path)
    assert np.isnan([race.trainer_ratio, race.trainer_ratio_low, race.rate_book]).all()
    assert throughput.device(tmp_path) == "no device yet"
    assert throughput.files(tmp_path) == [] and len(throughput.profile(tmp_path)) == 0


def test_the_profile_is_a_share_per_kind(tmp_path):
    (tmp_path / "profile.csv").write_text("kind,share,device\nattention,0.25,abacus\n")
    table = throughput.profile(tmp_path)
    assert table.to_dict("records") == [{"kind": "attention", "share": 0.25}]
