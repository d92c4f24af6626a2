"""How far the draw of serving batches alone moves a checkpoint's 95th percentile of MaxVio."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.balance import runs, setup, worth
from lib.balance.study import Job, Study
from lib.model import load


def start(study: Study, result: Mapping) -> list[float]:
    """max_violation (mean over layers) of the checkpoint that a study starts from, over draws of
    the serving batches: what its record holds, or else evaluated again here, once.
    """
    known = result["held_out"].get("draws", [])
    if known:
        return known
    where = load.device(study.device)
    model = setup.opened(study, where)[0]
    options = dict(serving_tokens=study.batch_tokens, seed=study.seed)
    return worth.of(model, setup.held_out(study), **options)["draws"]


def told(draws: list[float], results: Mapping[Job, dict]) -> pd.Series:
    """draws; draw_least, draw_most: their range; drawn: their standard deviation, and over_seeds,
    how many times that of max_violation over the seeds of training without a loss it is (NaN of
    fewer than two); recorded: in how many runs it is known.  Where all draws are the same, they and
    what is told of them are NaN, and one_batch says why.
    """
    table = runs.table(results)
    free = table.max_violation[table.loss == "none"]
    alike = float(np.ptp(draws)) == 0
    spread = np.nan if alike else float(np.std(draws, ddof=1))
    return pd.Series(
        dict(
            draws=len(draws),
            draw_least=np.nan if alike else min(draws),
            draw_most=np.nan if alike else max(draws),
            drawn=spread,
            over_seeds=spread / free.std(ddof=1) if len(free) > 1 else np.nan,
            recorded=int(table.drawn[table.loss != "start"].notna().sum()),
            one_batch="is no longer than one serving batch" if alike else np.nan,
        ),
        dtype=object,
    )
