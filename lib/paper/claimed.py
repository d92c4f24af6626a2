"""What the predecessor claimed, a row each, and what the network chapter of a run says of it."""

from __future__ import annotations

from string import Formatter

import pandas as pd

from lib.paper import columns, markup

UP_TO = "103%"  # of a run whose tokens, experts and level the predecessor does not tell
# words, with the values of the chapter that hold what was claimed; the value that decides it; its
# claim of the chapter
CLAIMS = (
    (
        "imbalance slows the exchange by {claimed_least} to {claimed_most}",
        "slowdown_claimed",
        "slowdown_58_104",
    ),
    (f"in a run that it does not describe, imbalance slows it by up to {UP_TO}", "", ""),
    ("the tail, P99, grows with imbalance", "p99_growth_least", "p99"),
    ("balance takes about {claimed_gain} off the longest time", "gain_balanced", "balanced_40"),
)
HOLDS = {
    "supported": "supported",
    "not supported": "not supported, its level read as a Gini",
    "undecided": "undecided",
}
UNKNOWN = "cannot be known: the run behind it is not told"
NOT_YET = "not yet"


def table(record: dict) -> pd.DataFrame:
    """A row per claim: claimed, here (the number that decides it, with its kind), and whether it
    holds; "not yet" where this run's chapter has no such number.

    record: the values.json of the network chapter.
    """
    values, verdicts = record["values"], record["claims"]
    rows = []
    for text, value, claim in CLAIMS:
        told = {name: values[name]["text"] for _, name, _, _ in Formatter().parse(text) if name}
        known = values.get(value, {"value": None})
        found = NOT_YET if known["value"] is None else f"{markup.value(known)}, {known['kind']}"
        holds = HOLDS.get(verdicts.get(claim, {}).get("verdict"), NOT_YET) if claim else UNKNOWN
        rows.append([text.format(**told), found if value else columns.NONE, holds])
    return pd.DataFrame(rows, columns=["claimed", "here", "verdict"])
