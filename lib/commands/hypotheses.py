"""The declared hypotheses, decided: what each says, its verdict, and Holm's p over all of them."""

from __future__ import annotations

import pandas as pd

from lib import stats
from lib.commands import declared, ladder_summary
from lib.commands.ladder_results import Results
from lib.measure import watching

# as the page of the claims says them too
SAYS = {
    "H1": "Without a balance loss, domains cancel more than half of each other's imbalance.",
    "H2a": "Dropping costs more than re-routing, with the router's own weights.",
    "H2b": "A frozen bias costs less than its best rival.",
    "H3": "Entropy and Gini cost what Switch costs.",
    "H4": "Measured times follow the busiest device, not the Gini of experts.",
    "H5": "Balancing at inference costs an unbalanced model more, in other router shapes too.",
    "H6a": "A placement beats the frozen bias in the time of a step.",
    "H6b": "While decoding, activated experts tell times better than tokens alone.",
}


def family(
    table: pd.DataFrame, results: Results, fresh: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A row per declared hypothesis: verdict, p, p_holm (Holm over all of `declared.FAMILY`; one
    that was not run counts with p = 1) and checkpoints.  fresh: the parts that the validation
    decides on measured layers (`watching.declared`), if it was run.
    """
    known = ladder_summary.verdicts(table, results).set_index("hypothesis")
    if fresh is not None and len(fresh):
        known = pd.concat([known, _on_layers(fresh)])
    rows = known.reindex(declared.FAMILY).rename_axis("hypothesis").reset_index()
    rows["verdict"] = rows.verdict.fillna("not run")
    rows["p_holm"] = stats.holm(rows.p.fillna(1.0))
    rows["checkpoints"] = rows.n.fillna(0).astype(int)
    return rows[["hypothesis", "verdict", "p", "p_holm", "checkpoints"]]


def _on_layers(parts: pd.DataFrame) -> pd.DataFrame:
    """H4 and H6b by name: verdict and p; they rest on cards, not on checkpoints."""
    found = watching.verdicts(parts)
    rows = {name: (found[name], found[f"{name}_p"]) for name in ("h4", "h6b")}
    own = pd.DataFrame(rows, index=["verdict", "p"]).T.rename(index=str.upper)
    own = own.rename(index={"H6B": "H6b"})
    return own.assign(p=own.p.astype(float))


def in_words(family: pd.DataFrame) -> pd.DataFrame:
    """`family` for readers: what each says, and no number of models where it rests on machines."""
    shown = family[["hypothesis", "verdict", "p_holm"]].copy()
    shown.insert(1, "what_it_says", family.hypothesis.map(SAYS))
    return shown.assign(checkpoints=family.checkpoints.where(family.checkpoints > 0))


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """`family` as values: hypothesis, value (its verdict), p_holm, checkpoints."""
    known = table.rename(columns={"verdict": "value"})
    return known[["hypothesis", "value", "p_holm", "checkpoints"]]
