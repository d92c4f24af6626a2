"""Whether placements of experts transfer: made for the loads of one text, judged on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.network import cost, layers, placement, step, tails
from lib.network.links import Fabric

COUNTS = Path(__file__).parents[2] / "data/published/real_router_counts.csv"
SAME, OTHER, MADE = "same domain", "another domain", "packed for"
SHORT = {SAME: "same", OTHER: "other"}


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
    """Of means, ρ and slowdown of one arm per placement, in the same and in another domain side by
    side.
    """
    own = placed[placed.arm == arm].pivot(index="placement", columns="where")
    wanted = [(column, where) for column in ("rho", "slowdown") for where in (SAME, OTHER)]
    own = own.reindex(placed.placement.unique(), columns=pd.MultiIndex.from_tuples(wanted))
    own.columns = pd.Index([f"{column}_{SHORT[where]}" for column, where in wanted])
    return own.reset_index()


def told(placed: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Of means, the ρ of one arm that sentences tell: placements order, packed and replicated,
    where same or other; the order of experts is the same for all.
    """
    own = placed[placed.arm == arm].replace({"in order": "order", **SHORT})
    ordered = (own.placement == "order") & (own["where"] == "same")
    return own[ordered | own.placement.isin(["packed", "replicated"])]


def of_counts(
    counts: pd.DataFrame, cases: Mapping[str, tuple[str, int]], seed: int = 0
) -> pd.DataFrame:
    """Placements made for the counts of one domain, judged on each of the others', for published
    counts (columns model, domain, layer, expert, count): ρ per group, layer, domain packed for,
    placement and where ("packed for", in sample, or "another domain", the mean over those).

    cases: by group, the model and how many devices share its experts; as many slots hold copies.
    """
    found = []
    for group, (model, devices) in cases.items():
        for layer, own in counts[counts.model == model].groupby("layer"):
            load = own.groupby(["domain", "expert"])["count"].sum().unstack(fill_value=0)
            loads = load.to_numpy(float)
            for domain, packed in zip(load.index, loads, strict=True):
                for name, home in placements(packed, devices, devices, seed + int(layer)).items():
                    held = placement.device_load(loads, home, devices)
                    case = dict(group=group, layer=layer, domain=domain, placement=name)
                    where = np.where(load.index == domain, MADE, OTHER)
                    rho = held.max(-1) / held.mean(-1)
                    found.append(pd.DataFrame(dict(where=where, rho=rho)).assign(**case))
    keys = ["group", "layer", "domain", "placement", "where"]
    return pd.concat(found).groupby(keys, sort=False).rho.mean().reset_index()


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Of of_counts, per group, placement and where: mean ρ over layers and pairs of domains."""
    return rows.groupby(["group", "placement", "where"], sort=False).rho.mean().reset_index()


def counted(rows: pd.DataFrame, group: str) -> pd.Series:
    """Of of_counts, mean ρ of one group: counts_order (experts in order), packed and copied in the
    domain that they were made for (counts_packed, counts_copied), and in others (counts_moved,
    counts_copied_moved).
    """
    at = rows[rows.group == group].groupby(["placement", "where"]).rho.mean()
    return pd.Series(
        dict(
            counts_order=at["in order", OTHER],
            counts_packed=at["packed", MADE],
            counts_moved=at["packed", OTHER],
            counts_copied=at["replicated", MADE],
            counts_copied_moved=at["replicated", OTHER],
        )
    )


def kept(rows: pd.DataFrame, cases: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Of of_counts, which share of what a placement takes off the busiest device in the domain that
    it was made for remains in others: 1 all of it, 0 none (columns name, value).

    cases: by name, the group and the placement.  Without an interval: layers and domains of one
    model are no sample of models.
    """
    found = []
    for name, (group, made) in cases.items():
        rho = rows[rows.group == group].groupby(["placement", "where"]).rho.mean()
        gain = {where: rho["in order", where] - rho[made, where] for where in (OTHER, MADE)}
        found.append(dict(name=name, value=gain[OTHER] / gain[MADE]))
    return pd.DataFrame(found)
