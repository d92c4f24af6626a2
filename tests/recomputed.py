"""Results of the book computed again from their definitions, in NumPy, pandas and loops.

Nothing of `lib` is used here: `test_recomputed.py` hands over what the committed files of routes
and results hold, and holds the book's own computations against what comes out.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[1] / "data"


def routes(fields: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(counts [documents, layers, experts], names of domains, names of clusters [documents]) of
    what a file of routes holds.
    """
    index, document, cluster = (fields[name] for name in ("expert_index", "document", "cluster"))
    counts = np.zeros((len(cluster), len(index), int(fields["experts"])))
    for layer, chosen in enumerate(index):
        for slot in chosen.T:
            np.add.at(counts, (document, layer, slot), 1)
    home = pd.Series(fields["domain"]).groupby(document).first().to_numpy()
    return counts, fields["domains"][home], fields["clusters"][cluster]


def gini(load: np.ndarray) -> float:
    """Mean absolute difference of all pairs of experts over twice the mean, mean over layers."""
    apart = np.abs(load[..., :, None] - load[..., None, :]).mean((-1, -2))
    return float((apart / (2 * load.mean(-1))).mean())


def by_group(counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[groups, layers, experts] sums of documents' counts."""
    return np.stack([counts[group == name].sum(0) for name in np.unique(group)])


def null_gini(parts: np.ndarray, draws: int, seed: int = 1) -> float:
    """Mean Gini where every part [parts, layers, experts] has its experts relabelled at random in
    each layer.
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        load = np.zeros(parts.shape[1:])
        for part in parts:
            for layer, row in enumerate(part):
                load[layer] += rng.permutation(row)
        found.append(gini(load))
    return float(np.mean(found))


def pairs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every two different documents, by layer [layers, documents, documents]: Σ_e c_de c_d'e and
    n_d n_d'; 0 for a document with itself.
    """
    by_layer = counts.transpose(1, 0, 2)
    products, tokens = by_layer @ by_layer.transpose(0, 2, 1), by_layer.sum(2)
    weights = tokens[:, :, None] * tokens[:, None, :]
    own = np.eye(len(counts), dtype=bool)
    return np.where(own, 0, products), np.where(own, 0, weights)


def phi(counts: np.ndarray, group: np.ndarray) -> float:
    """1 − CV²(pooled) / mean over groups of CV²(group), of pairs of different documents."""
    products, weights = pairs(counts)

    def cv2(rows: np.ndarray) -> float:
        mine = np.ix_(range(len(products)), rows, rows)
        ratio = products[mine].sum((1, 2)) / weights[mine].sum((1, 2))
        return float((counts.shape[2] * ratio - 1).mean())

    groups = [np.flatnonzero(group == name) for name in np.unique(group)]
    within = np.mean([cv2(rows) for rows in groups if len(rows) > 1])
    return float(1 - cv2(np.arange(len(counts))) / within)


def phi_null(counts: np.ndarray, group: np.ndarray, cluster: np.ndarray, draws: int) -> np.ndarray:
    """[draws] Φ where the groups of whole clusters are dealt to them at random."""
    rng, found = np.random.default_rng(1), []
    names = np.unique(cluster)
    home = np.array([group[cluster == name][0] for name in names])
    for _ in range(draws):
        dealt = dict(zip(names, rng.permutation(home), strict=True))
        found.append(phi(counts, np.array([dealt[name] for name in cluster])))
    return np.array(found)


def of_samples(counts: np.ndarray, size: int, draws: int) -> dict[str, float]:
    """Means over random sets of `size` documents: gini; dead, experts without a token; hot, the
    share of the two busiest experts of each layer that are the two busiest of the whole text.
    """
    rng, found = np.random.default_rng(1), []
    whole = [set(row.argsort()[-2:]) for row in counts.sum(0)]
    for _ in range(draws):
        load = counts[rng.permutation(len(counts))[:size]].sum(0)
        both = [len(set(row.argsort()[-2:]) & hot) for row, hot in zip(load, whole, strict=True)]
        found.append((gini(load), (load == 0).sum(), np.mean(both) / 2))
    return dict(zip(("gini", "dead", "hot"), np.mean(found, axis=0), strict=True))


def of_prompts(fields: dict, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(Gini, MaxVio) of every document's first `tokens` tokens in every layer: what a batch of one
    prompt shows, however often it stands in it.
    """
    found = []
    for layer in fields["expert_index"]:
        for number in range(len(fields["cluster"])):
            own = layer[fields["document"] == number][:tokens]
            load = np.array([(own == expert).sum() for expert in range(int(fields["experts"]))])
            apart = np.abs(load[:, None] - load).mean() / (2 * load.mean())
            found.append((apart, load.max() / load.mean() - 1))
    gini_of, violation = np.array(found).T
    return gini_of, violation


def profiled(rows: list[dict], name: str) -> dict[int, dict]:
    """By seed the profile of the ladder's models of one configuration."""
    own = [row for row in rows if row["job"]["name"] == name and "profile" in row]
    return {row["job"]["seed"]: row["profile"] for row in own}


def split(counts: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Shared and specific CV²: of documents of different groups, all pairs of groups alike,
    and what pairs within a group have beyond it; means over layers.
    """
    experts, products, weights = counts.shape[2], *pairs(counts)
    rows = [np.flatnonzero(group == name) for name in np.unique(group)]

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        mine = np.ix_(range(len(products)), a, b)
        ratio = products[mine].sum((1, 2)) / weights[mine].sum((1, 2))
        return float((experts * ratio - 1).mean())

    shared = np.mean([mean(a, b) for a, b in itertools.combinations(rows, 2)])
    return float(shared), float(np.mean([mean(own, own) for own in rows]) - shared)


def nats_apart(one: dict, other: dict) -> float:
    """Nats per token of one profile above another, on the same documents."""
    if one["tokens"] != other["tokens"]:
        raise ValueError("recomputed: two profiles of different documents")
    return (sum(one["nats"]) - sum(other["nats"])) / sum(one["tokens"])


def holm(p: list[float]) -> list[float]:
    """Adjusted: of the i-th smallest of n the largest so far of (n − i + 1) p, at most 1."""
    order, found, most = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p) - rank) * p[place]))
        found[place] = most
    return found


def packed(load: np.ndarray, devices: int) -> list[set[int]]:
    """Experts on devices, as many on each: the busiest first, to the least loaded with room."""
    held: list[set[int]] = [set() for _ in range(devices)]
    for expert in sorted(range(len(load)), key=lambda e: -load[e]):
        free = [d for d in range(devices) if len(held[d]) < len(load) // devices]
        held[min(free, key=lambda d: sum(load[list(held[d])]))].add(expert)
    return held


def rho(load: np.ndarray, held: list[set[int]]) -> float:
    """The busiest device over the mean."""
    return max(sum(load[list(own)]) for own in held) / (load.sum() / len(held))


def packing_kept(devices: int) -> float:
    """Of what packing OLMoE's experts for one text takes off the busiest device there, beside
    experts in order on the others, the share that it takes off on the others; ρ is a mean over
    layers and pairs of texts.
    """
    texts = pd.read_csv(DATA / "published/real_router_counts.csv")
    found: dict[str, list[float]] = {name: [] for name in ("fresh", "moved", "order", "ordered")}
    for _, layer in texts[texts.model == "OLMoE-1B-7B"].groupby("layer"):
        loads = [
            own.sort_values("expert")["count"].to_numpy() for _, own in layer.groupby("domain")
        ]
        width = len(loads[0]) // devices
        order = [set(range(d * width, (d + 1) * width)) for d in range(devices)]
        for made, load in enumerate(loads):
            held = packed(load, devices)
            found["fresh"].append(rho(load, held))
            found["ordered"].append(rho(load, order))
            others = [other for number, other in enumerate(loads) if number != made]
            found["moved"].append(float(np.mean([rho(other, held) for other in others])))
            found["order"].append(float(np.mean([rho(other, order) for other in others])))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return (means["order"] - means["moved"]) / (means["ordered"] - means["fresh"])


def stage_rho(devices: int) -> dict[str, float]:
    """ρ of OLMoE's counts on the text of its post-training, mean over layers: packed for the
    base and serving each stage (base: fresh), and packed on the base's other texts, serving it.
    """
    stages = pd.read_csv(DATA / "published/olmoe_stages.csv")
    texts = pd.read_csv(DATA / "published/real_router_counts.csv")
    texts = texts[texts.model == "OLMoE-1B-7B"]
    found: dict[str, list[float]] = {}
    for layer, own in stages.groupby("layer"):
        base = packed(own.base.to_numpy(), devices)
        for stage in ("base", "sft", "dpo"):
            found.setdefault(stage, []).append(rho(own[stage].to_numpy(), base))
        others = [
            part["count"].to_numpy() for _, part in texts[texts.layer == layer].groupby("domain")
        ]
        moved = [rho(own.base.to_numpy(), packed(other, devices)) for other in others]
        found.setdefault("text", []).append(float(np.mean(moved)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def against_bias(result: dict, limit: float = 0.005) -> dict[str, float]:
    """Of one model of the queue "placed": the largest scale of the bias that costs at most `limit`
    nats per token on every second cluster, what it costs on the others, and the busiest of eight
    devices over the mean, summed over layers, P95 over groups: in order, under that bias, and
    packed by the native counts of the windows that chose the scale.
    """
    own = result["placed"]
    tokens = np.array(own["tokens"], float)
    nats = {row["scale"]: np.array(row["nats"]) for row in own["scales"]}
    cost = {
        scale: [(value - nats[0.0])[i::2].sum() / tokens[i::2].sum() for i in (0, 1)]
        for scale, value in nats.items()
    }
    scale = max(one for one, (chosen, _) in cost.items() if chosen <= limit)
    made = np.array(own["made"]).sum(0)

    def busiest(counts: list, homes: list[list[set[int]]]) -> float:
        groups = np.array(counts).sum(0)  # both halves: groups, layers, experts
        found = [
            sum(rho(group[layer], held) for layer, held in enumerate(homes)) for group in groups
        ]
        return float(np.quantile(found, 0.95))

    order = [[{2 * d, 2 * d + 1} for d in range(8)]] * len(made)
    return {
        "scale": scale,
        "bias_lost": cost[scale][1],
        "in_order": busiest(own["native"], order),
        "bias": busiest(own["biased"], order),
        "packed": busiest(own["native"], [packed(load, 8) for load in made]),
    }
