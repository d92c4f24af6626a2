"""What a dispatch costs by how a token is sent (simulated): a copy per expert, per device, or per
node, and routes that are limited to few nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from lib import stats
from lib.network import fluid, placement, step, synthetic, threads, traffic
from lib.network.links import Fabric

PLAIN = "a copy per expert"


@dataclass(frozen=True)
class Study:
    """Synthetic routes at a level of `tokens` tokens on each of `devices` devices in nodes of
    `per_node`; limited routes may touch half of the nodes; `seeds` draws, numbered from `seed`.
    """

    model: step.Model
    devices: int
    per_node: int
    tokens: int
    level: float
    seeds: int
    seed: int = 0

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.devices // self.per_node

    @property
    def kept(self) -> int:
        """How many nodes limited routes may touch: half of them, more where these have not k
        experts.
        """
        shape = self.model.shape
        return max(-(-self.nodes // 2), -(-shape.k * self.nodes // shape.experts))


def settings(study: Study) -> pd.Series:
    """What a reader is told of a study: sent_shape, sent_devices and sent_tokens."""
    known = dict(sent_shape=study.model.name, sent_devices=study.devices)
    return pd.Series(known | dict(sent_tokens=study.tokens))


def largest(models: Sequence[step.Model]) -> step.Model:
    """The first of the models with the most experts."""
    return max(models, key=lambda model: model.shape.experts)


def most_devices(
    model: step.Model, counts: Sequence[int] = (8, 16, 32, 64), per_node: int = 8
) -> int:
    """The most of these numbers of devices that divide a model's experts and fill whole nodes.

    Refused: where none does.
    """
    found = [
        count
        for count in counts
        if model.shape.experts % count == 0 and (count <= per_node or count % per_node == 0)
    ]
    if not found:
        raise ValueError(
            f"sending.most_devices: devices = {sorted(counts)}: one must divide the "
            f"{model.shape.experts} experts of {model.name} and fill nodes of {per_node}"
        )
    return max(found)


def variants(study: Study, net: Fabric) -> pd.DataFrame:
    """A row per way of sending and seed: `leaving`, bytes that leave their node per token, and
    `us`, the time of the dispatch in µs by the bound; forwarding counts both hops, one after the
    other.
    """
    node = np.arange(study.devices) // study.per_node
    across, tokens = node[:, None] != node, study.devices * study.tokens
    rngs = [np.random.default_rng([study.seed, number]) for number in range(study.seeds)]
    found = []
    for number, ways in enumerate(threads.each(partial(_hops, study), rngs)):
        for name, hops in ways.items():
            leaving = sum(float(hop[across].sum()) for hop in hops) / tokens
            us = 1e6 * sum(float(fluid.bottleneck_bound_s(hop, net)) for hop in hops)
            found.append(dict(variant=name, seed=number, leaving=leaving, us=us))
    return pd.DataFrame(found)


def _hops(study: Study, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, ...]]:
    """By way of sending, the matrices [devices, devices] of one draw that follow each other."""
    shape, tokens = study.model.shape, study.devices * study.tokens
    chances = synthetic.inclusion(shape.experts, shape.k, study.level)
    home = placement.contiguous(shape.experts, study.devices)
    labels, bytes_ = rng.permutation(shape.experts), 2.0 * shape.hidden * study.model.out_share
    free = labels[synthetic.sample(chances, shape.k, tokens, rng)]
    own = chances[np.argsort(labels)]
    nodes = dict(groups=study.nodes, kept=study.kept)
    near = synthetic.group_limited(own, shape.k, tokens, rng, **nodes)
    devices, forwarding = study.devices, (home, study.devices, study.per_node, bytes_)
    once = traffic.matrix(free, home, devices, bytes_, deduplicate=True)
    return {
        PLAIN: (traffic.matrix(free, home, devices, bytes_),),
        "a copy per device": (once,),
        "a copy per node, forwarded": traffic.forwarded(free, *forwarding),
        f"at most {study.kept} nodes, forwarded": traffic.forwarded(near, *forwarding),
    }


def saved(rows: pd.DataFrame) -> pd.DataFrame:
    """Of variants, per way of sending: mean bytes that leave their node per token, mean time, and
    the share of the time of a copy per expert that it saves, paired by seed, with its 95 %
    interval.
    """
    times = rows.pivot(index="seed", columns="variant", values="us")
    shares, found = 1 - times.div(times[PLAIN], axis=0), []
    for name, own in rows.groupby("variant", sort=False):
        low, high = stats.mean_interval(shares[name])
        row = dict(variant=name, bytes_leaving=own.leaving.mean(), us=own.us.mean())
        row |= dict(saved=shares[name].mean(), saved_low=low, saved_high=high)
        found.append(row)
    return pd.DataFrame(found)
