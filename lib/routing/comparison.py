"""What other assignments cost, compared: with the native choice, with each other, and at equal
balance.

The tables compared have a row per run and document, as `lib.routing.study.measured` makes them.
Everything is paired by document and told per token, in nats, as a ratio of perplexities, or in
points of accuracy; the unit of resampling is the cluster.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from lib import stats

# columns of a run that are the same in all its rows
OF_RUN = [
    *("arm", "protocol", "setting", "family", "policy", "authors"),
    *("size", "layer", "causal", "gamma"),
    *("p95", "gini", "churn", "kept", "dropped"),
]
LEVEL = ["arm", "family", "between", "cluster", "validation", "nats", "tokens"]


def only(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows whose columns hold what is wanted of them, a value or one of a list."""
    for name, value in wanted.items():
        table = table[table[name].isin(value if isinstance(value, list) else [value])]
    return table


def difference(table: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    """[documents, 2]: nats over those of `base`, and tokens; the rows of both tables are the same
    documents.
    """
    if table.name.tolist() != base.name.tolist():
        raise ValueError(
            "comparison.difference: the documents of both runs: must be the same, in the same order"
        )
    return np.stack(
        [table.nats.to_numpy() - base.nats.to_numpy(), table.tokens.to_numpy(dtype=float)], 1
    )


def per_token(pairs: np.ndarray) -> float:
    """Nats per token of rows [documents, 2] of nats and tokens; NaN without any."""
    tokens = pairs[:, 1].sum()
    return float(pairs[:, 0].sum() / tokens) if tokens else np.nan


def tag(arm: str, arms: Sequence[str]) -> str:
    """What names of values end with: nothing for the first checkpoint, which the prose is about,
    else its name.
    """
    return "" if arm == arms[0] else arm


def p_value(pairs: np.ndarray, clusters: np.ndarray, *, above: bool = False) -> float:
    """Two-sided p of per_token(pairs) = 0, or with `above` one-sided of it being at most 0:
    Student's t of the delete-one-cluster jackknife; NaN below 8 clusters, and without any rows.
    """
    sums = by_cluster(pairs, clusters[: len(pairs)])
    if len(sums) < stats.CLUSTERS:
        return float("nan")
    left = np.array([per_token(np.delete(sums, i, 0)) for i in range(len(sums))])
    error = np.sqrt((len(sums) - 1) / len(sums) * ((left - left.mean()) ** 2).sum())
    if not error:
        return 1.0
    ratio, freedom = per_token(pairs) / error, len(sums) - 1
    one_sided = scipy.stats.t.sf(ratio if above else abs(ratio), freedom)
    return float(one_sided if above else 2 * one_sided)


def by_cluster(pairs: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """[clusters, 2] the sums of rows [documents, 2] over each cluster, in order of name."""
    number = np.unique(clusters, return_inverse=True)[1]
    return np.stack([np.bincount(number, column) for column in pairs.T], 1)


def estimate(name: str, pairs: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """{name, name_low, name_high}: nats per token with its 95 % interval by bootstrap over
    clusters, NaN below 8 clusters; without any rows all are NaN.
    """
    if not len(pairs):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    low, high = interval(by_cluster(pairs, clusters))
    return {name: per_token(pairs), f"{name}_low": low, f"{name}_high": high}


def interval(sums: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The interval of `stats.bootstrap_interval` for per_token of rows [clusters, 2], all draws at
    once: a study asks for hundreds.
    """
    if len(sums) < stats.CLUSTERS:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    nats, tokens = sums[rng.integers(len(sums), size=(draws, len(sums)))].sum(1).T
    low, high = np.quantile(nats / tokens, [0.025, 0.975])
    return float(low), float(high)


def against_native(documents: pd.DataFrame) -> pd.DataFrame:
    """A row per run: what it was; delta, nats per token over the native choice in groups of the
    same size, with its interval and p; and what else `against` tells.
    """
    parts = dict(list(documents.groupby("run")))
    heads = documents.drop_duplicates("run").set_index("run")[OF_RUN]
    keys = heads.arm, heads.protocol.where(heads["size"].notna(), "prefix"), heads["size"].fillna(0)
    likes = dict(zip(heads.index, zip(*keys, strict=True), strict=True))
    native = heads[(heads.family == "native") & heads.layer.isna()].index
    base = {likes[run]: parts[run] for run in reversed(native)}  # of several the first
    rows = [against(part, base[likes[run]]) for run, part in parts.items()]
    return heads.join(pd.DataFrame(rows, index=heads.index)).reset_index(drop=True)


def against(part: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    """One run's documents against those of `base`.

    delta: nats per token above it, with interval and p; perplexity and perplexity_before: exp of
    the nats per token of both; perplexity_ratio: of the former to the latter, exp(delta), with
    exp of delta's interval; accuracy: share of tokens predicted correctly; accuracy_points: what it
    gained, in points of a hundred, with its interval.
    """
    pairs, clusters = difference(part, base), part.cluster.to_numpy()
    tokens = pairs[:, 1]
    hits = np.stack([100.0 * (part.correct.to_numpy() - base.correct.to_numpy()), tokens], 1)
    cost = estimate("delta", pairs, clusters)
    return (
        cost
        | {name.replace("delta", "perplexity_ratio"): np.exp(v) for name, v in cost.items()}
        | estimate("accuracy_points", hits, clusters)
        | dict(
            p=p_value(pairs, clusters),
            perplexity=np.exp(part.nats.sum() / tokens.sum()),
            perplexity_before=np.exp(base.nats.sum() / tokens.sum()),
            accuracy=part.correct.sum() / tokens.sum(),
        )
    )


def family_wise(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with p_holm: Holm's adjusted p over all that have a p, the native choice left out."""
    tested = (runs.setting != "native") & runs.p.notna()
    if not tested.any():
        return runs.assign(p_holm=np.nan)
    return runs.assign(p_holm=pd.Series(stats.holm(runs.p[tested]), index=runs.index[tested]))


def one_each(runs: pd.DataFrame, gamma: float) -> pd.DataFrame:
    """Of each checkpoint, policy and strategy the setting at that capacity factor, or of a strategy
    without one its first.
    """
    own = runs[runs.gamma.isna() | (runs.gamma == gamma)]
    return own.drop_duplicates(["arm", "policy", "family"])


def told(runs: pd.DataFrame, families: Sequence[str], arms: Sequence[str]) -> pd.DataFrame:
    """The rows of strategies of every checkpoint, in that order and indexed by their names (with
    columns arm, family, `tag`); NaN where one was not run.  runs: one of each (`one_each`).
    """
    parts = []
    for arm in arms:
        found = runs[runs.arm == arm].set_index("family").reindex(list(families))
        parts.append(found.assign(arm=arm, tag=tag(arm, arms), family=found.index))
    return pd.concat(parts)


def gaps(
    documents: pd.DataFrame,
    pairs: Mapping[str, tuple[str, str]],
    arms: Sequence[str],
    others: int = 0,
) -> pd.DataFrame:
    """A row per checkpoint, and per policy of weights with which any of the settings was decoded:
    for every name of `pairs` how much its first setting costs more than its second, with the
    interval; p: the largest of their one-sided p-values; p_holm: it by Holm's procedure, `others`
    hypotheses of the family counting as 1; name: policy and `tag`.  NaN where a setting was not
    run.  `documents`: of one protocol.
    """
    rows = []
    wanted = documents[documents.setting.isin([name for pair in pairs.values() for name in pair])]
    policies = dict.fromkeys(wanted.policy if len(wanted) else documents.policy)
    for arm, policy in itertools.product(arms, policies):
        own = only(wanted, arm=arm, policy=policy)
        row: dict[str, object] = dict(arm=arm, tag=tag(arm, arms), policy=policy)
        values = []
        for name, (more, less) in pairs.items():
            one, two = own[own.setting == more], own[own.setting == less]
            both = difference(one, two) if len(one) and len(two) else np.empty((0, 2))
            row |= estimate(name, both, one.cluster.to_numpy())
            values.append(p_value(both, one.cluster.to_numpy(), above=True))
        p = np.max(values)
        adjusted = np.nan if np.isnan(p) else stats.holm([p, *[1.0] * others])[0]
        name = "_".join(filter(None, (policy, tag(arm, arms))))
        rows.append(row | dict(p=p, p_holm=adjusted, name=name))
    return pd.DataFrame(rows)


def at_balance(curve: pd.DataFrame, target: float) -> tuple[str, str, float] | None:
    """The two neighbouring settings of one strategy between which its p95 reaches `target`, and the
    share of the second.

    curve: columns setting, p95, delta; None if the curve does not reach it.  Of several crossings
    the cheapest counts.
    """
    ordered, found = curve.sort_values("p95").reset_index(drop=True), []
    for one, two in zip(ordered.itertuples(), ordered.iloc[1:].itertuples(), strict=False):
        if one.p95 <= target <= two.p95:
            share = (target - one.p95) / (two.p95 - one.p95) if two.p95 > one.p95 else 0.0
            found.append(
                ((1 - share) * one.delta + share * two.delta, one.setting, two.setting, share)
            )
    return min(found)[1:] if found else None


def reach(runs: pd.DataFrame, target: float, arms: Sequence[str], own: str) -> pd.DataFrame:
    """A row per checkpoint: the `target` of p95, the lowest p95 that strategy `own` reaches, and
    the level at which it can be compared: the target, or else that (columns arm, tag, target,
    reached, level).
    """
    least = [float(only(runs, arm=arm, family=own).p95.min()) for arm in arms]
    table = pd.DataFrame(dict(arm=arms, target=target, reached=least))
    tags = [tag(arm, arms) for arm in arms]
    return table.assign(level=table[["target", "reached"]].max(axis=1), tag=tags)


def at_level(documents: pd.DataFrame, levels: Mapping[str, float]) -> pd.DataFrame:
    """Strategies where their p95 is the level of a checkpoint: a row per checkpoint, family and
    document.

    Between two neighbouring settings of a family, the native choice being one of each, nats are on
    a straight line; which two is decided on the `validation` half, every second cluster in
    alphabetical order.  A family that does not reach the level has no rows.  Columns: arm, family,
    between, cluster, validation, nats (over native), tokens.  `documents`: of one protocol, all
    legal in it.
    """
    found = []
    for arm, own in documents.groupby("arm", sort=False):
        base = own[own.setting == "native"]
        half = base.cluster.isin(sorted(base.cluster.unique())[::2]).to_numpy()
        p95 = own.drop_duplicates("setting").set_index("setting").p95
        cost = {name: difference(own[own.setting == name], base) for name in p95.index}
        for family, part in own[own.family != "native"].groupby("family"):
            names = list(dict.fromkeys([*part.setting, "native"]))
            delta = [per_token(cost[name][half]) for name in names]
            curve = pd.DataFrame(dict(setting=names, p95=p95[names].to_numpy(), delta=delta))
            if crossed := at_balance(curve, levels[str(arm)]):
                one, two, share = crossed
                nats, tokens = ((1 - share) * cost[one] + share * cost[two]).T
                about = dict(arm=arm, family=family, between=f"{one} and {two}")
                level = dict(cluster=base.cluster, validation=half, nats=nats, tokens=tokens)
                found.append(pd.DataFrame(about | level))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=LEVEL)


def halves(level: pd.DataFrame, own: str = "biased") -> pd.DataFrame:
    """Nats per token over native of what `at_level` found, on both halves of the clusters, `own`
    first, then the cheapest on the deciding half: a row per checkpoint and family (columns arm,
    family, between, validation, test).
    """
    rows = []
    for (arm, family, between), part in level.groupby(["arm", "family", "between"], sort=False):
        pairs, half = part[["nats", "tokens"]].to_numpy(dtype=float), part.validation.astype(bool)
        rows.append((arm, family, between, per_token(pairs[half]), per_token(pairs[~half])))
    found = pd.DataFrame(rows, columns=["arm", "family", "between", "validation", "test"])
    first = found.assign(rival=found.family != own).sort_values(["arm", "rival", "validation"])
    return first.drop(columns="rival").reset_index(drop=True)


def against_rival(level: pd.DataFrame, arms: Sequence[str], own: str = "biased") -> pd.DataFrame:
    """A row per checkpoint: the rival, the family that costs least on the validation half, and what
    `own` costs more than it on the other half (columns arm, tag, rival, bias_over_rival with its
    interval).  NaN where `own` or every rival does not reach the level.
    """
    rows, costs = [], halves(level)
    for arm in arms:
        rivals = costs[(costs.arm == arm) & (costs.family != own)]
        best = rivals.family[rivals.validation.idxmin()] if len(rivals) else ""
        test = level[(level.arm == arm) & ~level.validation.astype(bool)]
        mine, other = test[test.family == own], test[test.family == best]
        pairs = np.empty((0, 2))
        if len(mine) and len(other):
            gap = mine.nats.to_numpy(dtype=float) - other.nats.to_numpy(dtype=float)
            pairs = np.stack([gap, mine.tokens.to_numpy(dtype=float)], 1)
        name = best.replace("_", " ") or "none that reaches it"
        about: dict[str, object] = dict(arm=arm, tag=tag(arm, arms), rival=name)
        rows.append(about | estimate("bias_over_rival", pairs, mine.cluster.to_numpy()))
    return pd.DataFrame(rows)
