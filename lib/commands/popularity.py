"""What all texts share of an imbalance, beside what a placement keeps of its gain on other text: of
the ladder's models, and of routers whose counts others published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lib.commands import drift, ladder_profile
from lib.network import transfer
from lib.paper.plots_style import label
from lib.routing import shared

STAGES = Path(__file__).parents[2] / "data/published/olmoe_stages.csv"
DEVICES = (8, 16)  # of OLMoE's 64 experts; as many slots hold copies
FEWEST = min(DEVICES)  # of which sentences tell
CHANGES = {"sft": "instruction tuning", "dpo": "preference tuning"}
SHOWN = {  # rows of the table for readers, and the configurations that each covers
    "without": ("none",),
    "stock": ("start-stock",),
    "other losses": tuple(
        f"start-{loss}" for loss in ("entropy", "gini", "max", "bias", "switch_z")
    ),
    "with": ("switch",),
    "embedded_without": ("embedded-without",),
    "embedded_with": ("embedded-with",),
}
COLUMNS = [
    "shared",
    "specific",
    "shared_share",
    "rho_random",
    "rho_fresh",
    "rho_other",
    "gain_kept",
]


def counts() -> dict[str, np.ndarray]:
    """Published counts [domains, layers, experts] by model: `transfer.COUNTS`."""
    table = pd.read_csv(transfer.COUNTS)
    found = {}
    for name, own in table.groupby("model", sort=False):
        shape = [own[column].nunique() for column in ("domain", "layer", "expert")]
        ordered = own.sort_values(["domain", "layer", "expert"])
        found[str(name)] = ordered["count"].to_numpy(float).reshape(shape)
    return found


def others() -> pd.DataFrame:
    """A row per model of `counts`: name and `COLUMNS`; rho_other is ρ where experts were packed for
    another domain.

    Totals of a domain have no documents, so specific holds their burstiness too.
    """
    rows = []
    for name, loads in counts().items():
        common, own = shared.of_totals(loads)
        number = ladder_profile.devices(loads.shape[2])
        each = [
            drift.between(np.delete(loads, place, 0), load, number)
            for place, load in enumerate(loads)
        ]
        rho = pd.DataFrame(each)[["random", "fresh", "stale"]].mean()
        row = dict(name=name, shared=common.mean(), specific=own.mean(), rho_random=rho.random)
        row |= dict(rho_fresh=rho.fresh, rho_other=rho.stale)
        rows.append(row | {"gain_kept": (rho.random - rho.stale) / (rho.random - rho.fresh)})
    found = pd.DataFrame(rows)
    return found.assign(shared_share=found.shared / (found.shared + found.specific))


def each(models: pd.DataFrame) -> pd.DataFrame:
    """`COLUMNS` of each of the ladder's models (`ladder_profile.models`), with name and seed."""
    ends = {name: f"rho_{name}" for name in ("random", "fresh", "other")}
    share = models.shared / (models.shared + models.specific)
    named = models.rename(columns=ends | {"kept_other": "gain_kept"}).assign(shared_share=share)
    return named[["name", "seed", *COLUMNS]]


def table(own: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Means of `each` by the rows of `SHOWN`, below them `others`: router, models, `COLUMNS`."""
    of = {name: router for router, names in SHOWN.items() for name in names}
    named = own.assign(router=own.name.map(of)).dropna(subset="router")
    groups = named.groupby("router", sort=False)
    means = groups[COLUMNS].mean().assign(models=groups.size()).reindex(list(SHOWN)).reset_index()
    beside = published.assign(router=published.name, models=1)
    return pd.concat([means, beside], ignore_index=True)[["router", "models", *COLUMNS]]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with its routers in words."""
    return table.assign(router=table.router.map(label))


def apart(table: pd.DataFrame) -> pd.DataFrame:
    """gain_kept and shared_share of the rows of `table` on published counts, router the first word
    of the model in small.
    """
    own = table[~table.router.isin(list(SHOWN))]
    short = own.router.str.split("-").str[0].str.lower()
    return own[["gain_kept", "shared_share"]].assign(router=short)


def apart_by_loss(own: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The models of `each`: all, those with a loss of each layer's own (even) and the others
    (uneven).
    """
    uneven = own.name.str.contains("none|without|stock")
    return {"all": own, "even": own[~uneven], "uneven": own[uneven]}


def order(own: pd.DataFrame) -> pd.Series:
    """order_…: Spearman's correlation of shared_share and gain_kept over `apart_by_loss`."""
    found = {
        f"order_{name}": part.shared_share.corr(part.gain_kept, method="spearman")
        for name, part in apart_by_loss(own).items()
    }
    return pd.Series(found)


def numbers(own: pd.DataFrame) -> pd.Series:
    """models_…: how many models are in each of `apart_by_loss`; stage_devices: of `told`."""
    found = {f"models_{name}": len(part) for name, part in apart_by_loss(own).items()}
    return pd.Series(found | {"stage_devices": FEWEST})


def stages() -> pd.DataFrame:
    """Whether post-training makes a placement of OLMoE-1B-7B stale, beside a change of text: a row
    per change and number of devices of `DEVICES`.

    change: served are the counts of the model after `CHANGES`, placed by those of its base on the
    same text; or those of the base, placed by its counts on each of the texts of `counts`
    ("another text").  rho_random: ρ of random placements; packed_, copied_: fresh, stale and
    kept of `drift.between`, packed and with a copy per device.
    """
    known = pd.read_csv(STAGES)
    layers = known.layer.nunique()
    loads = {stage: known[stage].to_numpy(float).reshape(layers, -1) for stage in known.columns[2:]}
    texts = counts()["OLMoE-1B-7B"]
    cases = [(words, loads["base"][None], loads[stage]) for stage, words in CHANGES.items()]
    cases.append(("another text", texts, loads["base"]))
    rows = []
    for devices in DEVICES:
        for words, made, served in cases:
            row: dict = dict(change=words, devices=devices)
            for way, redundant in (("packed", 0), ("copied", devices)):
                found = drift.between(made, served, devices, redundant)
                row["rho_random"] = found.pop("random")
                row |= {f"{way}_{name}": value for name, value in found.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def told(table: pd.DataFrame) -> pd.DataFrame:
    """What `stages` keep on the fewest devices, packed_kept and copied_kept; the change in a word:
    tuned, preferred or text.
    """
    short = dict(
        zip((*CHANGES.values(), "another text"), ("tuned", "preferred", "text"), strict=True)
    )
    own = table[table.devices == FEWEST][["packed_kept", "copied_kept"]]
    return own.assign(change=table.change.map(short))
