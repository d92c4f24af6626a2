"""What the published fine-tuning runs cost, without this library: NumPy and SciPy on the records.

    python tests/independent_training.py

prints, per text and measure of balance, what each loss costs at the lowest balance that Switch,
entropy and Gini all reach in each seed, and perplexity before and after training.  Documents are
those of the base model's record; their clusters are its clusters.
"""

import csv
import lzma
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import unpacked
from scipy.stats import t

DATA = Path(__file__).parents[1] / "data"
RUNS = DATA / "reference" / "03" / "runs.packed"
RECORD = DATA / "model" / "held_out_without.csv.xz"
SEEDS = range(8)
MIDDLE = {"none": 0.0, "switch": 0.1, "gini": 0.3}


@cache
def clusters():
    """(number of the cluster, tokens) of each document as the runs read it."""
    with lzma.open(RECORD, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["cut"] == "512"]
    names = sorted({row["cluster"] for row in rows})
    number = np.array([names.index(row["cluster"]) for row in rows])
    return number, np.array([int(row["tokens"]) for row in rows], float)


@cache
def records(stride):
    """Per loss, coefficient and seed: balance by its measure, and nats per token on all documents
    and without one cluster at a time.
    """
    number, tokens = clusters()
    found = {}
    for row in unpacked.read(RUNS):
        if row["settings"]["training_stride"] != stride:
            continue
        held, nats = row["held_out"], np.array(row["held_out"]["documents"]["nats"])
        whole = held["nats_per_token"]
        left = [
            (whole * tokens.sum() - nats[number == c].sum()) / tokens[number != c].sum()
            for c in range(number.max() + 1)
        ]
        balance = {
            "max_violation": np.mean(held["layers"]["max_violation_p95"]),
            "gini": np.mean(held["layers"]["gini"]),
        }
        job = row["job"]
        found[job["loss"], job["coefficient"], job["seed"]] = balance, np.array([whole, *left])
    return found


def interval(values):
    """(mean, low, high) of [seeds, 1 + clusters]: s²/n of seeds plus the jackknife of clusters."""
    n, m = len(values), values.shape[1] - 1
    if n < 2 or not m > 1 or not np.ptp(values):
        return (values[:, 0].mean() if n else np.nan, np.nan, np.nan)
    seeds = np.var(values[:, 0], ddof=1) / n
    left = values[:, 1:].mean(axis=0)
    jackknife = (m - 1) / m * np.sum((left - left.mean()) ** 2)
    freedom = (seeds + jackknife) ** 2 / (seeds**2 / (n - 1) + jackknife**2 / (m - 1))
    half = t.ppf(0.975, freedom) * np.sqrt(seeds + jackknife)
    return values[:, 0].mean(), values[:, 0].mean() - half, values[:, 0].mean() + half


def costs(stride, metric):
    """target, and per loss (cost above no loss, difference to Switch), each (mean, low, high)."""
    runs = records(stride)
    losses = sorted({loss for loss, _, _ in runs} - {"start", "none"})
    points = {
        (loss, seed): [
            (balance[metric], nats)
            for (one, _, other), (balance, nats) in runs.items()
            if one in (loss, "none") and other == seed
        ]
        for loss in losses
        for seed in SEEDS
    }
    target = max(
        min(x for x, _ in points[loss, seed])
        for loss in ("switch", "entropy", "gini")
        for seed in SEEDS
    )
    read = {key: line(known, target) for key, known in points.items()}
    found = {}
    for loss in losses:
        own = [seed for seed in SEEDS if read[loss, seed] is not None]
        none = [runs["none", 0.0, seed][1] for seed in own]
        cost = np.array([read[loss, s] - free for s, free in zip(own, none, strict=True)])
        gap = np.array([read[loss, seed] - read["switch", seed] for seed in own])
        shape = (len(own), -1) if own else (0, 2)
        found[loss] = interval(cost.reshape(shape)), interval(gap.reshape(shape))
    return {"target": target, "losses": found}


def line(points, at):
    """The value at `at` on straight lines between points in order of x; None beyond the ends."""
    points = sorted(points, key=lambda point: point[0])
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= at <= x1:
            return y0 + (at - x0) / (x1 - x0) * (y1 - y0)
    return None


def perplexities(stride):
    """Per loss at its middle coefficient: perplexity before, after, ends of their ratio."""
    runs = records(stride)
    start = runs["start", 0.0, 0][1]
    found = {}
    for loss, coefficient in MIDDLE.items():
        gained = np.array([runs[loss, coefficient, seed][1] - start for seed in SEEDS])
        mean, low, high = interval(gained)
        found[loss] = np.exp(start[0]), np.exp(start[0] + mean), np.exp(low), np.exp(high)
    return found


if __name__ == "__main__":
    for text in (4, 25):
        for measure in ("max_violation", "gini"):
            told = costs(text, measure)
            print(f"every {text}th document, {measure} = {told['target']:.4f}")
            for name, (above, beside) in told["losses"].items():
                shown = [f"{v[0]:+.4f} [{v[1]:+.4f}, {v[2]:+.4f}]" for v in (above, beside)]
                print(f"  {name:8} above no loss {shown[0]}, above Switch {shown[1]}")
        for name, numbers in perplexities(text).items():
            print(f"  {name:8} perplexity {', '.join(f'{number:.4f}' for number in numbers)}")
