"""Quality lost against the busiest device and the time of a layer: replaced assignments, training
and placements in one picture.

Each source is judged by its own protocol: what it leaves of the excess of the busiest expert or
device over the mean is taken relative to the untouched model there, and then stands for as much of
the excess of devices under experts in order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib.model import load

MOST = 7  # marks of one group
COLUMNS = ["group", "way", "causal", "nats", "nats_low", "nats_high", "left"]
SHOWN = ("cost", "balance")
GROUPS = ("assigned otherwise", "trained", "placed")
WHERE = {"same domain": "same text", "another domain": "other text", "all domains": "all text"}


def points(
    tables: Mapping[str, pd.DataFrame], causal: Mapping[str, bool], start: pd.DataFrame
) -> pd.DataFrame:
    """A row per way of balancing: `COLUMNS`; left: share of the excess that it leaves; rho and
    slowdown (`timed`); frontier: whether no other costs less and leaves less.

    tables: of `earlier.tables`, those that there are, of the first model there.  causal: by
    strategy.  start: `from_start`, which is of this book's models and left out beside another.  At
    most `MOST` of a group, those that cost least.
    """
    arm = str(tables["told"].arm.iloc[0]) if "told" in tables else ""
    found = [assigned(tables, causal)]
    trained = [trained_on(tables["trained"])] if "trained" in tables else []
    trained += [start if arm in ("", *load.ARMS) else start.iloc[:0]]
    placed = placed_by(tables["placed"], arm) if "placed" in tables else found[0].iloc[:0]
    found += [pd.concat(trained, ignore_index=True), placed]
    each = [part.dropna(subset=["nats", "left"]) for part in found]
    cheapest = [part.sort_values("nats", kind="stable").head(MOST) for part in each if len(part)]
    whole = pd.concat(cheapest or found, ignore_index=True)
    return frontier(timed(whole, placed))


def assigned(tables: Mapping[str, pd.DataFrame], causal: Mapping[str, bool]) -> pd.DataFrame:
    """Of the assignment chapter, each strategy at the setting that its tables show: nats per token
    above the router's own choice, and the P95 of the busiest expert's excess over that choice's.
    """
    names = ["told", *(f"{what}_{sight}" for what in SHOWN for sight in ("group", "stream"))]
    if not set(names) <= set(tables):
        return pd.DataFrame(columns=COLUMNS)
    native = tables["told"][tables["told"].setting == "native"].p95.iloc[0]
    cost, balance = (
        pd.concat([tables[f"{what}_{sight}"] for sight in ("group", "stream")]) for what in SHOWN
    )
    both = cost.merge(balance, on="setting")
    family = both.setting.map(family_of)
    ends = {"nats": both.delta, "nats_low": both.delta_low, "nats_high": both.delta_high}
    known = family.map(lambda name: causal.get(name, False))
    about = dict(group=GROUPS[0], way=both.setting, causal=known)
    return pd.DataFrame(about | ends | {"left": (both.p95 - 1) / (native - 1)})[COLUMNS]


def family_of(setting: str) -> str:
    """The strategy of a setting, "reroute 1.25": its name without the number at its end."""
    name, _, number = setting.rpartition(" ")
    return name if name and number.replace(".", "", 1).isdigit() else setting


def trained_on(front: pd.DataFrame) -> pd.DataFrame:
    """Of the fine-tuning chapter, each loss at its middle coefficient: nats per token above
    training on without a loss (above the start, where that was not run) with the interval over
    seeds, and MaxVio over that of the start.
    """
    start = front[front.loss == "start"].iloc[0]
    free = front[front.loss == "none"]
    base = free.nats.iloc[0] if len(free) else start.nats
    own = front[~front.loss.isin(["start", "none"])].sort_values(["loss", "coefficient"])
    middle = own.groupby("loss", sort=False).apply(
        lambda part: part.iloc[len(part) // 2], include_groups=False
    )
    ends = {f"nats{end}": middle[f"nats{end}"] - base for end in ("", "_low", "_high")}
    left = middle.max_violation / start.max_violation
    about = dict(group=GROUPS[1], way=middle.index, causal=True, left=left)
    return pd.DataFrame(about | ends)[COLUMNS].reset_index(drop=True)


def from_start(quality: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Switch from the start of training, of `synthesis.quality`, beside those of the `models`
    (`ladder_profile.models`) that have no loss.
    """
    unbalanced = models[models.name == "none"].max_violation.mean()
    own = quality[quality.loss == "switch"]
    ends = {"nats": -own.gain, "nats_low": -own.gain_high, "nats_high": -own.gain_low}
    about = dict(group=GROUPS[1], way="Switch from the start", causal=True)
    return pd.DataFrame(about | ends | {"left": own.max_violation / unbalanced})[COLUMNS]


