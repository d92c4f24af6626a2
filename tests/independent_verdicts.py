"""The verdicts once more, without `lib`, and where another reasonable choice would turn them.

    python tests/independent_verdicts.py

prints the declared hypotheses with p and Holm, what H3 says by other ways of reading a curve, what
a loss gains by seed and by size, and which shapes show the price again.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from independent_headlines import DATA, above, gain, gini, interval, ladder, price
from scipy.stats import t as student
from scipy.stats import ttest_1samp

SEEDS = range(1, 9)
JUDGE = DATA / "measured/nvidia-h200-x2-seed17"
K = {"olmoe": 8, "mixtral": 2, "qwen3": 8}
SHAPES = ("8-1", "8-2", "32-4", "64-8")


def tail(row: dict[str, float], distance: float) -> float:
    """P of Student's t beyond a distance, in its error."""
    return float(student.sf(distance / row["error"], row["freedom"]))


def phi(counts: np.ndarray, domain: np.ndarray) -> float:
    """1 − CV²(pooled) / mean over domains of CV²(domain), of pairs of different documents."""

    def cv2(own: np.ndarray) -> float:
        n = own[:, 0].sum(1)
        pairs = (own.sum(0) ** 2).sum(1) - (own**2).sum((0, 2))
        return float((own.shape[2] * pairs / (n.sum() ** 2 - (n**2).sum()) - 1).mean())

    return 1 - cv2(counts) / float(np.mean([cv2(counts[domain == d]) for d in np.unique(domain)]))


def locality(result: dict) -> np.ndarray:
    """[1 + clusters] Φ of one model, of all documents and without one cluster at a time."""
    own = result["profile"]
    counts, domain, cluster = (np.array(own[name]) for name in ("counts", "domain", "cluster"))
    rows = [cluster == cluster, *(cluster != name for name in np.unique(cluster))]
    return np.array([phi(counts[kept], domain[kept]) for kept in rows])


def line(points: list[tuple], at: float) -> np.ndarray | None:
    """The value at `at` on straight lines between points; None beyond their ends."""
    for (x0, y0), (x1, y1) in pairwise(sorted(points, key=lambda point: point[0])):
        if x0 <= at <= x1:
            return y0 + (at - x0) / (x1 - x0) * (y1 - y0) if x1 > x0 else y0
    return None


def parabola(points: list[tuple], at: float) -> np.ndarray:
    """The value at `at` of the parabola through three points."""
    x = [point[0] for point in points]
    weight = [np.prod([(at - b) / (a - b) for b in x if b != a]) for a in x]
    return np.tensordot(weight, [point[1] for point in points], 1)


def bias_over_rival(result: dict) -> tuple[np.ndarray, float]:
    """([1 + test clusters] the frozen bias above its best rival, P95 that they were compared at),
    the lowest that the bias reaches.
    """
    own = result["decode"]
    tokens = np.array(own["tokens"], float)
    deciding = np.arange(len(tokens)) % 2 == 0
    (native,) = (row for row in own["settings"] if row["family"] == "native")
    curves: dict[str, list[tuple]] = {}
    for row in own["settings"]:
        point = row["p95"], np.array(row["nats"]) - np.array(native["nats"])
        curves.setdefault(row["family"], []).append(point)
    free = curves.pop("native")
    level = min(p95 for p95, _ in curves["biased"])
    read = {family: line(points + free, level) for family, points in curves.items()}
    cost = {family: found for family, found in read.items() if found is not None}
    bias = cost.pop("biased")
    best = min(cost, key=lambda family: cost[family][deciding].sum())
    gap, tokens = (bias - cost[best])[~deciding], tokens[~deciding]
    left = (gap.sum() - gap) / (tokens.sum() - tokens)
    return np.r_[gap.sum() / tokens.sum(), left], level


def violation(row: dict) -> float:
    """P95 of MaxVio over serving batches, mean over layers."""
    load = np.array(row["profile"]["serving"], float)
    return float(np.quantile(load.max(-1) / load.mean(-1) - 1, 0.95, axis=0).mean())


def evenness(row: dict) -> float:
    """Gini of all serving batches together, mean over layers."""
    return float(gini(np.array(row["profile"]["serving"], float).sum(0)).mean())


def above_switch(loss: str, balance=violation, way=line) -> dict[str, float]:
    """Nats per token of repair with a loss above Switch at the lowest balance that all reach:
    `interval` over starts, and level.
    """
    curves: dict[tuple[str, int], list[tuple]] = {}
    for seed in SEEDS:
        rows = ladder()["repairs", seed]["repairs"]
        for name in ("switch", "entropy", "gini"):
            own = [row for row in rows if row["loss"] in ("none", name)]
            curves[name, seed] = [(balance(r), np.array(r["profile"]["nats"])) for r in own]
    level = max(min(x for x, _ in points) for points in curves.values())
    gaps = []
    for seed in SEEDS:
        about = ladder()["repairs", seed]["repairs"][0]["profile"]
        tokens, cluster = np.array(about["tokens"], float), np.array(about["cluster"])
        gap = way(curves[loss, seed], level) - way(curves["switch", seed], level)
        kept = [cluster == cluster, *(cluster != name for name in np.unique(cluster))]
        gaps.append(np.array([gap[rows].sum() / tokens[rows].sum() for rows in kept]))
    return interval(gaps) | {"level": level}


