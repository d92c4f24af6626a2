"""What a placement of a model's experts gives: against the number of spare slots, on another text,
with other rules for the copies, and in time.

Loads are counts that were recorded; batches are drawn from them (synthetic routes) and layers timed
with them (simulated).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib.commands import advice
from lib.network import bound, moving, placement, search, sharing, step

METHODS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "greedy": placement.replicated,
    "better": search.better,
}
TIMED = 8  # layers at most on which times are simulated
WINDOWS = 16  # stretches of a recording at most between which placements are refreshed


@dataclass(frozen=True)
class Asked:
    """Loads [layers, experts] to place on `devices` with `slots` each, by one of `METHODS`; parts:
    those of its own texts, others: of further ones, each loads [layers, experts] by name.
    """

    load: np.ndarray
    devices: int
    slots: int
    parts: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    method: str = "better"

    @property
    def levels(self) -> list[int]:
        """Slots of a device from the least that hold all experts, at most six numbers of them."""
        least = -(-self.load.shape[1] // self.devices)
        steps = np.unique(np.r_[least, least + 2 ** np.arange(5), self.slots])
        return [int(n) for n in steps if n <= self.slots]

    def homes(self, slots: int, method: str, load: np.ndarray | None = None) -> np.ndarray:
        """[layers, devices, slots] placements, for these loads instead of its own where given."""
        loads = self.load if load is None else load
        spare = self.devices * slots - loads.shape[1]
        return np.stack([METHODS[method](own, self.devices, spare) for own in loads])

    def elsewhere(self, slots: int, homes: np.ndarray) -> float:
        """Mean busiest device over the mean on texts that a placement was not made for: of `homes`
        on the others; without others, of placements for each of its parts on every other part. NaN
        where there is none.
        """
        if self.others:
            return float(np.mean([rho(load, homes) for load in self.others.values()]))
        if len(self.parts) < 2:
            return np.nan
        made = {name: self.homes(slots, self.method, load) for name, load in self.parts.items()}
        pairs = [(a, b) for a in made for b in self.parts if a != b]
        return float(np.mean([rho(self.parts[b], made[a]) for a, b in pairs]))


def rho(load: np.ndarray, homes: np.ndarray) -> np.ndarray:
    """[layers] busiest device over the mean, of loads [layers, experts]; 1 where there is none."""
    pairs = zip(load, homes, strict=True)
    held = np.stack([placement.device_load(own, home, len(home)) for own, home in pairs])
    mean = held.mean(-1)
    return np.where(mean > 0, held.max(-1) / np.where(mean > 0, mean, 1), 1.0)


def spares(asked: Asked, case: advice.Case | None) -> pd.DataFrame:
    """A row per number of slots a device: busiest device over the mean (means over layers) of the
    greedy and of the better placement, the ceiling that no placement of so many slots passes, of
    the chosen method on texts that it was not made for (Asked.elsewhere), GB of a device's spare
    slots in all layers, and what the layer is slower than with even routes (simulated; both left
    out without case).
    """
    rows = []
    for slots in asked.levels:
        homes = {name: asked.homes(slots, name) for name in METHODS}
        found = {name: rho(asked.load, home).mean() for name, home in homes.items()}
        least = [bound.busiest(load, asked.devices, slots) for load in asked.load]
        mean = asked.load.sum(1) / asked.devices
        ceiling = (np.asarray(least) / np.where(mean > 0, mean, 1))[mean > 0].mean()
        own = homes[asked.method]
        row = dict(slots=slots, **found, ceiling=ceiling, other=asked.elsewhere(slots, own))
        if case is not None:
            spare = asked.devices * slots - asked.load.shape[1]
            size = case.model.shape.expert_bytes * case.model.layers / 1e9
            row["memory_gb"] = size * spare / asked.devices
            row["slowdown"] = slowdown(case, own)
        rows.append(row)
    return pd.DataFrame(rows)


def chosen(case: advice.Case) -> list[int]:
    """Layers, spread evenly, on which times are simulated."""
    number = len(case.load)
    return np.unique(np.linspace(0, number - 1, min(number, TIMED)).round().astype(int)).tolist()


def layer_s(case: advice.Case, counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Seconds [...] of a layer, of counts [..., devices, experts] of the devices' own tokens and
    shares [..., experts, devices].
    """
    sent = counts @ shares * (2.0 * case.model.shape.hidden)
    rows = (counts.sum(-2)[..., None] * shares).swapaxes(-1, -2)
    return step.total_s(step.of_model(sent, np.rint(rows), case.model, case.fabric, case.machine))


def even_s(case: advice.Case) -> float:
    """Seconds of the layer with even routes."""
    total = case.tokens * case.devices
    even = step.even_layer(total, case.model.shape, case.devices)
    return float(step.total_s(step.of_model(*even, case.model, case.fabric, case.machine)))


def slowdown(case: advice.Case, homes: np.ndarray) -> float:
    """What layers take longer than with even routes, mean over `chosen` ones and drawn batches."""
    found = []
    for layer in chosen(case):
        share = placement.share(homes[layer], case.load.shape[1], case.devices)
        found.append(layer_s(case, advice.batches(case, layer), share).mean())
    return float(np.mean(found)) / even_s(case) - 1


