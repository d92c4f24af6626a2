"""Placements made for the counts of one text, judged on the counts of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib.network import placement
from lib.network.transfer import (
    DRAWS,
    FREE,
    MADE,
    MIXED,
    OTHER,
    RANDOM,
    REST,
    banded,
    held,
    placements,
    randoms,
)

WIDER = "wider"


def cases(counts: pd.DataFrame, devices: int) -> dict[str, tuple[str, int]]:
    """For `judged`: by group, each model of counts and how many devices share its experts, the
    most up to `devices` that leave each two experts or more; the first model also on twice as many
    (WIDER), where they do.

    Refused: a model whose experts no number of devices divides so.
    """
    found, (first, *_) = {}, counts.model.unique()
    for name, experts in counts.groupby("model", sort=False).expert.max().items():
        own = [n for n in range(2, devices + 1) if (experts + 1) % n == 0 and experts + 1 >= 2 * n]
        if not own:
            raise ValueError(
                f"counts.cases: {name}: {experts + 1} experts: from 2 to {devices} devices must "
                "share them evenly, two or more a device"
            )
        found[str(name)] = str(name), max(own)
    wide, experts = 2 * found[first][1], counts[counts.model == first].expert.max() + 1
    if experts % wide == 0 and experts >= 2 * wide:
        found[f"{first}, {WIDER}"] = first, wide
    return found


def judged(
    counts: pd.DataFrame, cases: Mapping[str, tuple[str, int]], seed: int = 0
) -> pd.DataFrame:
    """Placements made for the counts of one text, judged on one domain each, for counts (columns
    model, domain, layer, expert, count): ρ per group, layer, domain judged on, placement, draw and
    where, the text it was made for.

    where: that domain ("packed for", in sample), "another domain" (the mean over those), "all
    domains" in equal parts (in sample) or "all other domains", where there are others; "no text" of
    those in order and at random.
    cases: by group, the model and how many devices share its experts; as many slots hold copies.
    """
    found = []
    for group, (model, devices) in cases.items():
        for layer, own in counts[counts.model == model].groupby("layer"):
            load = own.groupby(["domain", "expert"])["count"].sum().unstack(fill_value=0)
            loads = load.to_numpy(float)
            drawn = held(loads, randoms(load.shape[1], devices, seed + int(layer)), devices)
            for at, rho in enumerate(drawn):
                free = dict(placement=RANDOM, draw=np.arange(DRAWS), where=FREE, rho=rho)
                found.append(pd.DataFrame(free | dict(at=at)))
            found.append(pd.DataFrame(_made(loads, devices)))
            for part in found[-len(loads) - 1 :]:
                part["domain"] = load.index[part["at"]]
                part[["group", "layer"]] = group, layer
    keys = ["group", "layer", "domain", "placement", "draw", "where"]
    return pd.concat(found).groupby(keys, sort=False).rho.mean().reset_index()


def _made(loads: np.ndarray, devices: int) -> list[dict]:
    """ρ on each domain (its number: at) of loads [domains, experts], under placements made for each
    text.
    """
    shares, several = loads / loads.sum(1, keepdims=True), len(loads) > 1
    each = [placements(load, devices, devices) for load in loads]
    mixed = placements(shares.sum(0), devices, devices) if several else {}
    rows = []
    for at, load in enumerate(loads):
        rest = placements(np.delete(shares, at, 0).sum(0), devices, devices) if several else {}
        made = [(MADE, each[at]), (MIXED, mixed), (REST, rest)]
        made += [(OTHER, homes) for number, homes in enumerate(each) if number != at]
        for where, homes in made:
            for name, home in homes.items():
                own = placement.device_load(load, home, devices)
                text = FREE if name == "in order" else where
                row = dict(at=at, placement=name, draw=0, where=text, rho=own.max() / own.mean())
                rows.append(row)
    return rows


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Of judged, per group, placement and where: mean ρ over layers and pairs of domains, with
    its band over draws.
    """
    return banded(rows, ["group", "placement", "where"], ["rho"])


def counted(rows: pd.DataFrame, group: str) -> pd.Series:
    """Of judged, mean ρ of one group: counts_order (experts in order), counts_random (random,
    with its band over draws), counts_random_once (its first draw), packed and copied in the domain
    that they were made for (counts_packed, counts_copied), made for another (counts_moved,
    counts_copied_moved) and for all other domains (counts_mixed, counts_copied_mixed); NaN where
    there is one domain.
    """
    own = rows[rows.group == group]
    at = averages(own).set_index(["placement", "where"])
    once = own[(own.placement == RANDOM) & (own.draw == 0)].rho.mean()
    wanted = dict(
        counts_order=("in order", FREE),
        counts_random=(RANDOM, FREE),
        counts_packed=("packed", MADE),
        counts_moved=("packed", OTHER),
        counts_mixed=("packed", REST),
        counts_copied=("replicated", MADE),
        counts_copied_moved=("replicated", OTHER),
        counts_copied_mixed=("replicated", REST),
    )
    found = {name: at.rho.get(key, np.nan) for name, key in wanted.items()}
    band = at.loc[(RANDOM, FREE)]
    ends = dict(counts_random_low=band.rho_low, counts_random_high=band.rho_high)
    return pd.Series(found | ends | dict(counts_random_once=once))


def kept(rows: pd.DataFrame, cases: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Of judged, which share of what a placement takes off the busiest device in the domain that
    it was made for remains in others: 1 all of it, 0 none (columns name, value).

    cases: by name, the group and the placement.  Without an interval: layers and domains of one
    model are no sample of models.
    """
    found = []
    for name, (group, made) in cases.items():
        rho = rows[rows.group == group].groupby(["placement", "where"]).rho.mean()
        before = rho.get(("in order", FREE), np.nan)
        gain = {where: before - rho.get((made, where), np.nan) for where in (OTHER, MADE)}
        found.append(dict(name=name, value=gain[OTHER] / gain[MADE] if gain[MADE] else np.nan))
    return pd.DataFrame(found)


def gains(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """`kept` of packing (packing_kept) and of copies (copies_kept) in one group, and of copies on
    more devices (copies_wide_kept).
    """
    wanted = {
        "packing_kept": (group, "packed"),
        "copies_kept": (group, "replicated"),
        "copies_wide_kept": (f"{group}, {WIDER}", "replicated"),
    }
    return kept(rows, wanted)


def settings(counts: pd.DataFrame, cases: Mapping[str, tuple[str, int]], source: str) -> pd.Series:
    """What a reader is told of counts: counts_model, the first of them, on counts_devices devices
    and on counts_wide (NaN where that is not judged); counts_published, how many models, or
    counts_file, the name of a file.
    """
    first, *_ = cases
    wide = cases.get(f"{first}, {WIDER}", (first, np.nan))[1]
    told: dict[str, object] = dict(
        counts_model=first, counts_devices=cases[first][1], counts_wide=wide
    )
    if source == "published":
        return pd.Series(told | dict(counts_published=counts.model.nunique()))
    return pd.Series(told | dict(counts_file=Path(source).name))
