"""What imbalance costs: how much longer a step takes, the more the busiest device gets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats


def fit(rho: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """(T₀, β) of T = T₀ (1 + β (ρ − 1)) by least squares: β = 0 says that imbalance does not
    matter, 1 that time follows the busiest device.  Refused: fewer than 3 points, or no two
    different ρ.
    """
    if len(rho) < 3 or np.ptp(rho) == 0:
        raise ValueError(
            f"elasticity.fit: {len(rho)} points, ρ over {np.ptp(rho) if len(rho) else 0}: must be ≥ 3 points and > 0"
        )
    slope, base = np.polyfit(np.asarray(rho) - 1, seconds, 1)
    return float(base), float(slope / base)


def table(rows: pd.DataFrame, draws: int = 1000) -> pd.DataFrame:
    """Per machine, shape and batch of layers at controlled ρ: T₀, β with its 95 % interval
    (bootstrap over draws of routes), and β's parts, arithmetic (the slowest rank's experts) and
    wire (the rest), which add up to it.
    """
    found = []
    for (machine, shape, tokens), own in rows[rows.routes == "level"].groupby(
        ["machine", "shape", "tokens"]
    ):
        if len(own) < 3 or np.ptp(own.rho) == 0:
            continue
        base, beta = fit(own.rho, own.s)
        data = np.column_stack([own.rho, own.s])
        edges = stats.bootstrap_interval(
            data, _beta, clusters=own.level.astype(str) + "/" + own.seed.astype(str), draws=draws
        )
        arithmetic = np.polyfit(own.rho - 1, own.compute_s, 1)[0] / base
        low, high = edges or (np.nan, np.nan)
        found.append(
            dict(
                machine=machine,
                shape=shape,
                tokens=tokens,
                n=len(own),
                rho_most=own.rho.max(),
                t0_us=1e6 * base,
                beta=beta,
                low=low,
                high=high,
                beta_arithmetic=arithmetic,
                beta_wire=beta - arithmetic,
            )
        )
    return pd.DataFrame(found)


def _beta(data: np.ndarray) -> float:
    return fit(data[:, 0], data[:, 1])[1] if np.ptp(data[:, 0]) > 0 else 0.0


def rivals(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out relative errors of T(ρ) and T(Gini), straight lines per machine, shape and batch,
    fitted on the first draw of routes (seed 0) and tested on the second: the configurations tested,
    with columns by_rho and by_gini.
    """
    found = []
    for _, own in rows[rows.routes == "level"].groupby(["machine", "shape", "tokens"]):
        known, test = own[own.seed == 0], own[own.seed == 1]
        if len(known) < 4 or test.empty:
            continue
        tested = test[["machine", "shape", "tokens", "level", "rho", "gini", "s"]].copy()
        for name in ("rho", "gini"):
            line = np.polyfit(known[name], known.s, 1)
            tested[f"by_{name}"] = np.abs(np.polyval(line, test[name]) / test.s - 1)
        found.append(tested)
    return (
        pd.concat(found, ignore_index=True)
        if found
        else pd.DataFrame(columns=["machine", "shape", "tokens", "by_rho", "by_gini"])
    )
