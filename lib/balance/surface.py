"""What the losses cost beside Switch, by how balance is measured, at which level of it they are
compared, and how a curve is read between its points: a ranking that changes with these is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib import stats
from lib.balance import matched, reading, runs
from lib.balance.study import Job

METRICS = {"max_violation": "MaxVio, P95", "gini": "Gini"}
# of the way from the most even balance that all losses reach to that without a loss
SHARES = {"lowest": 0.0, "a third up": 1 / 3, "two thirds up": 2 / 3}
CELL = ["metric", "level", "way"]


def over(results: Mapping[Job, dict], jobs: Sequence[Job], margin: float) -> pd.DataFrame:
    """`matched.compared` of the complete seeds at every metric, level and way, which stand in
    columns of these names.
    """
    seeds, tables = runs.complete(runs.table(results), jobs), []
    for metric, words in METRICS.items():
        own = matched.curves(results, seeds, metric)
        for level, share in SHARES.items():
            for way in reading.WAYS:
                table = matched.compared(own, margin, share=share, way=way)
                tables.append(table.assign(metric=words, level=level, way=way))
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
    return known.loc[known.groupby(CELL, sort=False).height.idxmin(), [*CELL, "loss"]]


def told(table: pd.DataFrame) -> pd.Series:
    """cells of the surface; cheapest: how many different losses are the cheapest of some cell, and
    their names (cheapest_losses); of the gaps of the losses `matched.EQUAL` to Switch the largest
    (gap_most_<loss>) with an interval that covers those of all cells: NaN below `stats.CLUSTERS`
    seeds.
    """
    best = cheapest(table)
    names = list(dict.fromkeys(best.loss))
    row: dict[str, object] = dict(cells=len(best), cheapest=len(names) if names else np.nan)
    row |= dict(cheapest_losses=names)
    for loss in matched.EQUAL:
        own = table[(table.loss == loss) & (table.seeds >= stats.CLUSTERS)]
        name, limits = f"gap_most_{loss}", matched.sizes(own)
        row |= {name: own.difference.abs().max()}
        known = len(own) > 0 and np.isfinite(limits).all()
        row |= {f"{name}_low": limits[:, 0].max() if known else np.nan}
        row |= {f"{name}_high": limits[:, 1].max() if known else np.nan}
    return pd.Series(row)
