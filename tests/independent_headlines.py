"""Ten headline values once more, without `lib`: NumPy and loops over what was published.

    python tests/independent_headlines.py

prints each as published and as computed here.  `test_independent_headlines.py` wants the same
digits.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

import independent_assignment
import independent_training
import numpy as np
import unpacked
from scipy.stats import t as student

DATA = Path(__file__).parents[1] / "data"
ARMS = ("without", "with")
DEVICES, BATCH, BATCHES = 8, 2048, 2000  # the network chapter's, of the published run


def published(chapter: str) -> dict[str, dict]:
    """The values of a chapter."""
    return json.loads((DATA / f"reference/{chapter}/values.json").read_text())["values"]


@cache
def ladder() -> dict[tuple[str, int], dict]:
    """The results on other checkpoints, by configuration and seed."""
    files = sorted((DATA / "reference/ladder").glob("*.packed"))
    rows = [row for file in files for row in unpacked.read(file)]
    return {(row["job"]["name"], row["job"]["seed"]): row for row in rows}


@cache
def routes(arm: str) -> dict[str, np.ndarray]:
    """What a file of routes holds; expert_index [layers, tokens, k] of 16 experts and token ids
    unpacked: one byte for the pair of experts, tokens in order of their id and of the id before.
    """
    with np.load(DATA / f"reference/01/trace_{arm}.npz") as file:
        found = {name: file[name] for name in file.files}

    def numbers(packed: np.ndarray) -> np.ndarray:
        return np.frombuffer(lzma.decompress(packed[1:].tobytes()), f"<u{packed[0]}")

    token, code = numbers(found.pop("token")), numbers(found.pop("choices"))
    layers, tokens, _ = found.pop("layout")
    alike = np.lexsort((np.r_[token[:1], token[:-1]], token))
    index = np.empty((layers, tokens, 2), np.int64)
    index[:, alike] = np.stack([code // 16, code % 16], -1).reshape(layers, tokens, 2)
    return found | {"expert_index": index, "token": token}


def gini(load: np.ndarray) -> np.ndarray:
    """[...] of loads [..., experts]."""
    load = np.sort(load, -1)
    experts = load.shape[-1]
    return (load * (2 * np.arange(1, experts + 1) - experts - 1)).sum(-1) / load.sum(-1) / experts


def loads(arm: str, group: np.ndarray) -> np.ndarray:
    """[groups, layers, experts] of the tokens of each group [tokens]."""
    index = routes(arm)["expert_index"]
    found = np.zeros((group.max() + 1, len(index), 16))
    for layer, chosen in enumerate(index):
        for slot in chosen.T:
            np.add.at(found, (group, layer, slot), 1)
    return found


def exchange(arm: str, batches: np.ndarray) -> np.ndarray:
    """[layers, batches] time of an exchange of `batches` [batches, tokens] over that of even
    routes: the busiest card in either direction, there and back; each batch has its own placement.
    """
    experts = np.repeat(np.arange(DEVICES), 16 // DEVICES)
    homes = np.stack(
        [np.random.default_rng([0, i]).permutation(experts) for i in range(len(batches))]
    )
    source = np.arange(BATCH) * DEVICES // BATCH
    even = 2 * BATCH / DEVICES * (1 - 1 / DEVICES)
    found, room = [], DEVICES**2 * np.arange(len(batches))[:, None, None]
    own = np.arange(len(batches))[:, None, None]
    for index in routes(arm)["expert_index"]:
        pair = room + source[:, None] * DEVICES + homes[own, index[batches]]
        sent = np.bincount(pair.ravel(), minlength=len(batches) * DEVICES**2)
        away = sent.reshape(-1, DEVICES, DEVICES) * (1 - np.eye(DEVICES))
        found.append(np.maximum(away.sum(1).max(1), away.sum(2).max(1)) / even)
    return np.array(found)


def of_text(arm: str) -> np.ndarray:
    """[BATCHES, BATCH] token numbers: documents shuffled anew for every pass over the text."""
    pieces = of_documents(arm)
    rng, drawn, size = np.random.default_rng(0), [], 0
    while size < BATCHES * BATCH:
        drawn += [pieces[i] for i in rng.permutation(len(pieces))]
        size += sum(map(len, pieces))
    return np.concatenate(drawn)[: BATCHES * BATCH].reshape(BATCHES, BATCH)


def of_one_prompt(arm: str) -> np.ndarray:
    """[BATCHES, BATCH] token numbers of one document each, over and over."""
    pieces, rng = of_documents(arm), np.random.default_rng(0)
    return np.stack([np.resize(pieces[i], BATCH) for i in rng.integers(len(pieces), size=BATCHES)])


def of_documents(arm: str) -> list[np.ndarray]:
    """The token numbers of each document."""
    document = routes(arm)["document"]
    return np.split(np.arange(len(document)), np.flatnonzero(np.diff(document)) + 1)


def per_token(nats: np.ndarray, tokens: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """[1 + clusters] nats per token: of all documents, and without one cluster at a time."""
    kept = [cluster != name for name in np.unique(cluster)]
    return np.array([nats[rows].sum() / tokens[rows].sum() for rows in (cluster == cluster, *kept)])


def interval(each: list[np.ndarray]) -> dict[str, float]:
    """Over checkpoints [1 + clusters]: value, low, high, error, freedom.  Variances of the mean of
    checkpoints and of the jackknife over clusters are added; below eight checkpoints clusters
    alone.
    """
    table = np.array(each)
    n, m = len(table), table.shape[1] - 1
    left = table[:, 1:].mean(0)
    squared, freedom = (m - 1) / m * ((left - left.mean()) ** 2).sum(), m - 1
    if n >= 8:
        squared, freedom = squared + table[:, 0].var(ddof=1) / n, min(n, m) - 1
    value, error = table[:, 0].mean(), np.sqrt(squared)
    half = student.ppf(0.975, freedom) * error
    ends = {"low": value - half, "high": value + half}
    return {"value": value, **ends, "error": error, "freedom": freedom}


def gain(one: dict, other: dict) -> np.ndarray:
    """[1 + clusters] nats per token of a result above another, on the same documents."""
    a, b = (row.get("gain") or row["profile"] for row in (one, other))
    gap = np.array(a["nats"]) - np.array(b["nats"])
    return per_token(gap, np.array(a["tokens"], float), np.array(a["cluster"]))


def decoded(result: dict, **about: object) -> np.ndarray:
    """[documents] nats of the one setting of the prefix protocol that is so."""
    (found,) = (
        row
        for row in result["prefix"]["settings"]
        if all(row.get(name) == value for name, value in about.items())
    )
    return np.array(found["nats"])


def above(result: dict, one: dict, other: dict) -> np.ndarray:
    """[1 + clusters] nats per token of a setting above another, in one model."""
    own = result["prefix"]
    gap, cluster = decoded(result, **one) - decoded(result, **other), np.array(own["cluster"])
    return per_token(gap, np.full(len(gap), float(own["tokens"])), cluster)


def price(result: dict) -> np.ndarray:
    """[1 + clusters] what re-routing at a capacity factor of 1.25 costs one model."""
    way = {"family": "reroute", "gamma": 1.25, "policy": "native"}
    return above(result, way, {"family": "native"})


def profiled() -> dict[str, float]:
    """Of the routes."""
    without = loads("without", np.zeros(len(routes("without")["domain"]), int))[0]
    inside = gini(loads("with", routes("with")["domain"].astype(int)))
    return {
        "maxvio_without": float((without.max(1) / without.mean(1) - 1).mean()),
        "gini_domain_with": float(inside.mean()),
    }


def assigned() -> dict[str, float]:
    """Of the documents that were decoded."""
    table = independent_assignment.documents()
    own = table[
        (table.arm == "without") & (table.protocol == "prefix") & (table.policy == "native")
    ]
    run = {name: rows for name, rows in own.groupby("setting")}
    nats = {name: rows.nats.sum() / rows.tokens.sum() for name, rows in run.items()}
    return {
        "perplexity_reroute": float(np.exp(nats["reroute 1.25"])),
        "optimal_over_reroute": nats["optimal 1.25"] - nats["reroute 1.25"],
    }


def trained() -> dict[str, float]:
    """Of the fine-tuning runs on the text that decides."""
    found: dict[tuple[str, float], list[float]] = {}
    for (loss, coefficient, _), (balance, _) in independent_training.records(4).items():
        found.setdefault((loss, coefficient), []).append(balance["gini"])
    means = {key: float(np.mean(values)) for key, values in found.items()}
    stock = min(value for (loss, _), value in means.items() if loss == "stock")
    return {"gini_switch": means["switch", 0.1], "gini_stock_best": stock}


def sent() -> dict[str, float]:
    """Of the exchanges over one node."""
    return {
        "slowdown_trace": float(exchange("without", of_text("without")).mean()),
        "prompt_with": float(exchange("with", of_one_prompt("with")).mean()),
    }


def over_pairs() -> dict[str, dict[str, float]]:
    """Of the pairs of models, with their intervals."""
    known = ladder()
    pairs = [(known["none", seed], known["switch", seed]) for seed in range(1, 9)]
    return {
        "gain_switch": interval([gain(*pair) for pair in pairs]),
        "estimate_price": interval([price(one) - price(other) for one, other in pairs]),
    }


def headlines() -> dict[str, float]:
    """The ten, by chapter and name."""
    found = {"01": profiled(), "02": assigned(), "03": trained(), "04": sent()}
    found["06"] = {name: row["value"] for name, row in over_pairs().items()}
    return {f"{of}.{name}": value for of, own in found.items() for name, value in own.items()}


if __name__ == "__main__":
    for name, value in headlines().items():
        told = published(name[:2])[name[3:]]
        print(f"{name:24} published {told['text']:>8}, here {value:{told['fmt']}}")
