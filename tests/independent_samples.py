"""What samples say, without `lib`: from how many documents a profile is settled, how far the draw
of serving batches moves a number, and what a placement keeps on another text.

    python tests/independent_samples.py
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from independent_headlines import ARMS, DATA, gini, ladder, loads, of_documents, routes

SIZES = [2**i for i in range(9)]  # documents; half of all is the most
THINGS = ("gini", "dead", "hot")
DEVICES, RANDOM = 8, 64


def near(arm: str, draws: int, seed: int = 1) -> dict[str, list[float]]:
    """By thing, for each of SIZES the share of random sets of so many documents that say what the
    whole text says: Gini within a tenth; the same dead experts; nine in ten of the two busiest.
    """
    counts = loads(arm, routes(arm)["document"].astype(int))
    whole, rng = counts.sum(0), np.random.default_rng(seed)
    hot = [set(row.argsort()[-2:]) for row in whole]
    found: dict[str, list[float]] = {name: [] for name in THINGS}
    for size in SIZES:
        seen = []
        for _ in range(draws):
            load = counts[rng.permutation(len(counts))[:size]].sum(0)
            both = [len(set(row.argsort()[-2:]) & own) for row, own in zip(load, hot, strict=True)]
            close = abs(gini(load).mean() / gini(whole).mean() - 1) <= 0.1
            same = ((load == 0) == (whole == 0)).all()
            seen.append((close, same, sum(both) >= 0.9 * 2 * len(hot)))
        for name, share in zip(THINGS, np.mean(seen, axis=0), strict=True):
            found[name].append(float(share))
    return found


def settled(shares: list[float], sure: float = 0.95) -> int | None:
    """The fewest documents from which on every larger number is sure; None where none is."""
    first = None
    for size, share in reversed(list(zip(SIZES, shares, strict=True))):
        if share < sure:
            break
        first = size
    return first


def violations(arm: str, draws: int, tokens: int = 4096) -> np.ndarray:
    """[draws] P95 of MaxVio over one pass of serving batches, mean over layers: nothing but the
    order of the documents differs.
    """
    index, pieces = routes(arm)["expert_index"], of_documents(arm)
    rng, found = np.random.default_rng(1), []
    for _ in range(draws):
        order = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        batch = order[: len(order) // tokens * tokens]
        number = np.arange(len(batch)) // tokens
        each = []
        for chosen in index[:, batch]:
            load = np.bincount(
                (number[:, None] * 16 + chosen).ravel(), minlength=(number[-1] + 1) * 16
            ).reshape(-1, 16)
            each.append(np.quantile(load.max(1) / load.mean(1) - 1, 0.95))
        found.append(np.mean(each))
    return np.array(found)


def inside_domains(arm: str, draws: int) -> tuple[float, np.ndarray]:
    """(Gini within domains, [draws] the same where whole clusters change their domain), means over
    domains and layers.
    """
    own = routes(arm)
    cluster = own["cluster"][own["document"]].astype(int)
    counts = loads(arm, cluster)
    home = np.array([own["domain"][cluster == number][0] for number in range(len(counts))])
    rng = np.random.default_rng(1)

    def mean(of: np.ndarray) -> float:
        return float(np.mean([gini(counts[of == name].sum(0)).mean() for name in np.unique(of)]))

    return mean(home), np.array([mean(rng.permutation(home)) for _ in range(draws)])


def rho(load: np.ndarray, home: list[list[int]]) -> float:
    """Busiest device over the mean; home: the experts of each slot of a device, copies share."""
    copies = np.bincount(np.concatenate(home), minlength=len(load))
    return float(max((load / copies)[own].sum() for own in home) * len(home) / load.sum())


def packed(load: np.ndarray, devices: int, copies: int = 0) -> list[list[int]]:
    """Experts, with so many copies of the busiest, the busiest slot first to the emptiest device
    with room.
    """
    held, number = list(range(len(load))), np.ones(len(load))
    for _ in range(copies):
        held.append(int((load / number).argmax()))
        number[held[-1]] += 1
    home: list[list[int]] = [[] for _ in range(devices)]
    total, room = np.zeros(devices), len(held) // devices
    for expert in sorted(held, key=lambda e: -load[e] / number[e]):
        free = [d for d in range(devices) if len(home[d]) < room]
        best = min(free, key=lambda d: total[d])
        home[best].append(expert)
        total[best] += load[expert] / number[expert]
    return home


def at_random(experts: int, devices: int, rng: np.random.Generator) -> list[list[int]]:
    """As many experts on each device."""
    return rng.permutation(experts).reshape(devices, -1).tolist()


def kept(result: dict) -> float:
    """Of what packing on the text itself takes off random placements, the share that packing on
    another domain takes off: every second cluster of a domain places, the others are served.
    """
    own = result["profile"]
    counts, domain, cluster = (np.array(own[name]) for name in ("counts", "domain", "cluster"))
    halves = {}
    for name in np.unique(domain):
        names = np.unique(cluster[domain == name])
        first = np.isin(cluster, names[::2])
        halves[name] = [counts[(domain == name) & rows].sum(0) for rows in (first, ~first)]
    rng, found = np.random.default_rng(1), []
    homes = [at_random(counts.shape[2], DEVICES, rng) for _ in range(RANDOM)]
    for name, (_, served) in halves.items():
        others = [first + last for other, (first, last) in halves.items() if other != name]
        for layer, load in enumerate(served):
            moved = [rho(load, packed(other[layer], DEVICES)) for other in others]
            free = np.mean([rho(load, home) for home in homes])
            found.append((free, rho(load, packed(load, DEVICES)), np.mean(moved)))
    free, fresh, stale = np.mean(found, axis=0)
    return float((free - stale) / (free - fresh))


def stages(copies: int) -> dict[str, float]:
    """The same of OLMoE's base after post-training, and of the base on its other texts."""
    table = pd.read_csv(DATA / "published/olmoe_stages.csv")
    texts = pd.read_csv(DATA / "published/real_router_counts.csv")
    texts = texts[texts.model == "OLMoE-1B-7B"]
    rng, found = np.random.default_rng(1), []
    for layer, own in table.groupby("layer"):
        base = own.base.to_numpy(float)
        for name in ("sft", "dpo", "text"):
            load, made = (base, [base]) if name == "text" else (own[name].to_numpy(float), [base])
            if name == "text":
                parts = texts[texts.layer == layer].groupby("domain")
                made = [part.sort_values("expert")["count"].to_numpy(float) for _, part in parts]
            homes = [at_random(len(load), DEVICES, rng) for _ in range(RANDOM)]
            stale = [rho(load, packed(other, DEVICES, copies)) for other in made]
            fresh = rho(load, packed(load, DEVICES, copies))
            found.append((name, np.mean([rho(load, h) for h in homes]), fresh, np.mean(stale)))
    means = pd.DataFrame(found, columns=["name", "free", "fresh", "stale"]).groupby("name").mean()
    return ((means.free - means.stale) / (means.free - means.fresh)).to_dict()


if __name__ == "__main__":
    for arm in ARMS:
        shares = near(arm, 200)
        for name, values in shares.items():
            print(arm, name, settled(values), [round(value, 2) for value in values])
        inside, null = inside_domains(arm, 200)
        print(arm, f"inside domains {inside:.3f}, clusters dealt at random {null.mean():.3f}")
    drawn = violations("without", 20)
    print(
        f"P95 of MaxVio {drawn.mean():.3f}, standard deviation over draws {drawn.std(ddof=1):.3f}"
    )
    for name in ("none", "switch"):
        own = [kept(ladder()[name, seed]) for seed in range(1, 9)]
        print(name, "kept on another domain", np.round(np.mean(own), 3))
    print(stages(0), stages(DEVICES))
