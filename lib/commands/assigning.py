"""What the chapter on other assignments says in words: its settings, and its claims as predicates
over its values.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lib.commands import declared
from lib.model import corpus, load, texts
from lib.paper import plots

CORRECTED = "a verdict on mass-preserving weights"
Claim = tuple[str, ...]  # name, text, predicate, what it was corrected from


def settings(arm: str, gamma: float, *, model: str, text: str) -> pd.Series:
    """The checkpoint that the prose is about and the text, in words, `load.own`, the file of its
    fitted bias, the capacity factor at which strategies are told, and what H2b was declared for:
    tokens of a group, and checkpoints.
    """
    subject = f"the checkpoint {plots.label(arm)}" if model in load.OURS else load.described(model)
    return pd.Series(
        dict(
            subject=subject,
            text=texts.described(text),
            own=load.own(model),
            bias_file=f"bias_{arm}.safetensors",
            gamma=gamma,
            declared_group=declared.WINDOWS_PER_DOMAIN * corpus.summary().domain.nunique(),
            declared_checkpoints=declared.LEAST,
        )
    )


def dropping(gaps: pd.DataFrame, pairs: Iterable[str]) -> list[Claim]:
    """H2a, a claim for each checkpoint and policy of weights (rows of `comparison.gaps`): that each
    gap of `pairs` is above 0.
    """
    found: list[Claim] = []
    for row in gaps.itertuples():
        which = f"{plots.label(str(row.arm))}; weights: {row.policy}"
        primary = row.policy == declared.POLICIES[0]
        which += ", the primary policy" if primary else ""
        text = f"H2a ({which}): dropping costs more than re-routing at all three capacity factors."
        predicate = " and ".join(f"{name}_{row.name} > 0" for name in pairs)
        found.append((f"H2a_{row.name}", text, predicate, CORRECTED if primary else ""))
    return found


def dearer(least: pd.DataFrame) -> list[Claim]:
    """Of each checkpoint (rows of `beside.policy_gaps`), that mass-preserving weights cost more for
    every strategy, as they do for the one that loses least by them.
    """
    text = "Whatever the strategy, mass-preserving weights cost more than the router's own rule "
    return [
        (f"dearer_{row.name}", f"{text}({plots.label(str(row.arm))}).", f"{row.name} > 0")
        for row in least.itertuples()
    ]