def placed_by(placed: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Of the network chapter, placements that change no route: on the text that they were made for
    and on another; experts in order are the start.
    """
    arms = list(dict.fromkeys(placed.arm))
    own = placed[placed.arm == (arm if arm in arms else arms[0])]
    before = own[own.placement == "in order"].rho.iloc[0]
    rows = own[own.placement.isin(["packed", "replicated"])]
    way = rows.placement + ", " + rows["where"].map(WHERE)
    about = dict(group=GROUPS[2], way=way, causal=True, nats=0.0, nats_low=0.0, nats_high=0.0)
    kept = pd.DataFrame(about | {"left": (rows.rho - 1) / (before - 1)})
    kept = kept.assign(rho=rows.rho, slowdown=rows.slowdown, before=before)
    order = own[own.placement == "in order"].iloc[0]
    first = dict(zip(COLUMNS, (GROUPS[2], "in order", True, 0.0, 0.0, 0.0, 1.0), strict=True))
    first |= dict(rho=order.rho, slowdown=order.slowdown, before=before)
    return pd.concat([pd.DataFrame([first]), kept], ignore_index=True)


def timed(whole: pd.DataFrame, placed: pd.DataFrame) -> pd.DataFrame:
    """With rho, 1 + left · (ρ of experts in order − 1), and slowdown, that of a line through the
    even layer and the placements, where no time was simulated; NaN without placements.
    """
    if "rho" not in placed or placed.empty:
        return whole.assign(rho=np.nan, slowdown=np.nan)
    above = placed.rho - 1
    beta = float((above * placed.slowdown).sum() / (above**2).sum())
    rho = 1 + whole.left * (placed.before.iloc[0] - 1)
    slow = whole.slowdown.fillna(beta * (rho - 1))
    return whole.assign(rho=whole.rho.fillna(rho), slowdown=slow).drop(columns="before")


def frontier(whole: pd.DataFrame) -> pd.DataFrame:
    """With the column frontier: no other row has fewer nats and leaves less, or one and as much."""
    nats, left = whole.nats.to_numpy(float), whole.left.to_numpy(float)
    better = (nats[:, None] <= nats) & (left[:, None] <= left)
    strict = better & ((nats[:, None] < nats) | (left[:, None] < left))
    return whole.assign(frontier=~strict.any(0))


def best(whole: pd.DataFrame) -> pd.Series:
    """ρ of the ways on the frontier, by name, in the order of what they cost."""
    own = whole[whole.frontier.astype(bool)].sort_values("nats")
    return own.set_index("way").rho


TOLD = {  # of which sentences tell: name of the values and way
    "start": "Switch from the start",
    "packed": "packed, other text",
    "copied": "replicated, other text",
    "reroute": "reroute 1.25",
}


def told(whole: pd.DataFrame) -> pd.DataFrame:
    """What sentences tell of `points`: name, lost (nats with its interval), rho_left and
    slower; NaN of a way that is not there.
    """
    own = whole.drop_duplicates("way").set_index("way").reindex(list(TOLD.values()))
    ends = {"lost": own.nats, "lost_low": own.nats_low, "lost_high": own.nats_high}
    found = pd.DataFrame({"name": list(TOLD), "rho_left": own.rho.to_numpy(float)})
    return found.assign(**{name: part.to_numpy(float) for name, part in ends.items()}).assign(
        slower=own.slowdown.to_numpy(float)
    )


def lost(whole: pd.DataFrame) -> pd.DataFrame:
    """Of `told`, what was measured."""
    return told(whole).drop(columns=["rho_left", "slower"])


def left(whole: pd.DataFrame) -> pd.DataFrame:
    """Of `told`, what was simulated."""
    return told(whole)[["name", "rho_left", "slower"]]
