"""What imbalance costs: how much longer a step takes, the more the busiest device gets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats

CALM = 0.1  # elasticity below which imbalance is said not to matter
KEYS = ["machine", "shape", "tokens"]  # layers of one straight line
TABLE = [*KEYS, "n", "rho_most", "t0_us", "beta", "beta_low", "beta_high"]
TABLE += ["beta_arithmetic", "beta_wire"]
NAMES = {"olmoe": "OLMoE", "mixtral": "Mixtral", "qwen3": "Qwen3"}


def fit(rho: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """(T₀, β) of T = T₀ (1 + β (ρ − 1)) by least squares: β = 0 says that imbalance does not
    matter, 1 that time follows the busiest device.  Refused: fewer than 3 points, or no two
    different ρ.
    """
    spread = np.ptp(rho) if len(rho) else 0
    if len(rho) < 3 or spread == 0:
        raise ValueError(
            f"elasticity.fit: {len(rho)} points, ρ over {spread}: must be ≥ 3 points and > 0"
        )
    x, y = np.asarray(rho, dtype=float) - 1, np.asarray(seconds, dtype=float)
    away = x - x.mean()
    slope = away @ y / (away @ away)
    base = y.mean() - slope * x.mean()
    return float(base), float(slope / base)


def table(rows: pd.DataFrame, draws: int = 1000) -> pd.DataFrame:
    """Per machine, shape and batch of layers at controlled ρ: n layers, their highest ρ, T₀ in µs,
    β with its 95 % interval (bootstrap over draws of routes; NaN below 8), and β's parts,
    arithmetic (the slowest rank's experts) and wire (the rest), which add up to it.
    """
    found = []
    for names, own in rows[rows.routes == "level"].groupby(KEYS):
        if len(own) < 3 or np.ptp(own.rho) == 0:
            continue
        base, beta = fit(own.rho, own.s)
        drawn = own.level.astype(str) + "/" + own.seed.astype(str)
        edges = stats.bootstrap_interval(own[["rho", "s"]], _beta, clusters=drawn, draws=draws)
        low, high = edges or (np.nan, np.nan)
        arithmetic = np.polyfit(own.rho - 1, own.compute_s, 1)[0] / base
        most, time = own.rho.max(), 1e6 * base
        found.append((*names, len(own), most, time, beta, low, high, arithmetic, beta - arithmetic))
    return pd.DataFrame(found, columns=TABLE)


def _beta(data: np.ndarray) -> float:
    return fit(data[:, 0], data[:, 1])[1] if np.ptp(data[:, 0]) > 0 else 0.0


def most(slopes: pd.DataFrame, machine: str) -> pd.Series:
    """The highest β of a machine in `table` as beta_most, beta_most_arithmetic and rho_most, and
    the slowdown β (ρ − 1) that its highest ρ brings, slowdown_most; _low and _high are the ends of
    intervals.  NaN where the machine has no row.
    """
    own, none = slopes[slopes.machine == machine], pd.Series(np.nan, index=TABLE)
    top = own.loc[own.beta.astype(float).idxmax()] if len(own) else none
    betas = {end: top[f"beta{end}"] for end in ("", "_low", "_high")}
    found = {f"beta_most{end}": beta for end, beta in betas.items()}
    found |= {"beta_most_arithmetic": top.beta_arithmetic, "rho_most": top.rho_most}
    found |= {f"slowdown_most{end}": beta * (top.rho_most - 1) for end, beta in betas.items()}
    return pd.Series(found, dtype=float)


def calm(slopes: pd.DataFrame, machine: str, below: float = CALM) -> str:
    """Where imbalance does not matter, in words: shapes and batches of a machine in `table` whose
    interval of β ends below a bound.
    """
    own = slopes[slopes.machine == machine]
    parts = [
        f"{NAMES.get(shape, shape)} at {', '.join(map(str, part.tokens))} tokens per device"
        for shape, part in own[own.beta_high < below].groupby("shape")
    ]
    return "; ".join(parts) or ("nowhere" if len(own) else "not measured")


def recorded(rows: pd.DataFrame) -> pd.DataFrame:
    """Layers under recorded routes, mean over the layers of a trace: columns machine, arm (the
    trace), tokens, rho, gini, time_us and, of it, arithmetic_us.
    """
    real = rows[~rows.routes.isin(["level", "even"])]
    real = real.assign(
        arm=real.routes.str.rsplit("_", n=1).str[0],
        time_us=1e6 * real.s,
        arithmetic_us=1e6 * real.compute_s,
    )
    numbers = ["rho", "gini", "time_us", "arithmetic_us"]
    return real.groupby(["machine", "arm", "tokens"])[numbers].mean().reset_index()


def rivals(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out relative errors of T(ρ) and T(Gini), straight lines per machine, shape and batch,
    fitted on the first draw of routes (seed 0) and tested on the second: the configurations tested,
    with columns by_rho and by_gini.
    """
    columns = [*KEYS, "level", "rho", "gini", "s", "by_rho", "by_gini"]
    found = []
    for _, own in rows[rows.routes == "level"].groupby(KEYS):
        known, test = own[own.seed == 0], own[own.seed == 1]
        if len(known) < 4 or test.empty:
            continue
        lines = {name: np.polyfit(known[name], known.s, 1) for name in ("rho", "gini")}
        missed = {
            f"by_{name}": np.abs(np.polyval(line, test[name]) / test.s - 1)
            for name, line in lines.items()
        }
        found.append(test.assign(**missed)[columns])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def judged(tested: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.Series:
    """Which of the `rivals` errs less: configurations, the mean errors error_rho and error_gini,
    and their difference, ρ's less the Gini's, with its 95 % interval difference_low, _high
    (bootstrap over configurations).  NaN below 8 configurations.
    """
    pairs = tested[["by_rho", "by_gini"]].to_numpy(dtype=float)
    if len(pairs) < stats.CLUSTERS:
        pairs = np.full((1, 2), np.nan)
    gain = pairs[:, 0] - pairs[:, 1]
    low, high = stats.bootstrap_interval(gain, np.mean, draws=draws, seed=seed) or (np.nan, np.nan)
    rho, gini = pairs.mean(0)
    found = dict(configurations=len(tested), error_rho=rho, error_gini=gini)
    return pd.Series(found | dict(difference=gain.mean(), difference_low=low, difference_high=high))
