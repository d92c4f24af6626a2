"""How much of a packed placement's gain is left on other text: loads suffice to say."""

from __future__ import annotations

import numpy as np

from lib.network import placement

RANDOM = 64  # random placements, of which the mean is taken


def table(
    counts: np.ndarray, domain: np.ndarray, cluster: np.ndarray, devices: int, seed: int = 0
) -> dict[str, float]:
    """ρ (busiest over mean device load) under four placements, and what is left of packing's gain.

    counts [documents, layers, experts], domain and cluster [documents].  The clusters of a domain
    take turns: every second one, from the first in alphabetical order, calibrates, the others are
    served.  random: mean over random placements; fresh: packed on what is served; same: packed on
    the calibration part of the same domain; other: packed on another domain, mean over them.  All
    are means over domains and layers.  kept_same, kept_other: (random − stale) / (random − fresh);
    1: nothing is lost, 0: as good as random.  Refused: fewer than two domains of two clusters.
    """
    parts = _halves(counts, domain, cluster)
    if len(parts) < 2:
        raise ValueError(
            f"drift.table: {len(parts)} domains of at least 2 clusters: must be at least 2"
        )
    rng = np.random.default_rng(seed)
    layers, experts = counts.shape[1:]
    homes = _random(experts, devices, rng)
    rho: dict[str, list[float]] = {"random": [], "fresh": [], "same": [], "other": []}
    for name, (calibration, served) in parts.items():
        others = [a + b for other, (a, b) in parts.items() if other != name]
        for layer in range(layers):
            load = served[layer]
            rho["random"].append(float(over_mean(load @ homes).mean()))
            packs = {
                "fresh": [placement.packed(load, devices)],
                "same": [placement.packed(calibration[layer], devices)],
                "other": [placement.packed(other[layer], devices) for other in others],
            }
            for kind, placed in packs.items():
                each = [busiest(load, home, devices) for home in placed]
                rho[kind].append(float(np.mean(each)))
    found = {kind: float(np.mean(values)) for kind, values in rho.items()}
    gain = found["random"] - found["fresh"]
    return found | {
        f"kept_{kind}": (found["random"] - found[kind]) / gain if gain else float("nan")
        for kind in ("same", "other")
    }


def between(
    made: np.ndarray, served: np.ndarray, devices: int, redundant: int = 0, seed: int = 0
) -> dict[str, float]:
    """ρ of loads served [layers, experts] under placements made for other loads [others, layers,
    experts], means over layers: random and fresh as in `table`, stale: mean over the others; kept:
    (random − stale) / (random − fresh).

    redundant: slots that hold copies of busy experts (`placement.replicated`); 0: packing alone.
    """
    rng = np.random.default_rng(seed)
    homes = _random(served.shape[1], devices, rng)

    def placed(load: np.ndarray) -> np.ndarray:
        if redundant:
            return placement.replicated(load, devices, redundant)
        return placement.packed(load, devices)

    rows = []
    for layer, load in enumerate(served):
        stale = [placed(other[layer]) for other in made]
        own = [[busiest(load, home, devices) for home in kind] for kind in ([placed(load)], stale)]
        rows.append([over_mean(load @ homes).mean(), *map(np.mean, own)])
    random, fresh, stale_rho = np.mean(rows, axis=0)
    kept = (random - stale_rho) / (random - fresh) if random > fresh else float("nan")
    return dict(random=random, fresh=fresh, stale=stale_rho, kept=kept)


def busiest(load: np.ndarray, home: np.ndarray, devices: int) -> float:
    """ρ of loads [experts] under a placement."""
    return float(over_mean(placement.device_load(load, home, devices)))


def over_mean(on_device: np.ndarray) -> np.ndarray:
    """[...] ρ of device loads [..., devices]."""
    return on_device.max(-1) / on_device.mean(-1)


def _random(experts: int, devices: int, rng: np.random.Generator) -> np.ndarray:
    """[RANDOM, experts, devices] shares of random placements."""
    homes = [placement.random(experts, devices, rng) for _ in range(RANDOM)]
    return np.stack([placement.share(home, experts, devices) for home in homes])


def _halves(counts: np.ndarray, domain: np.ndarray, cluster: np.ndarray) -> dict:
    """Per domain of at least two clusters its (calibration, served) loads [layers, experts]."""
    found = {}
    for name in np.unique(domain):
        mine = domain == name
        names = np.unique(cluster[mine])
        if len(names) > 1:
            first = np.isin(cluster, names[::2])
            found[name] = counts[mine & first].sum(0), counts[mine & ~first].sum(0)
    return found
