"""Means over seeds of values that also rest on clusters of documents, with intervals over both.

Values are [seeds, 1 + clusters]: of each seed the value on all documents, then without the
documents of one cluster at a time.  Seeds and clusters are crossed, as all seeds are judged on the
same documents; their errors are added, which counts what is peculiar to a seed and a cluster twice
and so errs on the wide side.
"""

from __future__ import annotations

import numpy as np
import scipy

from lib import stats


def error(values: np.ndarray) -> tuple[float, float]:
    """(standard error of the mean over seeds, degrees of freedom): the root of the sum of s²/n over
    n seeds and of the delete-one-cluster jackknife, (m − 1)/m Σ (θ_−c − θ̄)², of that mean; degrees
    by Welch and Satterthwaite.

    NaN below two seeds or `stats.CLUSTERS` clusters, of which one has no interval.
    """
    seeds, clusters = len(values), values.shape[1] - 1
    if seeds < 2 or clusters < stats.CLUSTERS:
        return np.nan, np.nan
    left = values[:, 1:].mean(0)
    parts = np.array(
        [values[:, 0].var(ddof=1) / seeds, (clusters - 1) * np.square(left - left.mean()).mean()]
    )
    total = parts.sum()
    weights = (parts**2 / [seeds - 1, clusters - 1]).sum()
    freedom = total**2 / weights if weights else np.inf
    return float(np.sqrt(total)), float(freedom)


def mean(values: np.ndarray, name: str) -> dict[str, float]:
    """{name: mean over seeds on all documents, <name>_low and <name>_high: its 95 % interval over
    seeds and clusters}; NaN where there is none.
    """
    middle = float(values[:, 0].mean()) if len(values) else np.nan
    deviation, freedom = error(values)
    known = np.isfinite(deviation)
    half = scipy.stats.t.ppf(0.975, freedom) * deviation if known else np.nan
    return {name: middle, f"{name}_low": middle - half, f"{name}_high": middle + half}


def equivalence_p(values: np.ndarray, margin: float) -> float:
    """p-value of two one-sided t-tests that the mean lies within ± margin, with the error over
    seeds and clusters; NaN where there is none.
    """
    deviation, freedom = error(values)
    if not np.isfinite(deviation):
        return np.nan
    spread = max(deviation, np.finfo(float).tiny)
    return float(scipy.stats.t.sf((margin - abs(values[:, 0].mean())) / spread, freedom))
