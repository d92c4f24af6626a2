"""What imbalance costs: how much longer a step takes, the more the busiest device gets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import stats

CALM = 0.1  # elasticity below which imbalance is said not to matter
SEEN = 0.05  # slowdown from which its own error is told
BAR = 0.08  # within which the declared bar wants every β
MANY = 1024  # tokens of one device from which β is validated
FEWEST = 4  # draws of routes from which a case's β has an interval
FEW, MANY_TOKENS = 64, 256  # tokens of one device of the two regimes of what to watch
WATCHED = dict(by_rho="rho", by_gini="gini", by_active="rank_active", by_tiles="rank_tile_rows")
KEYS = ["machine", "shape", "tokens"]  # layers of one straight line
TABLE = [*KEYS, "n", "rho_most", "t0_us", "beta", "beta_low", "beta_high"]
TABLE += ["beta_arithmetic", "beta_wire"]
COMPARED = [
    *KEYS,
    "placement",
    "n",
    "beta",
    "beta_low",
    "beta_high",
    "beta_predicted",
    "beta_difference",
]
COMPARED += ["arithmetic_difference", "time_error", "slowdown_error"]
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
        low, high = _interval(own, draws)
        arithmetic = np.polyfit(own.rho - 1, own.compute_s, 1)[0] / base
        most, time = own.rho.max(), 1e6 * base
        found.append((*names, len(own), most, time, beta, low, high, arithmetic, beta - arithmetic))
    return pd.DataFrame(found, columns=TABLE)


def simulated(drawn: pd.DataFrame, draws: int) -> pd.DataFrame:
    """`table` of simulated layers per number of devices: drawn has the columns shape, tokens,
    devices, fabric (in place of a machine), level, seed, rho, s and arithmetic, seconds of the
    slowest device.
    """
    known = drawn.rename(columns={"fabric": "machine", "arithmetic": "compute_s"})
    parts = known.assign(routes="level").groupby("devices")
    found = {devices: table(own, draws=draws) for devices, own in parts}
    whole = pd.concat(found, names=["devices"]).reset_index("devices")
    return whole.rename(columns={"machine": "fabric"}).sort_values(["shape", "devices", "tokens"])


def _interval(own: pd.DataFrame, draws: int, least: int = stats.CLUSTERS) -> tuple[float, float]:
    """The 95 % interval of β over draws of routes: bootstrap, or from `least` draws on, where there
    are too few for that, the jackknife.
    """
    drawn, data = own.level.astype(str) + "/" + own.seed.astype(str), own[["rho", "s"]].to_numpy()
    if drawn.nunique() >= stats.CLUSTERS:
        edges = stats.bootstrap_interval(data, _beta, clusters=drawn, draws=draws)
    else:
        edges = stats.jackknife_interval(data, drawn.to_numpy(), _beta, least=least)
    return edges or (np.nan, np.nan)


def _beta(data: np.ndarray) -> float:
    return fit(data[:, 0], data[:, 1])[1] if np.ptp(data[:, 0]) > 0 else 0.0


def last(slopes: pd.DataFrame) -> pd.Series:
    """Of `table`, β of each shape at its most tokens."""
    return slopes.groupby("shape").beta.last()


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


def compared(rows: pd.DataFrame, draws: int = 1000) -> pd.DataFrame:
    """β predicted beside β measured, a row per machine, shape, tokens and placement of layers with
    s and predicted_s: columns n, beta with its interval (as in `table`; of fewer than 8 draws of
    routes by leaving out one at a time, Student's t), beta_predicted and beta_difference, of it
    arithmetic_difference, the experts' part; time_error, the median error of the time;
    slowdown_error, that of the slowdown where it exceeds SEEN (NaN where none does).

    A slowdown is taken over even routes in whole rows where they were measured, else over the
    line's intercept; the prediction's over its own.
    """
    found = []
    even = rows[rows.routes == "even"].set_index(KEYS)
    for names, own in rows[rows.routes == "level"].groupby([*KEYS, "placement"]):
        if len(own) < 3 or np.ptp(own.rho) == 0:
            continue
        (base, beta), (base_p, beta_p) = (fit(own.rho, own[x]) for x in ("s", "predicted_s"))
        fitted = base, base_p
        if names[:3] in even.index:
            base, base_p = even.loc[names[:3], ["s", "predicted_s"]].to_numpy(float).reshape(-1)
        slow, told = own.s / base - 1, own.predicted_s / base_p - 1
        missed = (told / slow - 1).abs()[slow > SEEN].median()
        late = (own.predicted_s / own.s - 1).abs().median()
        parts = (np.polyfit(own.rho - 1, own[x], 1)[0] for x in ("compute_s", "expert_s"))
        seen, told = (part / of for part, of in zip(parts, fitted, strict=True))
        told_beta = beta, *_interval(own, draws, least=FEWEST), beta_p, beta_p - beta, told - seen
        found.append((*names, len(own), *told_beta, late, missed))
    return pd.DataFrame(found, columns=COMPARED)


def apart(table: pd.DataFrame, judge: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of `compared`, from MANY tokens a device on, the cases of the machine that judges, and those
    of all others.
    """
    own = table[table.tokens >= MANY]
    here = own.machine == judge
    return own[here].drop(columns="machine"), own[~here].drop(columns="placement")


def cost_errors(table: pd.DataFrame, at_least: int = MANY) -> pd.Series:
    """Of `compared`, from `at_least` tokens a device on: cases, how many of them lie within BAR
    (beta_within), the most that β is off (beta_off), of which the experts make up beta_experts, and
    the medians over cases of the errors of the slowdown (slow_off) and the time (time_off);
    beta_where, the case of beta_off in words, beta_others, those else beyond BAR.
    """
    own = table[table.tokens >= at_least]
    lacks = ["beta_off", "beta_experts", "slow_off", "time_off"]
    if own.empty:
        none = dict.fromkeys(lacks, np.nan) | dict.fromkeys(["beta_where", "beta_others"], "none")
        return pd.Series(dict(cases=0, beta_within=0) | none, dtype=object)
    off = own.beta_difference.abs()
    top, others = own.loc[off.idxmax()], own[(off > BAR) & (off < off.max())]
    found = dict(cases=len(own), beta_within=int((off <= BAR).sum()), beta_off=off.max())
    found |= dict(beta_experts=abs(top.arithmetic_difference))
    found |= dict(slow_off=own.slowdown_error.median(), time_off=own.time_error.median())
    words = "; ".join(map(case, others.to_dict("records"))) or "none"
    return pd.Series(found | dict(beta_where=case(top.to_dict()), beta_others=words), dtype=object)


def case(row: dict) -> str:
    shape = NAMES.get(row["shape"], row["shape"])
    return f"{shape} at {row['tokens']} tokens, {row.get('placement', 'aimed')}"


def rivals(rows: pd.DataFrame) -> pd.DataFrame:
    """Held-out relative errors of straight lines in each of WATCHED, per machine, shape and batch,
    fitted on the first draw of routes (seed 0) and tested on the second: the configurations tested,
    with columns by_rho, by_gini, by_active and by_tiles.
    """
    columns = [*KEYS, "level", "rho", "gini", "s", *WATCHED]
    found = []
    for _, own in rows[rows.routes == "level"].groupby(KEYS):
        known, test = own[own.seed == 0], own[own.seed == 1]
        if len(known) < 4 or test.empty:
            continue
        missed = {}
        for name, column in WATCHED.items():
            line = np.polyfit(known[column], known.s, int(known[column].nunique() > 1))
            missed[name] = np.abs(np.polyval(line, test[column]) / test.s - 1)
        found.append(test.assign(**missed)[columns])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def watched(tested: pd.DataFrame) -> pd.DataFrame:
    """Of `rivals`, the mean error of each number at few (≤ FEW), many (≥ MANY_TOKENS) and any
    number of tokens a device: columns when and those of WATCHED.
    """
    parts = {
        "few": tested[tested.tokens <= FEW],
        "many": tested[tested.tokens >= MANY_TOKENS],
        "all": tested,
    }
    rows = [dict(when=when, **own[list(WATCHED)].mean()) for when, own in parts.items()]
    return pd.DataFrame(rows)


def balanced(table: pd.DataFrame, machine: str, arms: tuple[str, str]) -> pd.DataFrame:
    """Of `recorded`, the layer's time with the routes of the second arm over that with the first's,
    on one machine: columns size (few, some, many), recorded_tokens and balanced; NaN where it was
    not measured.
    """
    own = table[table.machine == machine].pivot(index="tokens", columns="arm", values="time_us")
    own = own.reindex(columns=list(arms)).reset_index()
    found = pd.DataFrame(dict(recorded_tokens=own.tokens, balanced=own[arms[1]] / own[arms[0]]))
    return found.reindex(range(3)).astype(float).assign(size=["few", "some", "many"])


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
