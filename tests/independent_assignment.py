"""The prices of other assignments once more, without `lib`: plain NumPy over what was published.

    python tests/independent_assignment.py

prints, per checkpoint, setting and policy of weights, what decoding by that setting costs above the
native choice: nats per token, ratio of perplexities, points of accuracy.  `weights` gives those of
a changed choice of one layer from its logits, written out token by token.
"""

from __future__ import annotations

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
