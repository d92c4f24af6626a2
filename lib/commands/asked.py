"""What the parameters of the network chapter ask for: the studies of `lib.network` and the cluster,
checked before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lib.commands import imported, shapes
from lib.model import load
from lib.network import (
    cluster,
    cost,
    counts,
    exchange,
    fabric,
    layers,
    scaling,
    sending,
    step,
    transfer,
)
from lib.routing import profile
from lib.routing.trace import Trace

Batches = Callable[[Trace, int, int, np.random.Generator], np.ndarray]


def place(p: SimpleNamespace) -> cluster.Cluster:
    """The cluster of `fabric` with the numbers that are given beside it."""
    return cluster.named(
        p.fabric,
        per_node=p.devices_per_node,
        inside_bytes_per_s=p.nvlink_bytes_per_s,
        nic_bytes_per_s=p.nic_bytes_per_s,
    )


def own_models(p: SimpleNamespace) -> list[step.Model]:
    """The published models of `models`, or the user's own."""
    given = dict(revision=p.revision, dtype=p.dtype, code=p.remote_code)
    return shapes.models(p.models, p.model, **given)


def sharing(experts: int, most: int, where: cluster.Cluster) -> int:
    """How many devices, up to `most`, share so many experts evenly: the most of them that fit into
    a node or fill whole ones; `most` itself where none does, or the cluster has links of its own.
    """
    per_node = where.per_node
    fits = [
        n for n in range(2, most + 1) if experts % n == 0 and (n <= per_node or not n % per_node)
    ]
    return most if where.own is not None else max(fits, default=most)


def routed(p: SimpleNamespace, where: cluster.Cluster, own: bool = True) -> exchange.Study:
    """The synthetic exchange; with `own` on no more devices than share the experts of the user's
    own model.  Refused: levels, experts and devices that do not fit together.
    """
    devices = where.size(p.num_devices)
    if own and vars(p).get("model", "embedded") != "embedded" and p.num_experts % devices == 0:
        experts = own_models(p)[0].shape.experts
        devices = sharing(math.gcd(experts, p.num_experts), devices, where)
    study = exchange.Study(
        experts=p.num_experts,
        k=p.top_k,
        tokens=p.num_tokens,
        devices=devices,
        bytes_per_token=p.hidden_size * p.bytes_per_element,
        seeds=p.seeds,
        seed=p.seed,
        family=p.family,
    )
    exchange.check(study, levels=p.imbalance_levels)
    cluster.fabrics(where, study.devices)
    return study


def computed(p: SimpleNamespace, where: cluster.Cluster) -> layers.Study:
    """The layers: of the published models, or of the user's own by its configuration, which are
    also computed on fewer devices where none of the numbers asked for divides its experts.
    """
    models, devices = own_models(p), {*where.sizes(p.expert_parallel)}
    experts = models[0].shape.experts
    if p.model != "embedded" and all(experts % number for number in devices):
        devices.add(sharing(experts, max(devices), where))
    study = layers.Study(
        models=models,
        devices=sorted(devices),
        tokens=sorted(p.device_tokens),
        levels=sorted(p.step_levels),
        seeds=p.step_seeds,
        seed=p.seed,
        exact_up_to=p.exact_up_to,
        overlap=p.overlap,
    )
    layers.check(study)
    cluster.check(where, [*{devices for _, devices, _ in study.cases()}, *p.scale_devices])
    return study


def studied(routes: Mapping[str, Trace]) -> tuple[str, str]:
    """Of recorded routes by arm, the one that sentences tell of, and what it is in words: this
    book's checkpoint without a balance loss, else the model itself.
    """
    if "without" in routes:
        return "without", "the checkpoint without balance loss"
    return next(iter(routes)), "this model"


def shape(p: SimpleNamespace, study: layers.Study, t: Trace) -> cost.Shape:
    """Of the layer that took recorded routes: the user's own by its model's configuration, else of
    the parameter `hidden_size` with experts half as wide; experts and k are those of the routes.
    """
    own = study.models[0].shape
    if p.model in load.OURS:
        own = cost.Shape(p.hidden_size, p.hidden_size // 2, t.experts, 1)
    return replace(own, experts=t.experts, k=t.expert_index.shape[2])


def sent(p: SimpleNamespace, where: cluster.Cluster, own: layers.Study) -> sending.Study:
    """The dispatch of the model with the most experts, on the most devices, up to 64, that divide
    them and fill whole nodes.
    """
    model = sending.largest(own.models)
    devices = sending.most_devices(model, where.sizes((64, 32, 16, 8, 4, 2)), where.per_node)
    return sending.Study(
        model=model,
        devices=devices,
        per_node=min(where.per_node, devices),
        tokens=64,
        level=min(0.3, max(p.step_levels)),
        seeds=p.step_seeds,
        seed=p.seed,
    )


def larger(p: SimpleNamespace, where: cluster.Cluster) -> scaling.Study:
    """Dispatches on more and more devices."""
    return scaling.Study(
        devices=sorted(where.sizes(p.scale_devices)),
        level=min(0.5, max(p.imbalance_levels)),
        hidden=p.hidden_size,
        exact_up_to=p.scale_exact,
        experts_per_device=4,
        k=8,
        tokens=64,
        seeds=5,
        seed=p.seed,
    )


def files(p: SimpleNamespace) -> list[Path]:
    """The files that the cluster and the counts are read from."""
    own = Path(p.fabric).expanduser()
    of_counts = transfer.COUNTS if p.counts == "published" else imported.path_of(p.counts)
    return [own if own.is_file() else fabric.PRESETS, of_counts]


def words(p: SimpleNamespace, where: cluster.Cluster, own: layers.Study) -> pd.Series:
    """What a reader is told of model and cluster: published_shapes, how many they are, or
    own_shape, that of the user's model in words; the model and `load.own`; fabric, and nodes_of,
    devices of one node.
    """
    known: dict[str, object] = dict(fabric=Path(p.fabric).stem, nodes_of=where.per_node)
    known |= dict(model=load.described(p.model), own=load.own(p.model))
    if p.model in load.OURS:
        return pd.Series(known | dict(published_shapes=len(own.models)), dtype=object)
    return pd.Series(known | dict(own_shape=own.models[0].words), dtype=object)


def batches(
    routes: Mapping[str, Trace], study: exchange.Study, drawn: Batches = profile.batches
) -> dict[str, np.ndarray]:
    """By arm, as many batches of its recorded tokens as the study has seeds, of its size or of the
    whole text where that is shorter.
    """
    return {
        arm: drawn(
            t,
            min(study.tokens, len(t.document)),
            study.seeds,
            np.random.default_rng(study.seed),
        )
        for arm, t in routes.items()
    }


def exchanged(
    routes: Mapping[str, Trace],
    chosen: Mapping[str, np.ndarray],
    study: exchange.Study,
    fabrics: exchange.Fabrics,
) -> pd.DataFrame:
    """exchange.recorded of every arm's batches (column arm)."""
    found = {
        arm: exchange.recorded(
            t.expert_index, chosen[arm], t.experts, study.devices, fabrics, seed=study.seed
        )
        for arm, t in routes.items()
    }
    return pd.concat(found, names=["arm"]).reset_index("arm")


def counted(p: SimpleNamespace, devices: int) -> tuple[pd.DataFrame, dict[str, tuple[str, int]]]:
    """Counts of experts, published or of the user's file, and who shares them (counts.cases)."""
    if p.counts == "published":
        table = pd.read_csv(transfer.COUNTS)
    else:
        table = imported.counts(imported.path_of(p.counts), p.counts_experts, p.counts_top_k)
    return table, counts.cases(table, devices)
