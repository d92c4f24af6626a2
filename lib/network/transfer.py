"""Whether placements of experts transfer: made for the loads of one text, judged on another.

Random placements are made for no text: `DRAWS` of them are judged, and what is told of them is the
mean and the band that holds nine in ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib.network import cost, layers, placement, step, tails
from lib.network.links import Fabric

COUNTS = Path(__file__).parents[2] / "data/published/real_router_counts.csv"
# the text that a placement was made for, as seen from the text on which it is judged
SAME, OTHER, MADE = "same domain", "another domain", "packed for"
MIXED, REST, FREE = "all domains", "all other domains", "no text"
SHORT = {SAME: "same", OTHER: "other", MIXED: "mixed", FREE: ""}
DRAWS = 200  # random placements
RANDOM = "random"
ORDER = ["in order", RANDOM, "packed", "replicated"]


@dataclass(frozen=True)
class Study:
    """Placements on the devices of `net`, with `redundant` slots for copies, judged on `batches`
    batches of `tokens` tokens of a layer of this shape.
    """

    shape: cost.Shape
    net: Fabric
    machine: step.Machine
    tokens: int
    batches: int
    redundant: int
    seed: int = 0


def placements(load: np.ndarray, devices: int, redundant: int) -> dict[str, np.ndarray]:
    """Placements for loads [experts], by name: in order, packed, and packed with `redundant` copies
    as EPLB does, flat and in two nodes where the numbers divide.
    """
    made = {
        "in order": placement.contiguous(len(load), devices),
        "packed": placement.packed(load, devices),
        "replicated": placement.replicated(load, devices, redundant),
    }
    if devices % 2 == 0 and len(load) % 4 == 0 and devices > 2:
        nodes = placement.replicated(load, devices, redundant, groups=4, nodes=2)
        made["replicated, two nodes"] = nodes
    return made


def randoms(experts: int, devices: int, seed: int) -> np.ndarray:
    """[DRAWS, experts] random balanced placements; the first is that of `seed` alone."""
    rngs = [np.random.default_rng(seed if not at else [seed, at]) for at in range(DRAWS)]
    return np.stack([placement.random(experts, devices, rng) for rng in rngs])


def held(loads: np.ndarray, homes: np.ndarray, devices: int) -> np.ndarray:
    """[rows, placements] the busiest device over the mean, of loads [rows, experts] under
    placements without copies, [placements, experts].
    """
    order = np.argsort(homes, axis=1, kind="stable")
    own = loads[:, order].reshape(len(loads), len(homes), devices, -1).sum(-1)
    return own.max(-1) / own.mean(-1)


def windows(part: np.ndarray, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] batches of consecutive ones of the token numbers `part`, from random
    starts.
    """
    if not 1 <= tokens <= len(part):
        raise ValueError(
            f"transfer.windows: tokens = {tokens}: must be from 1 to {len(part)}, those of the part"
        )
    return part[rng.integers(0, len(part) - tokens + 1, (number, 1)) + np.arange(tokens)]


