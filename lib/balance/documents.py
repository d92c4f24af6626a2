"""What finished runs say of their held-out documents, one by one: the unit that intervals over text
resample is the cluster of documents.

Runs of an earlier form name their documents by a digest alone; those of the embedded corpus are
found again by it in the record of the base model, which lists name, cluster and tokens of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from lib.model import load

RECORD = load.HOME / "held_out_without.csv.xz"


def digest(table: pd.DataFrame) -> str:
    """SHA-256 of the names and lengths of documents: what runs must share to be compared."""
    names = "\n".join(table.name + " " + table.tokens.astype(str))
    return hashlib.sha256(names.encode()).hexdigest()


@cache
def recorded(path: Path = RECORD) -> Mapping[str, pd.DataFrame]:
    """By `digest`, the documents of the base model's record at each length that it was read to."""
    if not path.is_file():
        return {}
    parts = (part for _, part in pd.read_csv(path).groupby("cut"))
    return {digest(part): part[["cluster", "tokens"]] for part in parts}


def of(result: Mapping) -> pd.DataFrame | None:
    """cluster and tokens of each held-out document of a run; None where that is not known."""
    own = result["held_out"]["documents"]
    if "cluster" in own:
        return pd.DataFrame({"cluster": own["cluster"], "tokens": own["sizes"]})
    return recorded().get(own["names_sha256"])


def per_token(result: Mapping, what: str = "nats") -> np.ndarray:
    """[1 + clusters] what (a sum per document) per token: on all documents, then without those of
    one cluster at a time; [1] where clusters are not known, and NaN where the sums are not.
    """
    own, known = result["held_out"]["documents"], of(result)
    if what not in own:
        return np.full(1 if known is None else 1 + known.cluster.nunique(), np.nan)
    whole = np.array([sum(own[what]) / own["tokens"]])
    if what == "nats":
        whole[0] = result["held_out"]["nats_per_token"]  # not rounded
    if known is None:
        return whole
    number = pd.factorize(known.cluster, sort=True)[0]
    sums = np.bincount(number, own[what])
    tokens = np.bincount(number, known.tokens)
    total = whole[0] * own["tokens"]
    return np.concatenate([whole, (total - sums) / (own["tokens"] - tokens)])
