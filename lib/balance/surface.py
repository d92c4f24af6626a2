"""What the losses cost beside Switch, by how balance is measured, at which level of it they are
compared, and how a curve is read between its points: a ranking that changes with these is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from lib import stats
from lib.balance import matched
from lib.balance.matched import Curves

METRICS = {"max_violation": "MaxVio, P95", "gini": "Gini"}
# of the way from the most even balance that all losses reach to that without a loss
SHARES = {"lowest": 0.0, "a third up": 1 / 3, "two thirds up": 2 / 3}
CLAIMS: list[tuple[str, ...]] = [  # name, text, predicate, what it was corrected from
    (
        "one_is_cheapest",
        "One loss is the cheapest however balance is measured, matched and read.",
        "cheapest <= 1",
        "the maximum costs less than Switch",
    ),
    (
        "entropy_is_switch",
        "On the text that decides, however balance is measured, matched and read, entropy stays "
        "within the margin of Switch.",
        "gap_most_entropy < margin",
    ),
]
CELL = ["metric", "level", "way"]


def over(
    curves: Mapping[str, Curves], margin: float, *, levels: Mapping[str, float], ways: Iterable[str]
) -> pd.DataFrame:
    """`matched.compared` at every metric, level and way, which stand in columns of these names.

    curves: by the words of the metric.  levels: by their words how far they lie from the most even
    balance that all losses reach.  ways: of `reading.WAYS`.
    """
    tables = []
    for metric, own in curves.items():
        for (level, share), way in product(levels.items(), ways):
            table = matched.compared(own, margin, share=share, way=way)
            tables.append(table.assign(metric=metric, level=level, way=way))
    whole = pd.concat(tables, ignore_index=True)
    return whole[[*CELL, *whole.columns.drop(CELL)]]


def by_loss(table: pd.DataFrame) -> pd.DataFrame:
    """Per loss beside Switch, over the cells of the surface that it reaches in all seeds: least and
    most, its smallest and its largest difference with their intervals, and where (least_at,
    most_at); cheaper and dearer, in how many of the cells its interval lies on one side of Switch,
    told from `stats.CLUSTERS` seeds on.
    """
    whole = table.seeds == table.seeds.max()
    rows = []
    for loss, own in table[whole & table.difference.notna()].groupby("loss", sort=False):
        ordered, row = own.sort_values("difference"), {"loss": loss}
        for name, place in (("least", 0), ("most", -1)):
            cell = ordered.iloc[place]
            row |= {name + end: cell["difference" + end] for end in ("", "_low", "_high")}
            row |= {f"{name}_at": ", ".join(cell[CELL])}
        told = own[own.seeds >= stats.CLUSTERS]
        row |= dict(cheaper=int((told.difference_high < 0).sum()))
        row |= dict(dearer=int((told.difference_low > 0).sum()), cells=len(own))
        rows.append(row)
    columns = ["loss", "least", "least_at", "most", "most_at", "cheaper", "dearer", "cells"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def cheapest(table: pd.DataFrame) -> pd.DataFrame:
    """Per cell: which loss costs least of those that reach it in all seeds, Switch among them."""
    whole = table[table.seeds == table.seeds.max()].assign(
        height=lambda rows: rows.difference.where(rows.loss != "switch", 0.0)
    )
    known = whole[whole.height.notna() & (whole.seeds > 0)]
    return known.loc[known.groupby(CELL, sort=False).height.idxmin(), [*CELL, "loss", "seeds"]]


def told(best: pd.DataFrame) -> pd.Series:
    """Of `cheapest`: cells of the surface; cheapest, how many different losses are the cheapest of
    some cell (NaN without a cell, and below two seeds, where nothing tells losses apart).
    """
    losses = best.loss.nunique() if len(best) and best.seeds.max() > 1 else np.nan
    return pd.Series(dict(cells=len(best), cheapest=losses), dtype=object)


def furthest(table: pd.DataFrame) -> pd.Series:
    """Of the gaps of the losses `matched.EQUAL` to Switch the largest (gap_most_<loss>), with an
    interval that covers those of all cells: NaN below `stats.CLUSTERS` seeds.
    """
    row: dict[str, float] = {}
    for loss in matched.EQUAL:
        own = table[(table.loss == loss) & (table.seeds >= stats.CLUSTERS)]
        name, limits = f"gap_most_{loss}", matched.sizes(own)
        row |= {name: own.difference.abs().max()}
        known = len(own) > 0 and np.isfinite(limits).all()
        row |= {f"{name}_low": limits[:, 0].max() if known else np.nan}
        row |= {f"{name}_high": limits[:, 1].max() if known else np.nan}
    return pd.Series(row)
