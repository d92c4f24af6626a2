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
from lib.network import cost, placement, step, synthetic
from lib.network.links import Fabric
from lib.paper import plots_style

ORDERS = 41  # random orders of the experts
BAND = (2, 20, 38)  # of them, sorted: 5th, 50th and 95th percentile
PERIOD = 1 << 32  # of the generator (Numerical Recipes, 3rd ed., section 7.1)
MODEL = "OLMoE-1B-7B"  # whose sizes a layer has where none are told
MOST_EXPERTS = 4096
APART = 1e-10  # by which share of a device's rows it differs from the next: no two are as busy
GRID = 1 << 20  # of which chances are whole parts, so that equal sums are equal in any order
HEADS = {  # of `families`, as `advise` shows them
    "family": "load",
    "rho": "busiest device / mean",
    "rho_low": "(P5)",
    "rho_high": "(P95)",
    "slowdown": "layer slower by",
    "slowdown_low": "(P5)",
    "slowdown_high": "(P95)",
    "slowdown_packed": "placed by load",
    "slowdown_copied": "with copies",
    "ceiling": "ceiling",
}
FAMILIES = {  # of `synthetic.FAMILIES`, in words
    "power": "a power law",
    "lognormal": "log-normal",
    "one_hot": "one hot expert",
}


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
    apart = row * (1 + APART * np.arange(devices))
    sent = np.tile(apart * 2.0 * case.model.shape.hidden, (devices, 1))
    rows = np.rint(devices * case.tokens * chances[:, None] * share).T
    parts = step.of_model(sent, rows, case.model, case.fabric, case.machine)
    return float(row.max() / row.mean()), float(step.total_s(parts))


def answer(case: Case, rules: Rules, prices: pd.DataFrame) -> dict[str, float | str]:
    """rho and slowdown over even routes of experts in random order, each with <name>_low and
    <name>_high (5th to 95th percentile of `ORDERS`); slowdown_packed and slowdown_copied; beta,
    ceiling, action (`deciding.ACTIONS`) and its advice in words, with the `prices` of a change of
    the router.

    Refused: what `synthetic.inclusion` and `placement.contiguous` refuse.
    """
    experts, devices = case.experts, case.fabric.devices
    exact = synthetic.inclusion(experts, case.k, case.level, case.family)
    chances = np.rint(exact * GRID) / GRID
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
    action = deciding.decided(left, beta, np.nan, case.tokens, rules)
    return found | {"action": action, "advice": deciding.told(action, left, rules, prices)}


def known(model: step.Model, net: Fabric, machine: step.Machine, tokens: int, level: float) -> Case:
    """A published model of which only the Gini is known, of the first family."""
    shape = model.shape
    family = synthetic.FAMILIES[0]
    return Case(shape.experts, shape.k, tokens, level, family, net, machine, model)


def families(case: Case, rules: Rules, prices: pd.DataFrame) -> pd.DataFrame:
    """`answer` for each family that reaches the level, of otherwise the same case: a row each, the
    action in words, and which engines offer it.
    """
    rows = []
    for family in synthetic.FAMILIES:
        own = replace(case, family=family)
        if own.level < synthetic.highest_level(own.experts, own.k, family):
            found = answer(own, rules, prices)
            action = str(found["action"])
            words: dict[str, float | str] = {"family": family, "action": deciding.ACTIONS[action]}
            words["offered"] = deciding.OFFERED[action] or "none that is known"
            rows.append(words | {name: found[name] for name in found if name not in words})
    return pd.DataFrame(rows)


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """`families` as a table for readers, the families in words; their sentences stand elsewhere."""
    return rows.drop(columns="advice").assign(family=rows.family.map(FAMILIES))


def words(case: Case) -> str:
    """What is known, in words."""
    return (
        f"a Gini of {case.level:g} of {case.model.name} on {case.fabric.devices} devices with "
        f"{case.tokens} tokens each"
    )


def advised(rows: pd.DataFrame) -> list[str]:
    """The advice of `families` in words: one sentence where all say the same, else one for each;
    and which engines offer it.
    """
    each = [f"If the load is {FAMILIES[row.family]}: {row.advice}" for row in rows.itertuples()]
    words = [str(rows.advice.iloc[0])] if rows.advice.nunique() == 1 else each
    engines = "; or ".join(dict.fromkeys(rows.offered))
    return [*words, f"Engines that offer what is advised: {engines}."]


def rests(case: Case) -> str:
    """What the answer rests on, in words."""
    machine = plots_style.machines(case.machine.origin)
    copies = case.spare * case.model.shape.expert_bytes * case.model.layers / 1e9
    return (
        f"{case.experts} experts, {case.k} of a token, Gini {case.level:g}, on "
        f"{case.fabric.devices} devices with {case.tokens} tokens each ({machine}), a "
        f"layer as large as in {case.model.name}. A Gini fixes no busiest device: numbers are "
        "medians over orders of the experts, and between P5 and P95 lie nine in ten, for each way "
        "in which the load may fall off. Routes are the expected ones (synthetic), times "
        "simulated, extrapolated beyond two devices and their node. Copies take "
        f"{copies:.2f} GB of a device in {case.model.layers} layers. Counts of the experts say "
        "more: python -m lib advise COUNTS."
    )


def example(case: Case, rows: pd.DataFrame) -> str:
    """The advice of `families` for a case, as it stands where no script runs."""
    first, *_ = advised(rows)
    return (
        f"What about my model? For example: {first} This is for {rests(case)} Where scripts run, "
        "this box answers for other numbers; python -m lib advise --gini does everywhere."
    )


def constants(
    machines: Mapping[str, step.Machine],
    rules: Rules,
    prices: pd.DataFrame,
    per_node: int,
    example: Case,
) -> dict[str, object]:
    """All that the box for one's own model computes with: constants of the machines by card, the
    sizes of published layers, thresholds, words of the actions, and prices; example: the case that
    it shows first, with the first of the cards that is the case's machine.
    """
    cards = {
        name: {
            "exchange": dict(own.exchange),
            "expert": dict(own.expert),
            "layer": dict(own.layer),
            "nic_bytes_per_s": own.nic_bytes_per_s,
            "origin": plots_style.machines(own.origin),
        }
        for name, own in machines.items()
    }
    shapes = {
        name: dict(
            hidden=own.shape.hidden,
            width=own.shape.width,
            weight_bytes=own.shape.weight_bytes,
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
        "families": FAMILIES,
        "orders": ORDERS,
        "band": list(BAND),
        "tile": cost.TILE,
        "grid": GRID,
        "apart": APART,
        "example": _asked(example, machines),
        "rules": {**vars(rules), "few_tokens": declared.FEW_TOKENS},
        "actions": deciding.ACTIONS,
        "offered": deciding.OFFERED,
        "per_node": per_node,
        "prices": prices.to_dict("records"),
    }


def _asked(case: Case, machines: Mapping[str, step.Machine]) -> dict[str, object]:
    """A case as the box has it, with the first of the cards that is its machine."""
    return dict(
        shape=case.model.name,
        experts=case.experts,
        k=case.k,
        level=case.level,
        devices=case.fabric.devices,
        tokens=case.tokens,
        card=next(name for name, own in machines.items() if own is case.machine),
        spare=case.spare,
    )


def as_json(page: Mapping[str, object]) -> str:
    """`constants` as a file; infinite rates are written as null."""

    def plain(part: object) -> object:
        if isinstance(part, dict):
            return {name: plain(value) for name, value in part.items()}
        if isinstance(part, list):
            return [plain(value) for value in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(dict(page)), indent=1, ensure_ascii=False) + "\n"