def rivals(asked: Asked, case: advice.Case) -> pd.DataFrame:
    """sharing.summary over `chosen` layers: both placements, with each rule for the copies, on
    batches drawn from the counts that they were made for ("own") and from the other texts'.
    """
    found = []
    homes = {name: asked.homes(asked.slots, name) for name in METHODS}
    for layer in chosen(case):
        own = {name: home[layer] for name, home in homes.items()}
        batches = {"own": advice.batches(replace(case, load=asked.load), layer)}
        for name, load in asked.others.items():
            batches[name] = advice.batches(replace(case, load=load, seed=case.seed + 1), layer)
        found.append(
            sharing.rivals(own, batches, lambda counts, shares: layer_s(case, counts, shares))
        )
    return sharing.summary(pd.concat(found), even_s(case))


def halves(asked: Asked, steps: np.ndarray) -> Asked:
    """The same, placed for the first half of a recording's steps [steps, layers, experts], and with
    the other half, held out, among the other texts.
    """
    middle = len(steps) // 2
    first, second = (part.sum(0).astype(float) for part in (steps[:middle], steps[middle:]))
    return replace(asked, load=first, others={"held out": second, **asked.others})


def wire(case: advice.Case) -> float:
    """Bytes per second at which a device fetches weights: its card's between nodes of eight, else
    the wire's inside.
    """
    inside = case.machine.exchange["wire_bytes_per_s"]
    return inside if case.devices <= 8 else min(inside, case.machine.nic_bytes_per_s)


def moves(asked: Asked, case: advice.Case) -> pd.Series:
    """rows_that_pay (moving.rows_that_pay); moving_s, seconds to bring all layers from experts in
    order into this placement; tokens_that_pay, after how many tokens of a device that has paid.
    """
    shape, homes = case.model.shape, asked.homes(asked.slots, asked.method)
    order = np.arange(shape.experts).reshape(asked.devices, -1)
    each = [moving.seconds(order, home, shape, wire(case)) for home in homes]
    layers = case.model.layers
    before, after = (
        (1 + slowdown(case, home)) * even_s(case) * layers
        for home in (np.broadcast_to(order, (len(homes), *order.shape)), homes)
    )
    moving_s = float(np.mean(each)) * layers
    paid = moving.tokens_that_pay(moving_s, before, after, case.tokens)
    rows = moving.rows_that_pay(shape, case.model.out_share)
    return pd.Series(dict(rows_that_pay=rows, moving_s=moving_s, tokens_that_pay=paid))


def windows(steps: np.ndarray) -> np.ndarray:
    """[windows, layers, experts] of a recording's steps [steps, layers, experts], in order, at most
    `WINDOWS` of as many steps each.
    """
    parts = np.array_split(steps, min(len(steps), WINDOWS))
    return np.stack([part.sum(0) for part in parts])


def refreshed(asked: Asked, case: advice.Case, steps: np.ndarray) -> pd.DataFrame:
    """moving.refresh, mean over `chosen` layers, of a recording's `windows`: how often a placement
    should be made anew, and after how many tokens of a device a refresh has paid against none.
    """
    loads, shape = windows(steps), case.model.shape
    total, spare = case.tokens * case.devices * shape.k, asked.devices * asked.slots - shape.experts

    def time_s(load: np.ndarray, home: np.ndarray) -> float:
        counts = np.tile(load / max(load.sum(), 1) * total / case.devices, (case.devices, 1))
        share = placement.share(home, shape.experts, case.devices)
        return float(layer_s(case, counts, share))

    def moved_s(old: np.ndarray, new: np.ndarray) -> float:
        return moving.seconds(old, new, shape, wire(case))

    every = [0] + [n for n in (1, 2, 4, 8) if n < len(loads)]
    found = [
        moving.refresh(
            loads[:, layer], every, asked.devices, spare, moved_s=moved_s, layer_s=time_s
        )
        for layer in chosen(case)
    ]
    means = pd.concat(found).groupby("every", sort=False).mean().reset_index()
    saved = means.layer_s.iloc[0] - means.layer_s
    pays = np.where(saved > 0, means.moving_s * means.every / saved.where(saved > 0, 1), np.inf)
    means["tokens_that_pay"] = case.tokens * np.where(means.every > 0, pays, 0.0)
    return means


def others_of(frame: pd.DataFrame, layer: Sequence[int], experts: int) -> dict[str, np.ndarray]:
    """Loads [layers, experts] by model and domain of a table of counts, of the layers numbered
    `layer`.

    Refused: a table without them.
    """
    found = {}
    for (model, domain), part in frame.groupby(["model", "domain"], sort=False):
        table = part.pivot_table(index="layer", columns="expert", values="count", aggfunc="sum")
        if table.shape[1] != experts or not set(layer) <= set(table.index):
            continue
        found[f"{model}, {domain}"] = table.loc[list(layer)].fillna(0).to_numpy()
    if not found:
        raise ValueError(f"place: --on: has no layers {list(layer)} of {experts} experts")
    return found


def shaped(model: step.Model, experts: int, k: int, layers: int) -> step.Model:
    """The model with these experts: as published where it is, else its layers are those of the
    file.
    """
    shape = replace(model.shape, experts=experts, k=k)
    return replace(model, shape=shape, layers=model.layers if model.name else layers)
