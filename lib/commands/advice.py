"""What one model's imbalance costs on one cluster, from its counts alone, and what to do about it.

Placements are made by some counts; batches are drawn from others, where there are any (synthetic
routes), and a layer is timed with them (simulated); what balancing by other means costs in quality
is what the ladder's models paid (measured, small models).  `answer` is the row of the decision
table and what `advise` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib import provenance, stats
from lib.commands import deciding
from lib.commands.deciding import COPIED, ORDER, PACKED
from lib.network import placement, step, synthetic, traffic
from lib.network.links import Fabric

DEAD = 20_000  # tokens below which an expert that got none is not called dead
# by value of the synthesis: what is done, the sign with which its value is a cost, and whether a
# token's experts then depend on earlier tokens alone
START = "a loss from the start of training"
WAYS = {
    "price_without": ("re-routing above capacity", 1, False),
    "repair_switch": ("training on with a balance loss", 1, True),
    "gain_switch": (START, -1, True),
}
PRICED = ["way", "nats", "nats_low", "nats_high", "models", "causal"]
NO_PRICE = pd.Series(dict.fromkeys(PRICED, np.nan))


@dataclass(frozen=True)
class Case:
    """One model on one cluster: `load` [layers, experts] counts by which placements are made, its
    layer, the fabric and the machine; tokens of one device; spare slots of one device; draws of a
    batch per layer.  counted: tokens a layer that were counted.  judged: counts [layers, experts]
    of which batches are drawn, those of `load` where None.
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
    judged: np.ndarray | None = None

    @property
    def whole(self) -> np.ndarray:
        """[layers, experts] all counts."""
        return self.load if self.judged is None else self.load + self.judged

    @property
    def devices(self) -> int:
        """Devices that share a layer's experts."""
        return self.fabric.devices


def imbalance(case: Case) -> pd.Series:
    """Mean over layers of Gini and MaxVio, Gini of a perfect router on as many tokens (the null),
    and dead experts in all layers (NaN below `DEAD` tokens).
    """
    layers, experts = case.load.shape
    whole = case.whole
    null = stats.gini_null(case.counted, experts, case.model.shape.k)
    dead = stats.dead_experts(whole).sum() if case.counted >= DEAD else np.nan
    return pd.Series(
        {
            "layers": layers,
            "experts": experts,
            "gini": stats.gini(whole).mean(),
            "gini_null": null,
            "max_violation": stats.max_violation(whole).mean(),
            "dead": dead,
        }
    )


def placements(load: np.ndarray, devices: int, spare: int) -> dict[str, np.ndarray]:
    """Shares [experts, devices] of each expert that each device serves: in order, packed by `load`
    [experts], and with `spare` more slots on each device for copies.
    """
    found = {
        ORDER: placement.contiguous(len(load), devices),
        PACKED: placement.packed(load, devices),
    }
    if spare:
        found[COPIED] = placement.replicated(load, devices, spare * devices)
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
    drawn_of = case if case.judged is None else replace(case, load=case.judged)
    even = step.total_s(
        step.of_model(
            *step.even_layer(case.tokens * case.devices, shape, case.devices),
            case.model,
            case.fabric,
            case.machine,
        )
    )
    for layer, load in enumerate(case.load):
        counts = batches(drawn_of, layer)
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
        copies = case.spare if name == COPIED else 0
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


def stale_over_fresh(parts: Mapping[str, np.ndarray], devices: int, spare: int) -> float:
    """Drift: the busiest device under a placement made for another text, over that under one made
    for the text itself (with `spare` slots a device for copies), mean over layers and ordered pairs
    of the texts' counts [layers, experts]; NaN of one text.
    """
    way = COPIED if spare else PACKED
    loads = [load for load in parts.values() if load.sum(1).all()]
    if len(loads) < 2:
        return np.nan
    shares = [[placements(own, devices, spare)[way] for own in load] for load in loads]
    held = np.array(
        [
            [
                [(own @ share).max() for own, share in zip(load, made, strict=True)]
                for made in shares
            ]
            for load in loads
        ]
    )  # [text served, text placed for, layers]
    fresh = np.einsum("iil->il", held)[:, None]
    other = ~np.eye(len(loads), dtype=bool)
    return float((held / fresh)[other].mean())


def _of_ceilings(table: pd.DataFrame) -> dict[str, float]:
    """Of `summary`, by placement the ceiling that is left."""
    slowed = table.set_index("placement").slowdown
    return {str(name): deciding.ceiling(slow) for name, slow in slowed.items()}


def _ceilings(case: Case) -> dict[str, float]:
    """The same of a case."""
    return _of_ceilings(summary(timed(case), case))


def answer(
    case: Case,
    rules: deciding.Rules,
    known: pd.DataFrame,
    parts: Mapping[str, np.ndarray] | None = None,
) -> tuple[pd.DataFrame, pd.Series]:
    """(`summary`, one row of the decision table): rho_p50 and rho_p95 of experts in order; beta;
    ceiling, and chance, what of it is there under a perfect router too; memory_gb of the copies;
    received_mb of the busiest device; drift between `parts`, the counts of several texts; the
    cheapest of `known` prices for a router that stays (way, nats with its interval, models,
    causal); action and its advice in words.
    """
    rows = timed(case)
    table = summary(rows, case)
    of = table.set_index("placement")
    left = _of_ceilings(table)
    first = rows[rows.placement == ORDER]
    beta = deciding.elasticity(first.rho.to_numpy(), first.slowdown.to_numpy())
    drift = stale_over_fresh(parts or {}, case.devices, case.spare)
    fresh = None if case.judged is None else _ceilings(replace(case, load=case.judged))
    even = np.ones_like(case.load[:1])
    chance = _ceilings(replace(case, load=even, judged=None))[ORDER]
    action = deciding.decided(left, beta, drift, case.tokens, rules, fresh, chance)
    cheapest = known[~known.start.astype(bool)].sort_values("nats").head(1)
    price = cheapest.reindex(columns=PRICED).squeeze(axis=0) if len(cheapest) else NO_PRICE
    told = dict(
        rho_p50=of.rho_p50[ORDER],
        rho_p95=of.rho_p95[ORDER],
        beta=beta,
        ceiling=left[ORDER],
        chance=chance,
        memory_gb=of.memory_gb.max(),
        received_mb=of.received_mb[ORDER],
        drift=drift,
    )
    words = deciding.told(action, left, rules, known, fresh, chance)
    return table, pd.Series({**told, **price, "action": action, "advice": words})


def prices() -> pd.DataFrame:
    """What balancing by the router costs in quality, in nats per token with its interval, over how
    many models (below 0: a gain), whether it is causal, and whether it needs a training from the
    start; empty where the published synthesis has none of it.
    """
    file = provenance.repository() / "data/reference/06/values.json"
    return of_values(json.loads(file.read_text())["values"])


def of_values(known: Mapping[str, dict]) -> pd.DataFrame:
    """`prices` of the values of a synthesis."""
    rows = []
    for name, (way, sign, causal) in WAYS.items():
        if name in known:
            ends = sorted(sign * end for end in known[name]["interval"])
            models = known["checkpoints_price"]["value"]
            rows.append([way, sign * known[name]["value"], *ends, models, causal, way == START])
    return pd.DataFrame(rows, columns=[*PRICED, "start"])
