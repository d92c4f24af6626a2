"""Studies of the network chapter: routes drawn or recorded, placed, sent and computed; tables of
simulated times.

Draws are paired: the same seed gives the same random numbers at every level, fabric and machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from lib import stats
from lib.network import cost, fluid, placement, step, traffic
from lib.network.fabric import Fabric

Fabrics = Mapping[str, Callable[[int], Fabric]]  # by name, devices → fabric
Routes = tuple[
    np.ndarray, np.ndarray
]  # bytes [..., devices, devices] of a dispatch, rows [..., devices, experts]


def routed(index: np.ndarray, home: np.ndarray, shape: cost.Shape, devices: int) -> Routes:
    """What routes [tokens, k] under a placement send and compute, in bfloat16."""
    return traffic.matrix(index, home, devices, 2.0 * shape.hidden), traffic.slots(
        index, home, devices, shape.experts
    )


def drawn(
    shape: cost.Shape, devices: int, tokens: int, chances: np.ndarray, seeds: int, seed: int = 0
) -> Routes:
    """Synthetic routes of `tokens` tokens on each device with inclusion probabilities `chances`
    [experts], labels permuted per seed, experts in order: what they send and compute, [seeds, …].
    """
    home, found = placement.contiguous(shape.experts, devices), []
    for i in range(seeds):
        rng = np.random.default_rng([seed, i])
        labels = rng.permutation(shape.experts)
        index = labels[traffic.sample(chances, shape.k, devices * tokens, rng, share=tokens)]
        found.append(routed(index, home, shape, devices))
    return tuple(np.stack(part) for part in zip(*found, strict=True))


def levels(
    models: Iterable[step.Model],
    devices: Iterable[int],
    tokens: Iterable[int],
    wanted: Iterable[float],
    fabrics: Fabrics,
    machine: step.Machine,
    *,
    seeds: int,
    seed: int = 0,
    exact_up_to: int = 0,
    overlap: bool = False,
) -> pd.DataFrame:
    """A layer's time and its parts over model × devices × tokens of one device × fabric × level ×
    seed, a row per draw.

    Columns: shape, devices, tokens, fabric, level, seed, rho (busiest device's rows over the mean),
    s, even_s (perfectly even routes), the parts of `step` in seconds, and excess_… of each part as
    a share of even_s.  The wire is max-min fair up to `exact_up_to` devices, its bound beyond.
    Left out: devices that do not divide the experts, levels out of range.
    """
    found = []
    for model in models:
        top = traffic.highest_level(model.shape.experts, model.shape.k)
        for count in (count for count in devices if model.shape.experts % count == 0):
            for batch in tokens:
                even = step.even_layer(count * batch, model.shape, count)
                nets = {name: make(count) for name, make in fabrics.items()}
                time_s = fluid.makespan_s if count <= exact_up_to else fluid.bottleneck_bound_s
                options = dict(machine=machine, overlap=overlap, time_s=time_s)
                base = {
                    name: step.of_model(*even, model, net, **options) for name, net in nets.items()
                }
                for level in (level for level in wanted if level < top):
                    chances = traffic.inclusion(model.shape.experts, model.shape.k, level)
                    sent, rows = drawn(model.shape, count, batch, chances, seeds, seed)
                    held = rows.sum(-1)
                    for name, net in nets.items():
                        parts = step.of_model(sent, rows, model, net, **options)
                        excess = {
                            f"excess_{part}": share
                            for part, share in step.excess(parts, base[name]).items()
                        }
                        found.append(
                            pd.DataFrame(
                                dict(
                                    shape=model.name,
                                    devices=count,
                                    tokens=batch,
                                    fabric=name,
                                    level=level,
                                    seed=np.arange(seeds),
                                    rho=held.max(-1) / held.mean(-1),
                                    s=step.total_s(parts),
                                    even_s=float(step.total_s(base[name])),
                                    **parts,
                                    **excess,
                                )
                            )
                        )
    return pd.concat(found, ignore_index=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per shape, devices, tokens, fabric and level: mean slowdown over even routes with its 95 %
    interval over seeds, its 95th percentile, the mean ρ, and the parts of the mean slowdown.
    """
    keys = ["shape", "devices", "tokens", "fabric", "level"]
    found = []
    for key, own in rows.groupby(keys, sort=False):
        slowdown = own.s / own.even_s - 1
        low, high = stats.mean_interval(slowdown)
        parts = {part: own[f"excess_{part}"].mean() for part in step.PARTS}
        found.append(
            dict(zip(keys, key, strict=True))
            | dict(
                rho=own.rho.mean(),
                slowdown=slowdown.mean(),
                low=low,
                high=high,
                p95=np.quantile(slowdown, 0.95),
                even_us=1e6 * own.even_s.iloc[0],
            )
            | parts
        )
    return pd.DataFrame(found)


def carried(
    models: Iterable[step.Model],
    devices: int,
    tokens: Iterable[int],
    loads: np.ndarray,
    recorded_k: int,
    make: Callable[[int], Fabric],
    machine: step.Machine,
    *,
    seeds: int,
    seed: int = 0,
) -> pd.DataFrame:
    """The imbalance of recorded loads [layers, experts], top-recorded_k, carried to other models'
    layers (traffic.fitted): mean slowdown over even routes and mean ρ per shape and tokens of a
    device, with intervals over seeds, each the mean over layers (synthetic).
    """
    found = []
    for model in (model for model in models if model.shape.experts % devices == 0):
        for batch in tokens:
            even = step.total_s(
                step.of_model(
                    *step.even_layer(devices * batch, model.shape, devices),
                    model,
                    make(devices),
                    machine=machine,
                )
            )
            slowdown, rho = np.empty((len(loads), seeds)), np.empty((len(loads), seeds))
            for layer, load in enumerate(loads):
                sent, rows = drawn(
                    model.shape,
                    devices,
                    batch,
                    traffic.fitted(load, model.shape.experts, model.shape.k, recorded_k),
                    seeds,
                    seed,
                )
                slowdown[layer] = (
                    step.total_s(step.of_model(sent, rows, model, make(devices), machine=machine))
                    / even
                    - 1
                )
                rho[layer] = rows.sum(-1).max(-1) / rows.sum(-1).mean(-1)
            low, high = stats.mean_interval(slowdown.mean(0))
            found.append(
                dict(
                    shape=model.name,
                    devices=devices,
                    tokens=batch,
                    rho=rho.mean(),
                    slowdown=slowdown.mean(),
                    low=low,
                    high=high,
                )
            )
    return pd.DataFrame(found)


def tails(
    index: np.ndarray,
    shape: cost.Shape,
    net: Fabric,
    machine: step.Machine,
    batches: np.ndarray,
    placements: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Where the tail of a layer's time comes from: percentiles over the mean, per source and layer
    (simulated).

    index: recorded routes [layers, all tokens, k]; batches [batches, tokens] of token numbers.
    Sources: batch, over batches under one placement; placement, over random placements of one
    batch; both, each batch under its own.
    """
    homes = [
        placement.random(shape.experts, net.devices, np.random.default_rng([seed, i]))
        for i in range(max(placements, len(batches)))
    ]
    cases = {
        "batch": [(batch, homes[0]) for batch in batches],
        "placement": [(batches[0], home) for home in homes[:placements]],
        "both": list(zip(batches, homes, strict=False)),
    }
    found = []
    for layer, routes in enumerate(index):
        for source, pairs in cases.items():
            sent, rows = (
                np.stack(part)
                for part in zip(
                    *(routed(routes[b], home, shape, net.devices) for b, home in pairs), strict=True
                )
            )
            s = step.total_s(step.layer_s(sent, rows, shape, net, machine))
            found.append(
                dict(
                    layer=layer + 1,
                    source=source,
                    mean_us=1e6 * s.mean(),
                    **{f"p{q}": np.quantile(s, q / 100) / s.mean() for q in (50, 95, 99)},
                )
            )
    return pd.DataFrame(found)


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
        made["replicated, two nodes"] = placement.replicated(
            load, devices, redundant, groups=4, nodes=2
        )
    return made


def moved(
    index: np.ndarray,
    packing: np.ndarray,
    batches: Mapping[str, np.ndarray],
    shape: cost.Shape,
    net: Fabric,
    machine: step.Machine,
    redundant: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Placements made for one part of recorded routes, judged on batches of others (columns layer,
    placement, where, rho, slowdown over even routes: means over batches).

    index [layers, all tokens, k]; packing: the token numbers whose counts are packed; batches by
    name [batches, tokens].
    """
    found = []
    for layer, routes in enumerate(index):
        load = np.bincount(routes[packing].reshape(-1), minlength=shape.experts).astype(float)
        for name, home in placements(load, net.devices, redundant, seed + layer).items():
            for where, chosen in batches.items():
                sent, rows = (
                    np.stack(part)
                    for part in zip(
                        *(routed(routes[b], home, shape, net.devices) for b in chosen), strict=True
                    )
                )
                even = step.layer_s(
                    *step.even_layer(chosen.shape[1], shape, net.devices), shape, net, machine
                )
                s, held = step.total_s(step.layer_s(sent, rows, shape, net, machine)), rows.sum(-1)
                found.append(
                    dict(
                        layer=layer + 1,
                        placement=name,
                        where=where,
                        rho=(held.max(-1) / held.mean(-1)).mean(),
                        slowdown=(s / step.total_s(even)).mean() - 1,
                    )
                )
    return pd.DataFrame(found)


def windows(part: np.ndarray, tokens: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """[number, tokens] batches of consecutive ones of the token numbers `part`, from random starts."""
    if not 1 <= tokens <= len(part):
        raise ValueError(
            f"studies.windows: tokens = {tokens}: must be from 1 to {len(part)}, those of the part"
        )
    return part[rng.integers(0, len(part) - tokens + 1, (number, 1)) + np.arange(tokens)]


def domains(
    index: np.ndarray,
    document: np.ndarray,
    domain: np.ndarray,
    shape: cost.Shape,
    net: Fabric,
    machine: step.Machine,
    *,
    tokens: int,
    batches: int,
    redundant: int,
    seed: int = 0,
) -> pd.DataFrame:
    """`moved` for every domain: packed on the first half of its documents, judged on batches of its
    other half ("same domain") and of the others' other halves ("another domain"); columns domain,
    layer, placement, where, rho, slowdown.

    index [layers, all tokens, k]; document and domain [all tokens] numbers.  Halves too short for a
    batch are left out.
    """
    rng, halves = np.random.default_rng(seed), {}
    for number in np.unique(domain):
        own = np.flatnonzero(domain == number)
        middle = np.median(np.unique(document[own]))
        first, second = own[document[own] <= middle], own[document[own] > middle]
        if min(len(first), len(second)) >= tokens:
            halves[number] = first, windows(second, tokens, batches, rng)
    found = []
    for number, (packing, same) in halves.items():
        others = [chosen for other, (_, chosen) in halves.items() if other != number]
        where = {"same domain": same} | (
            {"another domain": np.concatenate(others)} if others else {}
        )
        found.append(
            moved(index, packing, where, shape, net, machine, redundant, seed).assign(domain=number)
        )
    return (
        pd.concat(found, ignore_index=True)
        if found
        else pd.DataFrame(columns=["domain", "layer", "placement", "where", "rho", "slowdown"])
    )


def variants(
    model: step.Model,
    devices: int,
    per_node: int,
    tokens: int,
    level: float,
    net: Fabric,
    *,
    kept: int,
    seeds: int,
    seed: int = 0,
) -> pd.DataFrame:
    """What a dispatch costs by how a token is sent (columns variant, seed, leaving, us): bytes that
    leave their node per token, and µs by the bound, of a copy per expert, per device, forwarded per
    node, and with the token's nodes limited to `kept`.
    """
    shape, found = model.shape, []
    chances, home = (
        traffic.inclusion(shape.experts, shape.k, level),
        placement.contiguous(shape.experts, devices),
    )
    nodes = np.arange(devices) // per_node
    for i in range(seeds):
        rng = np.random.default_rng([seed, i])
        labels, bytes_ = rng.permutation(shape.experts), 2.0 * shape.hidden * model.out_share
        free = labels[traffic.sample(chances, shape.k, devices * tokens, rng)]
        near = traffic.group_limited(
            chances[np.argsort(labels)],
            shape.k,
            devices * tokens,
            rng,
            groups=devices // per_node,
            kept=kept,
        )
        hops = {
            "a copy per expert": [traffic.matrix(free, home, devices, bytes_)],
            "a copy per device": [traffic.matrix(free, home, devices, bytes_, deduplicate=True)],
            "a copy per node, forwarded": traffic.forwarded(free, home, devices, per_node, bytes_),
            f"at most {kept} nodes, forwarded": traffic.forwarded(
                near, home, devices, per_node, bytes_
            ),
        }
        for name, parts in hops.items():
            leaving = sum(part[nodes[:, None] != nodes].sum() for part in parts) / (
                devices * tokens
            )
            found.append(
                dict(
                    variant=name,
                    seed=i,
                    leaving=leaving,
                    us=1e6 * sum(float(fluid.bottleneck_bound_s(part, net)) for part in parts),
                )
            )
    return pd.DataFrame(found)


def moved_counts(counts: pd.DataFrame, devices: Mapping[str, int], seed: int = 0) -> pd.DataFrame:
    """Placements made for the counts of one domain, judged on each of the others', for published
    counts (columns model, domain, layer, expert, count): ρ per model, layer, domain packed for,
    placement and where ("packed for", in sample, or "another domain", the mean over those).
    """
    found = []
    for (model, layer), own in counts.groupby(["model", "layer"]):
        load = own.pivot_table(
            index="domain", columns="expert", values="count", aggfunc="sum", fill_value=0
        )
        for domain, packed in load.iterrows():
            for name, home in placements(
                packed.to_numpy(float), devices[model], devices[model], seed + layer
            ).items():
                held = placement.device_load(load.to_numpy(float), home, devices[model])
                for other, rho in zip(load.index, held.max(-1) / held.mean(-1), strict=True):
                    where = "packed for" if other == domain else "another domain"
                    found.append(
                        dict(
                            model=model,
                            layer=layer,
                            domain=domain,
                            placement=name,
                            where=where,
                            rho=rho,
                        )
                    )
    return (
        pd.DataFrame(found)
        .groupby(["model", "layer", "domain", "placement", "where"], sort=False)
        .rho.mean()
        .reset_index()
    )


def scaling(
    counts: Iterable[int],
    fabrics: Fabrics,
    level: float,
    *,
    experts_per_device: int,
    k: int,
    tokens: int,
    hidden: int,
    seeds: int,
    exact_up_to: int,
    seed: int = 0,
) -> pd.DataFrame:
    """One dispatch on more and more devices: slowdown over even routes (simulated), and what
    computing it takes (measured).

    Columns: devices, fabric, level, slowdown, low, high (over seeds, bound), fair (max-min fair
    time over the bound), bound_s and exact_s, seconds of one call; nan beyond `exact_up_to`.
    """
    found = []
    for devices in counts:
        shape = cost.Shape(hidden, 1, experts_per_device * devices, k)
        chances, home = (
            traffic.inclusion(shape.experts, k, level),
            placement.contiguous(shape.experts, devices),
        )
        rng = [np.random.default_rng([seed, i]) for i in range(seeds)]
        index = (
            r.permutation(shape.experts)[
                traffic.sample(chances, k, devices * tokens, r, share=tokens)
            ]
            for r in rng
        )
        sent = [traffic.matrix(one, home, devices, 2.0 * hidden) for one in index]
        even = traffic.even(devices * tokens, k, devices, 2.0 * hidden)
        for name, make in fabrics.items():
            net = make(devices)
            best = float(fluid.bottleneck_bound_s(even, net))
            bounds, bound_s = _timed(lambda m, n=net: fluid.bottleneck_bound_s(m, n), sent)
            low, high = stats.mean_interval(bounds / best - 1)
            fair, exact_s = np.nan, np.nan
            if devices <= exact_up_to:
                fluid.makespan_s(
                    sent[0][:1, :1] * 0, Fabric(capacity_bytes_per_s=[1.0], routes={(0, 0): []})
                )  # compiles
                _ = net.paths
                spans, exact_s = _timed(lambda m, n=net: fluid.makespan_s(m, n), sent[:1])
                fair = float(spans[0] / bounds[0])
            found.append(
                dict(
                    devices=devices,
                    fabric=name,
                    level=level,
                    slowdown=(bounds / best - 1).mean(),
                    low=low,
                    high=high,
                    fair=fair,
                    bound_s=bound_s,
                    exact_s=exact_s,
                )
            )
    return pd.DataFrame(found)


def _timed(function: Callable, cases: list) -> tuple[np.ndarray, float]:
    """Answers, and the least seconds of a call."""
    answers, seconds = [], []
    for case in cases:
        began = time.perf_counter()
        answers.append(float(function(case)))
        seconds.append(time.perf_counter() - began)
    return np.array(answers), min(seconds)