def judged(
    study: Study, index: np.ndarray, packing: np.ndarray, batches: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Placements made for one part of recorded routes, judged on batches of others (columns layer,
    placement, draw, where, rho, slowdown over even routes: means over batches).  Those that are
    made for no text, in order and at random, are judged on the batches "no text" alone; of random
    ones there is a row per draw, each slowdown that of one batch.

    index [layers, all tokens, k]; packing: the token numbers whose counts are packed; batches by
    name [batches, tokens].
    """
    shape, net, found = study.shape, study.net, []
    for layer, routes in enumerate(index):
        load = np.bincount(routes[packing].reshape(-1), minlength=shape.experts).astype(float)
        homes = placements(load, net.devices, study.redundant)
        for where, chosen in batches.items():
            for name, home in homes.items():
                if (name == "in order") == (where == FREE):
                    rho, slow = _timed(study, routes, [(batch, home) for batch in chosen])
                    row = dict(placement=name, draw=[0], rho=rho.mean(), slowdown=slow.mean())
                    found.append(pd.DataFrame(row | dict(layer=layer + 1, where=where)))
            if where == FREE:
                found.append(_at_random(study, routes, chosen, layer).assign(layer=layer + 1))
    return pd.concat(found, ignore_index=True)


def _at_random(study: Study, routes: np.ndarray, batches: np.ndarray, layer: int) -> pd.DataFrame:
    """The rows of `judged` of random placements: ρ of each over all batches, slowdown of one."""
    shape, devices = study.shape, study.net.devices
    homes = randoms(shape.experts, devices, study.seed + layer)
    pairs = [(batches[at % len(batches)], home) for at, home in enumerate(homes)]
    chosen = [np.bincount(routes[batch].reshape(-1), minlength=shape.experts) for batch in batches]
    rho, (_, slow) = held(np.stack(chosen), homes, devices).mean(0), _timed(study, routes, pairs)
    row = dict(placement=RANDOM, draw=np.arange(DRAWS), rho=rho, slowdown=slow)
    return pd.DataFrame(row | dict(where=FREE))


def _timed(study: Study, routes: np.ndarray, cases: list) -> tuple[np.ndarray, np.ndarray]:
    """ρ and the slowdown over even routes [cases] of batches under placements."""
    shape, net = study.shape, study.net
    even = step.layer(*step.even_layer(study.tokens, shape, net.devices), shape, net, study.machine)
    sent, rows = tails.routed(routes, cases, shape, net.devices)
    s = step.total_s(step.layer(sent, rows, shape, net, study.machine))
    return layers.rho(rows), s / step.total_s(even) - 1


def domains(
    study: Study, index: np.ndarray, document: np.ndarray, domain: np.ndarray
) -> pd.DataFrame:
    """`judged` for every domain: packed on the first half of its documents, judged on batches of
    its other half ("same domain") and of the others' other halves ("another domain"); and packed on
    as many tokens of every domain's first half, judged on its other half ("all domains"), on which
    placements for "no text" are judged too; columns domain, layer, placement, draw, where, rho,
    slowdown.

    index [layers, all tokens, k]; document and domain [all tokens] numbers.  Halves too short for a
    batch are left out; where all are, a batch is as long as the longest.  Without any, as of single
    documents, ρ and slowdown are NaN.
    """
    rng, halves = np.random.default_rng(study.seed), {}
    parts = {number: _halves(domain == number, document) for number in np.unique(domain)}
    longest = max(min(len(first), len(second)) for first, second in parts.values())
    if longest < study.net.devices:
        names = placements(np.ones(study.shape.experts), study.net.devices, study.redundant)
        row = dict(
            domain=0, layer=1, draw=0, where=[FREE if n == ORDER[0] else SAME for n in names]
        )
        return pd.DataFrame(row | dict(placement=[*names], rho=np.nan, slowdown=np.nan))
    study = replace(study, tokens=min(study.tokens, longest))
    for number, (first, second) in parts.items():
        if min(len(first), len(second)) >= study.tokens:
            halves[number] = first, windows(second, study.tokens, study.batches, rng)
    found = []
    least = min(len(first) for first, _ in halves.values())
    mixture = [first[:least] for first, _ in halves.values()]
    for number, (packing, same) in halves.items():
        where, others = (
            {SAME: same, FREE: same},
            [part for n, (_, part) in halves.items() if n != number],
        )
        if others:
            where[OTHER] = np.concatenate(others)
        found.append(judged(study, index, packing, where).assign(domain=number))
        if others:
            mixed = judged(study, index, np.concatenate(mixture), {MIXED: same})
            found.append(mixed.assign(domain=number))
    return pd.concat(found, ignore_index=True)


def _halves(own: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The token numbers of the first half of a domain's documents, and of its others."""
    own = np.flatnonzero(own)
    middle = np.median(np.unique(document[own]))
    return own[document[own] <= middle], own[document[own] > middle]


def banded(rows: pd.DataFrame, keys: list[str], of: list[str]) -> pd.DataFrame:
    """The means of columns per keys, over all but `draw` first; rho_low and rho_high are the band
    that holds nine in ten of the draws, NaN where there is one alone.
    """
    each = rows.groupby([*keys, "draw"], sort=False)[of].mean()
    groups = each.groupby(level=keys, sort=False)
    ends = {f"rho_{end}": groups.rho.quantile(q) for end, q in (("low", 0.05), ("high", 0.95))}
    several = groups.rho.size() > 1
    found = groups.mean().assign(**{name: edge.where(several) for name, edge in ends.items()})
    return found.reset_index()


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Of domains, per arm, placement and where: mean ρ, with its band over draws, and slowdown over
    domains and layers.
    """
    return banded(rows, ["arm", "placement", "where"], ["rho", "slowdown"])


def table(placed: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Of means, ρ with its band over draws and slowdown of one arm, per placement and the text that
    it was made for (made_for); without those in two nodes.
    """
    own = placed[(placed.arm == arm) & ~placed.placement.str.contains("nodes")]
    own = own.rename(columns={"where": "made_for"})
    ordered = own.sort_values("placement", key=lambda names: names.map(ORDER.index), kind="stable")
    return ordered[["placement", "made_for", "rho", "rho_low", "rho_high", "slowdown"]]


def told(placed: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Of means, the ρ of one arm that sentences tell: placements order, random, packed and
    replicated; where they were made for: same, other or mixed, nothing of those for no text.
    """
    own = placed[(placed.arm == arm) & ~placed.placement.str.contains("nodes")]
    own = own.replace({"where": SHORT, "placement": {"in order": "order"}})
    return own[["placement", "where", "rho", "rho_low", "rho_high"]]