def layers() -> pd.DataFrame:
    """Held-out errors of lines in ρ and in the Gini on the fresh layers: shape, tokens, gain."""
    table = pd.read_csv(JUDGE / "layer.csv.xz")
    table = table[(table["rank"] == -1) & (table.phase == "total") & (table.routes == "level")]
    found = []
    for _, own in table.groupby(["shape", "tokens"]):
        known, test = own[own.seed == 0], own[own.seed == 1]
        if len(known) < 4 or test.empty:
            continue
        missed = {}
        for name in ("rho", "gini"):
            fitted = np.polyfit(known[name], known.p50_us, int(known[name].nunique() > 1))
            missed[name] = (np.polyval(fitted, test[name]) / test.p50_us - 1).abs()
        found.append(test[["shape", "tokens"]].assign(gain=missed["rho"] - missed["gini"]))
    return pd.concat(found)


def products() -> pd.DataFrame:
    """The same of lines in rows and active experts, beside rows alone, with few tokens."""
    table = pd.read_csv(JUDGE / "compute.csv.xz")
    table = table[(table["rank"] == -1) & (table.phase == "total")]
    table = table.assign(tokens=table.rows / table["shape"].map(K))
    found = []
    for _, own in table[table.tokens <= 64].groupby("shape"):
        known, test = own[own.part == "fit"], own[own.part == "held_out"]
        missed = []
        for names in (["rows", "active"], ["rows"]):
            matrix = [np.column_stack([np.ones(len(part)), part[names]]) for part in (known, test)]
            weight = np.linalg.lstsq(matrix[0], known.p50_us, rcond=None)[0]
            missed.append((matrix[1] @ weight / test.p50_us - 1).abs())
        found.append(test[["shape", "tokens"]].assign(gain=missed[0] - missed[1]))
    return pd.concat(found)


def below_zero(table: pd.DataFrame) -> float:
    """One-sided p of clusters of shape and tokens having a mean gain below zero."""
    means = table.groupby(["shape", "tokens"]).gain.mean()
    return float(ttest_1samp(means, 0, alternative="less").pvalue)


def parts() -> dict[str, dict[str, float]]:
    """Of the declared hypotheses that checkpoints decide, each part's mean with its interval."""
    known = ladder()
    none = [known["none", seed] for seed in SEEDS]
    found = {"phi": interval([locality(row) for row in none])}
    for gamma in (1.0, 1.25, 1.5):
        ways = [{"family": f, "gamma": gamma, "policy": "native"} for f in ("drop", "reroute")]
        found[f"drop_over_reroute_{gamma:g}"] = interval([above(row, *ways) for row in none])
    found["bias_over_rival"] = interval([bias_over_rival(row)[0] for row in none])
    for loss in ("entropy", "gini"):
        found[f"{loss}_over_switch"] = above_switch(loss)
    prices = [
        price(row) - price(known["switch", seed]) for seed, row in zip(SEEDS, none, strict=True)
    ]
    return found | {"estimate_price": interval(prices)}


def family(own: dict[str, dict[str, float]]) -> dict[str, float]:
    """p of each declared hypothesis, the largest of its parts; 1 where it was not run."""
    drop = [row for name, row in own.items() if name.startswith("drop")]
    equal = [own[f"{loss}_over_switch"] for loss in ("entropy", "gini")]
    fresh = layers()
    tokens = fresh.tokens
    return {
        "H1": tail(own["phi"], own["phi"]["value"] - 0.5),
        "H2a": max(tail(row, row["value"]) for row in drop),
        "H2b": tail(own["bias_over_rival"], -own["bias_over_rival"]["value"]),
        "H3": max(tail(row, 0.005 - abs(row["value"])) for row in equal),
        "H4": max(below_zero(fresh[tokens <= 64]), below_zero(fresh[tokens >= 256])),
        "H5": tail(own["estimate_price"], own["estimate_price"]["value"]),
        "H6a": 1.0,
        "H6b": below_zero(products()),
    }


def gains(one: str = "none", other: str = "switch") -> dict[int, np.ndarray]:
    """By seed what configuration `other` gains over `one`, as `gain` tells it."""
    known = ladder()
    seeds = [seed for name, seed in known if name == other and (one, seed) in known]
    return {seed: gain(known[one, seed], known[other, seed]) for seed in seeds}


def transfer() -> tuple[float, dict[str, dict[str, float]]]:
    """(half of what the embedded pair shows, by shape the difference of prices of its pair)."""
    known = ladder()
    asked = price(known["embedded-without", 0]) - price(known["embedded-with", 0])
    rows = {
        shape: interval(
            [price(known[f"shape-{shape}-none", 1]) - price(known[f"shape-{shape}-switch", 1])]
        )
        for shape in SHAPES
    }
    return float(asked[0] / 2), rows


if __name__ == "__main__":
    own = parts()
    for name, row in own.items():
        print(f"{name:24} {row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]")
    for name, p in family(own).items():
        print(f"{name:24} p {p:.3g}")
    for balance in (violation, evenness):
        for way in (line, parabola):
            row = above_switch("gini", balance, way)
            print(f"Gini above Switch, {balance.__name__}, {way.__name__}: ", end="")
            print(f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]")
    print("gain by seed", {seed: round(float(row[0]), 4) for seed, row in gains().items()})
    half, shapes = transfer()
    for shape, row in shapes.items():
        print(
            f"{shape:5} {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}], asked {half:.4f}"
        )
