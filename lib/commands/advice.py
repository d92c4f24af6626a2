"""What to do about one model's imbalance on one cluster, from its counts alone.

Batches are drawn from the counts of each layer (synthetic routes) and a layer is timed with them
under several placements (simulated); what balancing by other means costs in quality is what the
ladder's models paid (measured, small models).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import provenance, stats
from lib.network import placement, step, synthetic, traffic
from lib.network.links import Fabric

ENOUGH = 0.05  # slowdown over even routes that is left alone
DEAD = 20_000  # tokens below which an expert that got none is not called dead
# by value of the synthesis: what is done, and the sign with which its value is a cost
START = "a loss from the start of training"
WAYS = {
    "price_without": ("re-routing above capacity", 1),
    "repair_switch": ("training on with a balance loss", 1),
    "gain_switch": (START, -1),
}


@dataclass(frozen=True)
class Case:
    """One model on one cluster: `load` [layers, experts] counts (of `counted` tokens a layer), its
    layer, the fabric and the machine; tokens of one device; spare slots of one device; draws of a
    batch per layer.
    """

    load: np.ndarray
    counted: int
    model: step.Model
    fabric: Fabric
    machine: step.Machine
    tokens: int
    spare: int = 1
    draws: int = 20
    seed: int = 0

    @property
    def devices(self) -> int:
        """Devices that share a layer's experts."""
        return self.fabric.devices


def imbalance(case: Case) -> pd.Series:
    """Mean over layers of Gini and MaxVio, Gini of a perfect router on as many tokens (the null),
    and dead experts in all layers (NaN below `DEAD` tokens).
    """
    layers, experts = case.load.shape
    null = stats.gini_null(case.counted, experts, case.model.shape.k)
    dead = stats.dead_experts(case.load).sum() if case.counted >= DEAD else np.nan
    return pd.Series(
        {
            "layers": layers,
            "experts": experts,
            "gini": stats.gini(case.load).mean(),
            "gini_null": null,
            "max_violation": stats.max_violation(case.load).mean(),
            "dead": dead,
        }
    )


def placements(load: np.ndarray, devices: int, spare: int) -> dict[str, np.ndarray]:
    """Shares [experts, devices] of each expert that each device serves: in order, packed by `load`
    [experts], and with `spare` more slots on each device for copies.
    """
    found = {
        "in order": placement.contiguous(len(load), devices),
        "packed": placement.packed(load, devices),
    }
    if spare:
        found["replicated"] = placement.replicated(load, devices, spare * devices)
    return {name: placement.share(home, len(load), devices) for name, home in found.items()}


def batches(case: Case, layer: int) -> np.ndarray:
    """[draws, devices, experts] how often the tokens of each device choose each expert of a layer,
    independently with the probabilities that the layer's counts give.

    Refused: counts that no router of k distinct experts can have.
    """
    load, k = case.load[layer].astype(float), case.model.shape.k
    chances = k * load / load.sum()
    if chances.max() > 1 + 1e-9:
        raise ValueError(
            f"advise: layer {layer}: expert {chances.argmax()} has {load.max() / load.sum():.1%} "
            f"of the load: must be at most 1/{k}, as a token chooses {k} distinct experts"
        )
    rngs = (np.random.default_rng([case.seed, layer, draw]) for draw in range(case.draws))
    total = case.tokens * case.devices
    return np.stack(
        [synthetic.counts(np.minimum(chances, 1), k, total, rng, share=case.tokens) for rng in rngs]
    )


