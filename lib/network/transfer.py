"""Whether placements of experts transfer: made for the loads of one text, judged on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import stats
from lib.network import cost, layers, placement, step, tails
from lib.network.links import Fabric

SAME, OTHER = "same domain", "another domain"


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


def placements(
    load: np.ndarray, devices: int, redundant: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Placements for loads [experts], by name: in order, at random, packed, and packed with
    `redundant` copies as EPLB does, flat and in two nodes where the numbers divide.
    """
    made = {
        "in order": placement.contiguous(len(load), devices),
        "random": placement.random(len(load), devices, np.random.default_rng(seed)),
        "packed": placement.packed(load, devices),
        "replicated": placement.replicated(load, devices, redundant),
    }
    if devices % 2 == 0 and len(load) % 4 == 0 and devices > 2:
        nodes = placement.replicated(load, devices, redundant, groups=4, nodes=2)
        made["replicated, two nodes"] = nodes
    return made


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
    placement, where, rho, slowdown over even routes: means over batches).

    index [layers, all tokens, k]; packing: the token numbers whose counts are packed; batches by
    name [batches, tokens].
    """
    shape, net, machine, found = study.shape, study.net, study.machine, []
    even = step.even_layer(study.tokens, shape, net.devices)
    even_s = step.total_s(step.layer(*even, shape, net, machine))
    for layer, routes in enumerate(index):
        load = np.bincount(routes[packing].reshape(-1), minlength=shape.experts).astype(float)
        homes = placements(load, net.devices, study.redundant, study.seed + layer)
        for name, home in homes.items():
            for where, chosen in batches.items():
                cases = ((batch, home) for batch in chosen)
                sent, rows = tails.routed(routes, cases, shape, net.devices)
                s = step.total_s(step.layer(sent, rows, shape, net, machine))
                case = dict(layer=layer + 1, placement=name, where=where)
                size = dict(rho=layers.rho(rows).mean(), slowdown=(s / even_s).mean() - 1)
                found.append(case | size)
    return pd.DataFrame(found)


def domains(
    study: Study, index: np.ndarray, document: np.ndarray, domain: np.ndarray
) -> pd.DataFrame:
    """`judged` for every domain: packed on the first half of its documents, judged on batches of
    its other half ("same domain") and of the others' other halves ("another domain"); columns
    domain, layer, placement, where, rho, slowdown.

    index [layers, all tokens, k]; document and domain [all tokens] numbers.  Halves too short for a
    batch are left out.
    """
    rng, halves = np.random.default_rng(study.seed), {}
    for number in np.unique(domain):
        own = np.flatnonzero(domain == number)
        middle = np.median(np.unique(document[own]))
        first, second = own[document[own] <= middle], own[document[own] > middle]
        if min(len(first), len(second)) >= study.tokens:
            halves[number] = first, windows(second, study.tokens, study.batches, rng)
    columns = ["domain", "layer", "placement", "where", "rho", "slowdown"]
    found = [pd.DataFrame(columns=columns)]
    for number, (packing, same) in halves.items():
        where, others = {SAME: same}, [part for n, (_, part) in halves.items() if n != number]
        if others:
            where[OTHER] = np.concatenate(others)
        found.append(judged(study, index, packing, where).assign(domain=number))
    return pd.concat(found[1:] or found, ignore_index=True)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Of domains, per arm, placement and where: mean ρ and slowdown over domains and layers."""
    keys = ["arm", "placement", "where"]
    return rows.groupby(keys, sort=False)[["rho", "slowdown"]].mean().reset_index()


def table(placed: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Of means, ρ and slowdown of one arm per placement, of the same and of another domain side by
    side; NaN where a run has none.
    """
    own = placed[placed.arm == arm].pivot(index="placement", columns="where")
    wanted = [(column, where) for column in ("rho", "slowdown") for where in (SAME, OTHER)]
    names = ["in order", "random", "packed", "replicated"]
    own = own.reindex(index=names, columns=pd.MultiIndex.from_tuples(wanted))
    short = {SAME: "same", OTHER: "other"}
    own.columns = pd.Index([f"{column}_{short[where]}" for column, where in wanted])
    return own.reset_index()


def of_counts(counts: pd.DataFrame, devices: Mapping[str, int], seed: int = 0) -> pd.DataFrame:
    """Placements made for the counts of one domain, judged on each of the others', for published
    counts (columns model, domain, layer, expert, count): ρ per model, layer, domain packed for,
    placement and where ("packed for", in sample, or "another domain", the mean over those).

    devices: by model; models that it does not name are left out.
    """
    found = []
    chosen = counts[counts.model.isin(list(devices))]
    for (model, layer), own in chosen.groupby(["model", "layer"]):
        number, options = devices[model], dict(aggfunc="sum", fill_value=0)
        load = own.pivot_table(index="domain", columns="expert", values="count", **options)
        loads = load.to_numpy(float)
        for domain, packed in zip(load.index, loads, strict=True):
            for name, home in placements(packed, number, number, seed + layer).items():
                held = placement.device_load(loads, home, number)
                case = dict(model=model, layer=layer, domain=domain, placement=name)
                where = np.where(load.index == domain, "packed for", OTHER)
                rho = held.max(-1) / held.mean(-1)
                found.append(pd.DataFrame(dict(where=where, rho=rho)).assign(**case))
    keys = ["model", "layer", "domain", "placement", "where"]
    return pd.concat(found).groupby(keys, sort=False).rho.mean().reset_index()


def kept(rows: pd.DataFrame, name: str) -> tuple[float, tuple[float, float] | None]:
    """Of of_counts of one model: which share of what a placement takes off the busiest device in
    the domain that it was made for remains in others, with its 95 % bootstrap interval over layers
    and domains; 1: all of it, 0: none.
    """
    keys = ["layer", "domain"]
    pairs = rows.pivot_table(index=keys, columns=["placement", "where"], values="rho")
    cases = [(kind, where) for where in (OTHER, "packed for") for kind in ("in order", name)]
    both = pairs[cases].to_numpy()
    return _kept(both), stats.bootstrap_interval(both, _kept)


def _kept(x: np.ndarray) -> float:
    return float((x[:, 0] - x[:, 1]).mean() / (x[:, 2] - x[:, 3]).mean())
