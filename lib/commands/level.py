"""What a level of imbalance alone says: the answer for a router of which only its Gini is known.

The Gini fixes no busiest device: that depends on the family of the experts' probabilities, and on
which of them stand together.  So the answer is a band, over orders of the experts, for a named
family.  Routes are the expected ones, in whole rows (synthetic); times are those of `step`.
`book/_static/advice.js` is the same function in the browser; random orders are those of a generator
that both have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.commands import deciding, declared
from lib.commands.advice import placements
from lib.commands.deciding import COPIED, ORDER, PACKED, Rules
from lib.network import placement, step, synthetic
from lib.network.links import Fabric

ORDERS = 41  # random orders of the experts
BAND = (2, 20, 38)  # of them, sorted: 5th, 50th and 95th percentile
PERIOD = 1 << 32  # of the generator (Numerical Recipes, 3rd ed., section 7.1)
MODEL = "OLMoE-1B-7B"  # whose sizes a layer has where none are told


@dataclass(frozen=True)
class Case:
    """Experts that serve `k` a token on the devices of a fabric, `tokens` of one device in a batch;
    the Gini of their probabilities and its family (`synthetic.FAMILIES`); spare slots of a device;
    sizes of a layer as of the model.
    """

    experts: int
    k: int
    tokens: int
    level: float
    family: str
    fabric: Fabric
    machine: step.Machine
    model: step.Model
    spare: int = 1


def orders(experts: int, number: int = ORDERS) -> np.ndarray:
    """[number, experts] random orders: Fisher and Yates with a linear congruential generator."""
    state, found = 1, np.tile(np.arange(experts), (number, 1))
    for order in found:
        for last in range(experts - 1, 0, -1):
            state = (1664525 * state + 1013904223) % PERIOD
            other = state * (last + 1) // PERIOD
            order[[last, other]] = order[[other, last]]
    return found


def layer_s(case: Case, chances: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """(ρ, seconds) of a layer with expected routes: chances [experts], sum k; share [experts,
    devices] of each expert that a device serves.
    """
    devices = case.fabric.devices
    row = case.tokens * chances @ share
    sent = np.tile(row * 2.0 * case.model.shape.hidden, (devices, 1))
    rows = np.rint(devices * case.tokens * chances[:, None] * share).T
    parts = step.of_model(sent, rows, case.model, case.fabric, case.machine)
    return float(row.max() / row.mean()), float(step.total_s(parts))


def answer(case: Case, rules: Rules) -> dict[str, float | str]:
    """rho and slowdown over even routes of experts in random order, each with <name>_low and
    <name>_high (5th to 95th percentile of `ORDERS`); slowdown_packed and slowdown_copied; beta,
    ceiling, and action (`deciding.ACTIONS`).

    Refused: what `synthetic.inclusion` and `placement.contiguous` refuse.
    """
    experts, devices = case.experts, case.fabric.devices
    chances = synthetic.inclusion(experts, case.k, case.level, case.family)
    order = placement.share(placement.contiguous(experts, devices), experts, devices)
    _, even_s = layer_s(case, np.full(experts, case.k / experts), order)
    both = np.array([layer_s(case, chances[labels], order) for labels in orders(experts)])
    rho, slowdown = np.sort(both[:, 0]), np.sort(both[:, 1] / even_s - 1)
    made = placements(chances, devices, case.spare)
    slow = {name: layer_s(case, chances, share)[1] / even_s - 1 for name, share in made.items()}
    slow[ORDER] = slowdown[BAND[1]]
    beta = deciding.elasticity(both[:, 0], both[:, 1] / even_s - 1)
    left = {name: deciding.ceiling(value) for name, value in slow.items()}
    found: dict[str, float | str] = {"beta": beta, "ceiling": left[ORDER]}
    for name, values in (("rho", rho), ("slowdown", slowdown)):
        low, middle, high = values[list(BAND)]
        found |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    found |= {"slowdown_packed": slow[PACKED], "slowdown_copied": slow.get(COPIED, np.nan)}
    return found | {"action": deciding.decided(left, beta, np.nan, case.tokens, rules)}


def known(model: step.Model, net: Fabric, machine: step.Machine, tokens: int, level: float) -> Case:
    """A published model of which only the Gini is known, of the first family."""
    shape = model.shape
    family = synthetic.FAMILIES[0]
    return Case(shape.experts, shape.k, tokens, level, family, net, machine, model)


def families(case: Case, rules: Rules) -> pd.DataFrame:
    """`answer` for each family that reaches the level, of otherwise the same case: a row each."""
    rows = []
    for family in synthetic.FAMILIES:
        own = replace(case, family=family)
        if own.level < synthetic.highest_level(own.experts, own.k, family):
            found = answer(own, rules)
            words = deciding.ACTIONS[str(found["action"])]
            rows.append({"family": family} | found | {"action": words})
    return pd.DataFrame(rows)


def constants(
    machines: Mapping[str, step.Machine],
    rules: Rules,
    prices: pd.DataFrame,
    per_node: int,
) -> dict[str, object]:
    """All that the page for one's own model computes with: constants of the machines by card, the
    sizes of published layers, thresholds, words of the actions, and prices.
    """
    cards = {
        name: {
            "exchange": dict(own.exchange),
            "expert": dict(own.expert),
            "layer": dict(own.layer),
            "nic_bytes_per_s": own.nic_bytes_per_s,
            "origin": own.origin,
        }
        for name, own in machines.items()
    }
    shapes = {
        name: dict(
            hidden=own.shape.hidden,
            width=own.shape.width,
            experts=own.shape.experts,
            k=own.shape.k,
            layers=own.layers,
            out_share=own.out_share,
        )
        for name, own in step.models().items()
    }
    return {
        "cards": cards,
        "shapes": shapes,
        "default": MODEL,
        "rules": {**vars(rules), "few_tokens": declared.FEW_TOKENS},
        "actions": deciding.ACTIONS,
        "offered": deciding.OFFERED,
        "per_node": per_node,
        "prices": prices.to_dict("records"),
    }


def as_json(page: Mapping[str, object]) -> str:
    """`constants` as a file; infinite rates are written as null."""

    def plain(part: object) -> object:
        if isinstance(part, dict):
            return {name: plain(value) for name, value in part.items()}
        if isinstance(part, list):
            return [plain(value) for value in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(dict(page)), indent=1, ensure_ascii=False) + "\n"
