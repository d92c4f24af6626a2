"""Reading a curve off between its points, in three ways, since what is read depends on the way.

Each takes x [points], y [points, values] and the x `at` which to read, and gives [values]; NaN
beyond the ends, never extrapolated.  Points of one x count as their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import PchipInterpolator


def _points(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points by rising x, each x once."""
    at, place, size = np.unique(x, return_inverse=True, return_counts=True)
    sums = np.zeros((len(at), y.shape[1]))
    np.add.at(sums, place, y)
    return at, sums / size[:, None]


def straight(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """On straight lines between neighbours."""
    x, y = _points(x, y)
    if not x[0] <= at <= x[-1]:
        return np.full(y.shape[1], np.nan)
    share = np.interp(at, x, np.arange(len(x)))
    low = min(int(share), max(len(x) - 2, 0))
    return y[low] + (share - low) * (y[min(low + 1, len(x) - 1)] - y[low])


def cubic(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """On the monotone cubic of Fritsch and Butland through all points (SciPy's PCHIP)."""
    x, y = _points(x, y)
    if len(x) < 3 or not x[0] <= at <= x[-1]:
        return straight(x, y, at)
    return np.asarray(PchipInterpolator(x, y)(at))


def quadratic(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    """On the parabola through the three points that are nearest in x (Lagrange); NaN where it
    leaves their range, in the first of the values: that is an overshoot, no reading.
    """
    x, y = _points(x, y)
    if len(x) < 3 or not x[0] <= at <= x[-1]:
        return straight(x, y, at)
    near = np.argsort(abs(x - at), kind="stable")[:3]
    a, b, c = x[near]
    weights = np.array(
        [
            (at - b) * (at - c) / ((a - b) * (a - c)),
            (at - a) * (at - c) / ((b - a) * (b - c)),
            (at - a) * (at - b) / ((c - a) * (c - b)),
        ]
    )
    read, own = weights @ y[near], y[near, 0]
    return read if own.min() <= read[0] <= own.max() else np.full(y.shape[1], np.nan)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "straight lines": straight,
    "monotone cubic": cubic,
    "local parabola": quadratic,
}