def timed(case: Case) -> pd.DataFrame:
    """A row per layer, placement and draw: rho, busiest device over the mean; slowdown of the
    layer over perfectly even routes (simulated); received_mb, what the busiest device receives.
    """
    shape, found = case.model.shape, []
    even = step.total_s(
        step.of_model(
            *step.even_layer(case.tokens * case.devices, shape, case.devices),
            case.model,
            case.fabric,
            case.machine,
        )
    )
    for layer, load in enumerate(case.load):
        counts = batches(case, layer)
        for name, share in placements(load, case.devices, case.spare).items():
            sent = counts @ share * (2.0 * shape.hidden)
            rows = (counts.sum(1)[:, :, None] * share).swapaxes(-1, -2)
            parts = step.of_model(sent, np.rint(rows), case.model, case.fabric, case.machine)
            held = rows.sum(-1)
            about = {"layer": layer, "placement": name, "draw": np.arange(case.draws)}
            values = {
                "rho": held.max(-1) / held.mean(-1),
                "slowdown": step.total_s(parts) / even - 1,
                "received_mb": 1e-6 * case.model.out_share * traffic.received(sent),
            }
            found.append(pd.DataFrame(about | values))
    return pd.concat(found, ignore_index=True)


def summary(rows: pd.DataFrame, case: Case) -> pd.DataFrame:
    """Of `timed`, per placement: rho_p50, rho_p95, slowdown (mean over layers and draws, with the
    5th and 95th percentile of single layers and batches), received_mb (the 95th percentile of what
    the busiest device receives in a layer), and memory_gb of one device's spare experts in all
    layers.
    """
    found = []
    for name, own in rows.groupby("placement", sort=False):
        copies = case.spare if name == "replicated" else 0
        size = case.model.shape.expert_bytes * copies * case.model.layers / 1e9
        low, high = own.slowdown.quantile([0.05, 0.95])
        found.append(
            {
                "placement": name,
                "rho_p50": own.rho.median(),
                "rho_p95": own.rho.quantile(0.95),
                "slowdown": own.slowdown.mean(),
                "slowdown_low": low,
                "slowdown_high": high,
                "received_mb": own.received_mb.quantile(0.95),
                "memory_gb": size,
            }
        )
    return pd.DataFrame(found)


def prices() -> pd.DataFrame:
    """What balancing by the router costs in quality, in nats per token with its interval, over how
    many models (below 0: a gain); empty where the published synthesis has none of it.
    """
    file = provenance.repository() / "data/reference/06/values.json"
    known = json.loads(file.read_text())["values"]
    rows = []
    for name, (way, sign) in WAYS.items():
        if name in known:
            ends = sorted(sign * end for end in known[name]["interval"])
            models = known["checkpoints_price"]["value"]
            rows.append([way, sign * known[name]["value"], *ends, models])
    return pd.DataFrame(rows, columns=["way", "nats", "nats_low", "nats_high", "models"])


def advised(table: pd.DataFrame, prices: pd.DataFrame) -> str:
    """What to do: the first of nothing, packing and copies that leaves at most `ENOUGH` of a
    slowdown; else what the router's own ways cost, beside the best placement.
    """
    mean = table.set_index("placement").slowdown
    before = mean["in order"]
    if before <= ENOUGH:
        return f"Do nothing: uneven routes cost {before:.1%} of a layer's time."
    ways = {
        "packed": "Place experts by their load",
        "replicated": "Place experts by their load and copies of the busiest in spare slots",
    }
    for name, words in ways.items():
        if mean.get(name, np.inf) <= ENOUGH:
            return f"{words}: {mean[name]:.1%} is left of {before:.1%}."
    best = mean.idxmin()
    words = ways.get(best, "Leave the experts where they are")
    told = f"{words}: {mean[best]:.1%} is left of {before:.1%}. For the rest the router must change"
    known = prices[prices.way != START].sort_values("nats")
    return f"{told}." if known.empty else f"{told}; {priced(known.iloc[0])}."


def priced(row: pd.Series) -> str:
    """A row of `prices` in words."""
    interval = f"[{row.nats_low:.3f}, {row.nats_high:.3f}]"
    return (
        f"{row.way} cost {row.nats:.3f} {interval} nats per token in {row.models:.0f} small models"
    )
