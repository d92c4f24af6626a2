"""What other assignments cost, compared: with the native choice, with each other, and at equal
balance.

The tables compared have a row per run and document, as `lib.routing.study.measured` makes them.
Everything is nats per token, paired by document; the unit of resampling is the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from lib import stats

# columns of a run that are the same in all its rows
OF_RUN = [
    *("arm", "protocol", "setting", "family", "policy", "size", "layer", "causal", "gamma"),
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
    """Nats per token of rows [documents, 2] of nats and tokens."""
    return float(pairs[:, 0].sum() / pairs[:, 1].sum())


def p_value(pairs: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided p of per_token(pairs) = 0: Student's t of the delete-one-cluster jackknife; NaN
    below 8 clusters.
    """
    names = np.unique(clusters)
    if len(names) < stats.CLUSTERS:
        return float("nan")
    left = np.array([per_token(pairs[clusters != name]) for name in names])
    error = np.sqrt((len(names) - 1) / len(names) * ((left - left.mean()) ** 2).sum())
    return (
        float(2 * scipy_stats.t.sf(abs(per_token(pairs)) / error, len(names) - 1)) if error else 1.0
    )


def estimate(name: str, pairs: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """{name, name_low, name_high}: nats per token with its 95 % interval by bootstrap over
    clusters, NaN below 8 clusters; without any rows all are NaN.
    """
    if not len(pairs):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    limits = stats.bootstrap_interval(pairs, per_token, clusters) or (np.nan, np.nan)
    return {name: per_token(pairs), f"{name}_low": limits[0], f"{name}_high": limits[1]}


def against_native(documents: pd.DataFrame) -> pd.DataFrame:
    """A row per run: what it was, its accuracy (share of tokens predicted correctly), and delta,
    nats per token over the native choice in groups of the same size, with its interval and p.
    """
    parts = dict(list(documents.groupby("run")))
    heads = documents.drop_duplicates("run").set_index("run")[OF_RUN]
    keys = heads.arm, heads.protocol.where(heads["size"].notna(), "prefix"), heads["size"].fillna(0)
    likes = dict(zip(heads.index, zip(*keys, strict=True), strict=True))
    native = heads[(heads.family == "native") & heads.layer.isna()].index
    base = {likes[run]: parts[run] for run in reversed(native)}  # of several the first
    rows = []
    for run, part in parts.items():
        pairs, clusters = difference(part, base[likes[run]]), part.cluster.to_numpy()
        rows.append(
            dict(accuracy=part.correct.sum() / part.tokens.sum())
            | estimate("delta", pairs, clusters)
            | dict(p=p_value(pairs, clusters))
        )
    return heads.join(pd.DataFrame(rows, index=heads.index)).reset_index(drop=True)


def family_wise(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with p_holm: Holm's adjusted p over all that have a p, the native choice left out."""
    tested = (runs.setting != "native") & runs.p.notna()
    if not tested.any():
        return runs.assign(p_holm=np.nan)
    return runs.assign(p_holm=pd.Series(stats.holm(runs.p[tested]), index=runs.index[tested]))


def told(runs: pd.DataFrame, arm: str, settings: Sequence[str]) -> pd.DataFrame:
    """The rows of one checkpoint's `settings`, in that order and indexed by their families; NaN
    where a setting was not run.
    """
    found = runs[runs.arm == arm].set_index("setting").reindex(list(settings)).reset_index()
    families = [setting.split()[0] for setting in settings]
    return found.assign(arm=arm, family=families).set_index("family", drop=False)


def gaps(documents: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """A row per checkpoint: for every name of `pairs` how much its first setting costs more than
    its second, with the interval; NaN where one was not run.  `documents`: of one protocol.
    """
    rows = []
    for arm, own in documents.groupby("arm", sort=False):
        row: dict[str, object] = {"arm": arm}
        for name, (more, less) in pairs.items():
            one, two = own[own.setting == more], own[own.setting == less]
            both = difference(one, two) if len(one) and len(two) else np.empty((0, 2))
            row |= estimate(name, both, one.cluster.to_numpy())
        rows.append(row)
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


def at_level(documents: pd.DataFrame, target: float) -> pd.DataFrame:
    """Causal strategies where their p95 is `target`: a row per checkpoint, family and document.

    Between two neighbouring settings of a family, the native choice being one of each, nats are on
    a straight line; which two is decided on the `validation` half, every second cluster in
    alphabetical order.  A family that does not reach the target has no rows.  Columns: arm, family,
    between, cluster, validation, nats (over native), tokens.  `documents`: of one protocol.
    """
    found = []
    for arm, own in documents[documents.causal.astype(bool)].groupby("arm", sort=False):
        base = own[own.setting == "native"]
        half = base.cluster.isin(sorted(base.cluster.unique())[::2]).to_numpy()
        p95 = own.drop_duplicates("setting").set_index("setting").p95
        cost = {name: difference(own[own.setting == name], base) for name in p95.index}
        for family, part in own.groupby("family"):
            names = list(dict.fromkeys([*part.setting, "native"]))
            delta = [per_token(cost[name][half]) for name in names]
            curve = pd.DataFrame(dict(setting=names, p95=p95[names].to_numpy(), delta=delta))
            if crossed := at_balance(curve, target):
                one, two, share = crossed
                nats, tokens = ((1 - share) * cost[one] + share * cost[two]).T
                about = dict(arm=arm, family=family, between=f"{one} and {two}")
                level = dict(cluster=base.cluster, validation=half, nats=nats, tokens=tokens)
                found.append(pd.DataFrame(about | level))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=LEVEL)


def halves(level: pd.DataFrame) -> pd.DataFrame:
    """Nats per token over native of what `at_level` found, on both halves of the clusters: a row
    per checkpoint and family (columns arm, family, between, validation, test).
    """
    rows = []
    for (arm, family, between), part in level.groupby(["arm", "family", "between"], sort=False):
        pairs, half = part[["nats", "tokens"]].to_numpy(dtype=float), part.validation.astype(bool)
        rows.append((arm, family, between, per_token(pairs[half]), per_token(pairs[~half])))
    return pd.DataFrame(rows, columns=["arm", "family", "between", "validation", "test"])


def against_rival(level: pd.DataFrame, arms: Sequence[str], own: str = "biased") -> pd.DataFrame:
    """A row per checkpoint: the rival, the family that costs least on the validation half, and what
    `own` costs more than it on the other half (columns arm, rival, bias_over_rival with its
    interval).  NaN where `own` or every rival does not reach the level.
    """
    rows, costs = [], halves(level)
    for arm in arms:
        rivals = costs[(costs.arm == arm) & ~costs.family.isin([own, "native"])]
        best = rivals.family[rivals.validation.idxmin()] if len(rivals) else ""
        test = level[(level.arm == arm) & ~level.validation.astype(bool)]
        mine, other = test[test.family == own], test[test.family == best]
        pairs = np.empty((0, 2))
        if len(mine) and len(other):
            gap = mine.nats.to_numpy(dtype=float) - other.nats.to_numpy(dtype=float)
            pairs = np.stack([gap, mine.tokens.to_numpy(dtype=float)], 1)
        name = best.replace("_", " ") or "none that reaches it"
        about: dict[str, object] = dict(arm=arm, rival=name)
        rows.append(about | estimate("bias_over_rival", pairs, mine.cluster.to_numpy()))
    return pd.DataFrame(rows)


def side_by_side(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per checkpoint and setting, delta and p95 of the protocols prefix and prefill beside
    each other (columns delta_prefill, delta_prefix, p95_prefill, p95_prefix); NaN where one lacks
    it.
    """
    both = runs[runs.protocol.isin(["prefix", "prefill"])]
    wide = both.pivot_table(index=["arm", "setting"], columns="protocol", values=["delta", "p95"])
    return wide.set_axis([f"{what}_{how}" for what, how in wide.columns], axis=1).reset_index()
