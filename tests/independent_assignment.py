"""The prices of other assignments once more, without `lib`: plain NumPy over what was published.

    python tests/independent_assignment.py

prints, per checkpoint, setting and policy of weights, what decoding by that setting costs above the
native choice: nats per token, ratio of perplexities, points of accuracy.  `weights` gives those of
a changed choice of one layer from its logits, written out token by token.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import unpacked

PUBLISHED = Path(__file__).parents[1] / "data/reference/02"


def documents(folder: Path = PUBLISHED) -> pd.DataFrame:
    """A row per run and document: of each checkpoint its documents, then run by run what it was and
    lists in their order; or the table as an earlier chapter wrote it.
    """
    packed = folder / "documents.packed"
    if not packed.is_file():
        return pd.read_csv(folder / "documents.csv.xz")
    names: dict[str, dict] = {}
    parts = []
    for row in unpacked.read(packed):
        if "nats" in row:
            parts.append(pd.DataFrame(names[row["arm"]] | row))
        else:
            names[row["arm"]] = row
    return pd.concat(parts, ignore_index=True).astype({"size": float, "layer": float})


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """Columns arm, setting, policy; delta, ratio, points: of the prefix protocol."""
    decoded = table[(table.protocol == "prefix") & table["size"].isna() & table.layer.isna()]
    rows = []
    for arm in decoded.arm.unique():
        own = decoded[decoded.arm == arm]
        native = own[own.setting == "native"].drop_duplicates("name")
        before = {name: (a, b) for name, a, b in native[["name", "nats", "correct"]].to_numpy()}
        for setting in own.setting.unique():
            for policy in own[own.setting == setting].policy.unique():
                run = own[(own.setting == setting) & (own.policy == policy)]
                nats = hits = tokens = 0.0
                for name, n, c, t in run[["name", "nats", "correct", "tokens"]].to_numpy():
                    nats, hits = nats + n - before[name][0], hits + c - before[name][1]
                    tokens += t
                delta = nats / tokens
                rows.append((arm, setting, policy, delta, np.exp(delta), 100 * hits / tokens))
    return pd.DataFrame(rows, columns=["arm", "setting", "policy", "delta", "ratio", "points"])


def between(
    table: pd.DataFrame, arm: str, one: tuple[str, str], other: tuple[str, str], seed: int = 1
) -> tuple[float, float, float]:
    """Nats per token of a (setting, policy) above another, decoded by the prefix protocol, with the
    interval of 95 % by drawing clusters with replacement 4,000 times.
    """
    decoded = table[(table.arm == arm) & (table.protocol == "prefix")]
    runs = [
        decoded[(decoded.setting == setting) & (decoded.policy == policy)].set_index("name")
        for setting, policy in (one, other)
    ]
    gap = (runs[0].nats - runs[1].nats).to_numpy()
    own = pd.DataFrame(dict(gap=gap, tokens=runs[0].tokens.to_numpy()))
    sums = own.groupby(runs[0].cluster.to_numpy()).sum().to_numpy()
    drawn = np.random.default_rng(seed).integers(len(sums), size=(4000, len(sums)))
    nats, tokens = sums[drawn].sum(1).T
    low, high = np.quantile(nats / tokens, [0.025, 0.975])
    return float(gap.sum() / own.tokens.sum()), float(low), float(high)


def rival(table: pd.DataFrame, p95: dict[str, float], level: float, arm: str) -> tuple[str, float]:
    """The rival of the frozen bias and what the bias costs above it: both on straight lines between
    neighbouring settings at one `level` of P95, the rival and the settings chosen on every second
    cluster in alphabetical order, the comparison made on the others.  p95: of each setting.
    """
    decoded = table[(table.arm == arm) & (table.protocol == "prefix") & (table.policy == "native")]
    runs = {name: own.set_index("name") for name, own in decoded.groupby("setting")}
    base = runs["native"]
    deciding = base.cluster.isin(sorted(set(base.cluster))[::2]).to_numpy()

    def cost(nats: np.ndarray, rows: np.ndarray) -> float:
        return float(nats[rows].sum() / base.tokens.to_numpy()[rows].sum())

    found = {}
    for family in set(decoded.family) - {"native", "optimal"}:
        names = {*decoded[decoded.family == family].setting, "native"}
        curve = sorted((p95[name], name) for name in names)
        added = {name: (runs[name].nats - base.nats).to_numpy() for name in names}
        lines = []
        for (a, one), (b, two) in pairwise(curve):
            if a <= level <= b:
                share = (level - a) / (b - a) if b > a else 0.0
                mixed = (1 - share) * added[one] + share * added[two]
                lines.append((cost(mixed, deciding), cost(mixed, ~deciding)))
        if lines:
            found[family] = min(lines)
    best = min(set(found) - {"biased"}, key=lambda family: found[family][0])
    return best.replace("_", " "), found["biased"][1] - found[best][1]


def largest_p(table: pd.DataFrame, arm: str, policy: str, gammas: tuple[str, ...]) -> float:
    """Of "dropping costs more than re-routing" at these capacity factors, the largest one-sided p:
    the jackknife that leaves out one cluster at a time, and Student.s t.
    """
    found = []
    for gamma in gammas:
        kept = table[(table.arm == arm) & (table.policy == policy) & (table.protocol == "prefix")]
        two = [
            kept[kept.setting == f"{name} {gamma}"].set_index("name")
            for name in ("drop", "reroute")
        ]
        gap, cluster, tokens = two[0].nats - two[1].nats, two[0].cluster, two[0].tokens
        names = sorted(set(cluster))
        left = np.array(
            [gap[cluster != name].sum() / tokens[cluster != name].sum() for name in names]
        )
        m = len(names)
        error = np.sqrt((m - 1) / m * ((left - left.mean()) ** 2).sum())
        found.append(student(gap.sum() / tokens.sum() / error, m - 1))
    return max(found)


def student(t: float, freedom: int) -> float:
    """P(T > t) of Student's t, by summing its density finely."""
    x = np.linspace(0, abs(t), 20_001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    whole = np.linspace(0, 2000, 400_001)
    norm = np.trapezoid((1 + whole**2 / freedom) ** (-(freedom + 1) / 2), whole)
    beyond = 0.5 - 0.5 * np.trapezoid(density, x) / norm
    return float(beyond if t >= 0 else 1 - beyond)


def weights(
    logits: np.ndarray, index: np.ndarray, kept: np.ndarray, k: int, policy: str, renormalise: bool
) -> np.ndarray:
    """[tokens, slots] of experts `index` [tokens, slots], of which `kept` found a place; a softmax
    router, which divides by the sum of what it asked for if `renormalise`.
    """
    found = np.zeros(index.shape)
    for t, row in enumerate(logits):
        gates = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        native = np.sort(gates)[::-1][:k]
        used = [j for j in range(index.shape[1]) if kept[t, j]]
        asked = native.sum()
        if policy == "native":
            given = [gates[index[t, j]] for j in used]
            asked = sum(gates[index[t, j]] for j in range(index.shape[1]))
        elif policy == "mass":
            held = sum(gates[index[t, j]] for j in used)
            given = [gates[index[t, j]] * native.sum() / held for j in used]
        else:
            order = sorted(used, key=lambda j: -gates[index[t, j]])
            given = [native[order.index(j)] for j in used]
        for j, weight in zip(used, given, strict=True):
            found[t, j] = weight / asked if renormalise else weight
    return found


if __name__ == "__main__":
    print(prices(documents()).round(4).to_string(index=False))
