"""Whose load advice is about: a trace or a table of counts, parted into what placements are made by
and what they are judged on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import provenance
from lib.routing import trace

IN_SAMPLE = "the same counts, since they are of one text: in sample"


@dataclass(frozen=True)
class Subject:
    """One router on one text.

    load, judged: counts [layers, experts] by which placements are made, and on which they are
    judged; judged_on: what the latter are, in words.  tokens: of a layer, both together.  k: 0
    where it is not told.  parts: counts [layers, experts] by text.  kind: "measured" by this book's
    code, or "published".
    """

    name: str
    load: np.ndarray
    judged: np.ndarray
    judged_on: str
    tokens: int
    k: int
    parts: dict[str, np.ndarray]
    kind: str = "measured"

    @property
    def whole(self) -> np.ndarray:
        """[layers, experts] all counts."""
        return self.load if self.judged_on == IN_SAMPLE else self.load + self.judged


def of_trace(t: trace.Trace, name: str = "") -> Subject:
    """Every second document makes placements, the others judge them; of one document both do."""
    second = (np.unique(t.document, return_inverse=True)[1] % 2).astype(bool)
    loads = [
        trace.counts(part.reshape(len(part), -1), t.experts).astype(float)
        for part in (t.expert_index[:, ~second], t.expert_index[:, second])
    ]
    words = "every second document, held out"
    if not second.any():
        loads, words = [loads[0], loads[0]], IN_SAMPLE
    parts = {domain: load.astype(float) for domain, load in t.domain_load().items()}
    k = t.expert_index.shape[2]
    return Subject(name or t.model, loads[0], loads[1], words, len(t.document), k, parts)


def of_counts(frame: pd.DataFrame, name: str = "", kind: str = "measured") -> Subject:
    """Of a table of counts (`others.COLUMNS`): every second text makes placements, the others judge
    them; of one text both do.

    name: which model.  Refused: several models without a name, a name that is not there.
    """
    models = list(dict.fromkeys(frame.model))
    if name and name not in models:
        hint = provenance.nearest(name, models)
        options = ", ".join(map(str, models))
        raise ValueError(f"advise: --model-name {name}: must be one of {options}{hint}")
    if not name and len(models) > 1:
        options = ", ".join(map(str, models))
        raise ValueError(
            f"advise: the counts are of {len(models)} models: say which by --model-name: {options}"
        )
    own = frame[frame.model == (name or models[0])]
    layers, experts = sorted(own.layer.unique()), range(int(own.experts.iloc[0]))
    parts = {
        str(domain): part.pivot_table(
            index="layer", columns="expert", values="count", aggfunc="sum"
        )
        .reindex(index=layers, columns=experts)
        .fillna(0)
        .to_numpy(float)
        for domain, part in own.groupby("domain", sort=False)
    }
    loads, k = list(parts.values()), int(own.top_k.iloc[0])
    made, judged = (sum(loads[start::2], np.zeros_like(loads[0])) for start in (0, 1))
    words = f"{len(loads[1::2])} of {len(loads)} texts, held out"
    if not judged.sum(1).all() or not made.sum(1).all():
        made = judged = sum(loads[1:], loads[0])
        words = IN_SAMPLE
    total = int(sum(loads[1:], loads[0]).sum(1).min())
    tokens = total // k if k else 0
    return Subject(name or str(models[0]), made, judged, words, tokens, k, parts, kind)
