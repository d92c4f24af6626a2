"""Imbalance metrics over the expert axis."""

from __future__ import annotations

import numpy as np


def gini(load: np.ndarray, axis: int = -1) -> np.ndarray:
    """Gini coefficient of the load along `axis`: Σ (2i − E − 1) x_(i) / (E Σ x); 0 is even, 1 − 1/E one expert."""
    load = np.sort(np.moveaxis(np.asarray(load, dtype=float), axis, -1), axis=-1)
    experts = load.shape[-1]
    weights = 2 * np.arange(1, experts + 1) - experts - 1
    return (weights * load).sum(-1) / (experts * load.sum(-1))
