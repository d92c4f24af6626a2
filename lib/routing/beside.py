"""The same strategies beside each other under other weights, and by another protocol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.routing import comparison


def by_sight(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of strategies that never look ahead in a text ("stream"), and of those that need all
    tokens of their group ("group").
    """
    causal = runs.causal.astype(bool)
    return {"stream": runs[causal], "group": runs[~causal]}


def by_policy(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per checkpoint and setting that was decoded with all policies of weights: delta of each
    with its interval (columns delta_<policy>), the one that depends most on them first.
    """
    parts = []
    for policy, own in runs[runs.family != "native"].groupby("policy", sort=False):
        columns = {f"delta{end}": f"delta_{policy}{end}" for end in ("", "_low", "_high")}
        parts.append(own.set_index(["arm", "setting"])[list(columns)].rename(columns=columns))
    if not parts:
        return pd.DataFrame(columns=["arm", "setting"])
    wide = pd.concat(parts, axis=1, join="inner")
    means = wide[[column for column in wide if not column.endswith(("_low", "_high"))]]
    span = means.max(axis=1) - means.min(axis=1)
    return wide.loc[span.sort_values(ascending=False, kind="stable").index].reset_index()


def policy_gaps(documents: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """A row per checkpoint: the setting for which mass-preserving weights cost least beyond the
    router's own rule, of all that were decoded with both, and how much (columns arm, tag,
    mass_least, mass_over_native with its interval, and name, that of the value); NaN where none
    was.
    """
    rows = []
    for arm in arms:
        nothing = comparison.estimate("mass_over_native", np.empty((0, 2)), np.empty(0))
        found: list[dict] = [dict(mass_least="none") | nothing]
        for setting, own in comparison.only(documents, arm=arm).groupby("setting", sort=False):
            mass, native = (comparison.only(own, policy=name) for name in ("mass", "native"))
            if len(mass) and len(native):
                pairs, clusters = comparison.difference(mass, native), mass.cluster.to_numpy()
                gap = comparison.estimate("mass_over_native", pairs, clusters)
                found.append(dict(mass_least=setting) | gap)
        least = pd.DataFrame(found).sort_values("mass_over_native").iloc[0]
        ending = comparison.tag(arm, arms)
        name = "_".join(filter(None, ("mass_over_native", ending)))
        rows.append(dict(arm=arm, tag=ending, name=name) | least.to_dict())
    return pd.DataFrame(rows)


def side_by_side(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per checkpoint and setting that has both, delta and p95 of the protocols prefix and
    prefill beside each other (columns delta_prefill, delta_prefix, p95_prefill, p95_prefix).
    """
    both = runs[runs.protocol.isin(["prefix", "prefill"]) & runs.authors.astype(bool)]
    wide = both.pivot_table(
        index=["arm", "setting"], columns="protocol", values=["delta", "p95"], sort=False
    ).dropna()
    return wide.set_axis([f"{what}_{how}" for what, how in wide.columns], axis=1).reset_index()
