"""The decision table: what imbalance costs each model on each cluster, and what to do about it.

A row is `advice.answer`, which `python -m lib advise` gives too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.commands import advice, advise, pareto
from lib.commands.deciding import ACTIONS, OFFERED, Rules
from lib.commands.subject import Subject
from lib.network import step
from lib.paper.plots_style import label
from lib.routing.table import STRATEGIES

MEASURED_DEVICES = 2  # on which the constants of a layer were measured
LETTERS = {"measured": "m", "simulated": "s", "published": "p", "extrapolated": "x"}
NOT_YET = "not yet"
CAUSAL = {name: known.causal for name, known in STRATEGIES.items()}
KEYS = ["router", "devices", "tokens"]
CELLS = {  # of the readers' table: format of each column that is written with its kind
    "beta": ".2f",
    "ceiling": ".1%",
    "copies_gb": ".2f",
    "stale_over_fresh": ".2f",
}

READ = [*KEYS, "action", "rho_both", *CELLS, "price", "offered"]


@dataclass(frozen=True)
class Asked:
    """Numbers of devices and of tokens of one device; spare slots a device; the rules; the prices
    of `advice.prices`, and `own` ones of this run, by model.
    """

    devices: Sequence[int]
    tokens: Sequence[int]
    rules: Rules
    prices: pd.DataFrame
    own: pd.DataFrame
    machine: step.Machine
    spare: int = 1
    draws: int = 10


def layer_of(subject: Subject, own: step.Model | None) -> tuple[step.Model, str]:
    """(a subject's layer, how its sizes are known).

    own: the model that the run is about, which everything measured here was measured on; published
    models are known by name; of all others a layer is as large as OLMoE's, to which the imbalance
    is then carried.
    """
    if own and subject.kind == "measured":
        shape = replace(own.shape, experts=subject.load.shape[1], k=subject.k)
        return replace(own, shape=shape, layers=len(subject.load)), "measured"
    known = advise.layer_of(subject.name, subject)
    return known, "published" if known.name else "extrapolated"


def cases(subjects: Sequence[Subject], asked: Asked) -> Iterator[tuple[Subject, int, int]]:
    """(subject, devices, tokens) wherever k is known: on each number of devices that divides the
    experts, and where none does, on the most below them, of one node or whole ones.
    """
    for own in subjects:
        experts = own.load.shape[1]
        exact = [n for n in asked.devices if experts % n == 0]
        fewer = [n for n in range(2, max(asked.devices)) if experts % n == 0]
        whole = [n for n in fewer if n <= advise.PER_NODE or n % advise.PER_NODE == 0]
        for devices in (exact or whole[-1:]) if 1 <= own.k < experts else []:
            for tokens in asked.tokens:
                yield own, devices, tokens


def own_prices(told: pd.DataFrame | None) -> pd.DataFrame:
    """Prices of changing the router of this run's own models, of the assignment chapter's table
    (arm, setting, delta with its interval): arm and the columns of `advice.prices`, models 0.

    Empty where that chapter was not run.
    """
    columns = ["arm", *advice.PRICED, "start"]
    if told is None:
        return pd.DataFrame(columns=columns)
    rows = []
    for row in told[told.setting != "native"].to_dict("records"):
        family = pareto.family_of(row["setting"])
        ends = row["delta"], row["delta_low"], row["delta_high"]
        way = label(row["setting"])
        rows.append([row["arm"], way, *ends, 0, CAUSAL.get(family, False), False])
    return pd.DataFrame(rows, columns=columns)


def table(
    subjects: Sequence[Subject], asked: Asked, model: step.Model | None = None
) -> pd.DataFrame:
    """A row per subject, devices and tokens: router, devices, tokens, the numbers of
    `advice.answer`, offered, and kind_… of each group of numbers: load, time, memory, price.

    model: the user's own that the run is about (`layer_of`).
    """
    rows = []
    for own, devices, tokens in cases(subjects, asked):
        layer, sizes = layer_of(own, model)
        net = advise.cluster(devices, asked.machine)
        case = advise.of_case(own, layer, net, asked.machine, tokens, asked.spare)
        mine = asked.own[asked.own.arm == own.name].drop(columns="arm")
        known = mine if len(mine) else asked.prices
        case = replace(case, draws=asked.draws)
        _, row = advice.answer(case, asked.rules, known, own.parts)
        here = devices <= MEASURED_DEVICES and sizes != "extrapolated"
        kinds = dict(
            kind_load=own.kind,
            kind_time="simulated" if here else "extrapolated",
            kind_memory=sizes,
            kind_price="measured" if len(mine) else "extrapolated",
        )
        about = dict(router=own.name, devices=devices, tokens=tokens)
        rows.append({**about, **row, "offered": OFFERED[row.action] or NOT_YET, **kinds})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`table` for readers: each cell with the letter of its kind (`LETTERS`), `NOT_YET` where there
    is none; an engine's offer is what it publishes, an action rests on simulated times.
    """
    if table.empty:
        return pd.DataFrame(columns=READ)
    shown = table[KEYS].assign(router=table.router.map(label))
    both = table.rho_p50.map("{:.2f}".format) + ", " + table.rho_p95.map("{:.2f}".format)
    shown["rho_both"] = both + _in_brackets(LETTERS["simulated"])
    time, memory, load = (_letters(table[f"kind_{name}"]) for name in ("time", "memory", "load"))
    letters = dict(beta=time, ceiling=time, copies_gb=memory, stale_over_fresh=load)
    own = table.rename(columns={"memory_gb": "copies_gb", "drift": "stale_over_fresh"})
    for name, letter in letters.items():
        text = own[name].map(f"{{:{CELLS[name]}}}".format) + letter
        shown[name] = text.where(own[name].notna(), NOT_YET)
    offered = table.offered + _in_brackets(LETTERS["published"])
    shown["offered"] = offered.where(table.offered != NOT_YET, NOT_YET)
    shown["action"] = table.action.map(ACTIONS) + time
    return shown.assign(price=_prices(table))[READ]


def _prices(table: pd.DataFrame) -> pd.Series:
    """The cheapest change of the router in words: nats per token with their interval, of what, and
    whether it is causal.
    """
    ends = [table[name].map("{:.3f}".format) for name in ("nats", "nats_low", "nats_high")]
    price = ends[0] + " [" + ends[1] + ", " + ends[2] + "]" + _letters(table.kind_price)
    causal = table.causal.map({True: "causal", False: "not causal"}).astype(str)
    words = price + ", " + table.way.astype(str) + ", " + causal
    return words.where(table.nats.notna(), NOT_YET)


def _letters(kinds: pd.Series) -> pd.Series:
    """The letter of each kind, in brackets: no unit."""
    return kinds.map(LETTERS).map(_in_brackets)


def _in_brackets(letter: str) -> str:
    return f" ({letter})"


def sentences(table: pd.DataFrame) -> pd.DataFrame:
    """The advice of each row in words: router, devices, tokens, advice."""
    own = table.reindex(columns=[*KEYS, "advice"])
    return own.assign(router=own.router.map(label))


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Two rows, end "least" and "most": ceiling and where, in words; NaN of an empty table."""
    if table.empty:
        return pd.DataFrame({"end": ["least", "most"], "ceiling": np.nan, "where": "nowhere"})
    rows = table.loc[[table.ceiling.idxmin(), table.ceiling.idxmax()]]
    words = [
        f"{label(row.router)}, {row.devices} devices, {row.tokens} tokens each"
        for row in rows.itertuples()
    ]
    return rows[["ceiling"]].assign(end=["least", "most"], where=words)
