"""Counts of experts that others recorded: read from what serving engines write, and held against
the metrics of this book.

A table of counts has a row per model, domain, layer and expert, with the columns `COLUMNS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.routing.profile import METRICS, metrics
from lib.routing.trace import Trace

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "real_routers.csv"
COLUMNS = ["model", "experts", "top_k", "domain", "layer", "tokens", "expert", "count"]
JUDGED = ["model", "experts", "top_k", "layer", "domain", "tokens"]  # what a row of metrics is of


def read(path: Path) -> pd.DataFrame:
    """Counts that others recorded, a table of `COLUMNS`.

    Read are: a CSV of these columns; a dump of SGLang's expert distribution recorder (.pt with
    "logical_count" [steps, layers, experts], or "records" with "topk_ids_of_layer" [layers, tokens,
    k] or "logical_count"); and an array [..., layers, experts] as vLLM's expert load, in .pt, .npy
    or .json.  Leading axes (steps, ranks) are summed; layers never are.  Refused: anything else,
    and counts below 0.
    """
    try:
        if path.suffix == ".csv":
            return _counted(pd.read_csv(path)[COLUMNS], path)
        load, k = _dump(_content(path))
    except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"others.read: {path}: cannot be read as counts: {reason}") from None
    tokens = load.sum(1) // k if k else np.zeros(len(load), int)
    return _counted(_table(load, path.stem, "all", k, tokens), path)


def _content(path: Path) -> object:
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True)
    return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)


def _table(load: np.ndarray, model: str, domain: str, k: int, tokens: np.ndarray) -> pd.DataFrame:
    """Counts [layers, experts] of one domain as a table of `COLUMNS`; tokens [layers]."""
    layer, expert = np.indices(load.shape)
    about = dict(model=model, experts=load.shape[1], top_k=k, domain=domain, layer=layer.ravel())
    spread = np.repeat(tokens, load.shape[1])
    return pd.DataFrame(about | dict(tokens=spread, expert=expert.ravel(), count=load.ravel()))


def _counted(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if (frame["count"] < 0).any() or frame.empty:
        raise ValueError(f"others.read: {path}: counts must be ≥ 0, and there must be some")
    return frame


def _dump(content: object) -> tuple[np.ndarray, int]:
    """[layers, experts] of a recorder's dump, and k where it tells it (else 0)."""
    k = 0
    if isinstance(content, dict) and "records" in content:
        records = content["records"]
        if "topk_ids_of_layer" in records[0]:
            chosen = [np.asarray(record["topk_ids_of_layer"]) for record in records]
            k, experts = chosen[0].shape[2], 1 + max(int(part.max()) for part in chosen)
            steps = [np.stack([_used(row, experts) for row in part]) for part in chosen]
        else:
            steps = [np.asarray(record["logical_count"]) for record in records]
        load = np.asarray(steps)
    else:
        load = np.asarray(content["logical_count"] if isinstance(content, dict) else content)
    if load.ndim < 2:
        raise ValueError(f"shape {load.shape}: must end in [layers, experts]")
    return load.reshape(-1, *load.shape[-2:]).sum(0).astype(np.int64), k


def _used(chosen: np.ndarray, experts: int) -> np.ndarray:
    """[experts] how often each was chosen, of numbers in any shape; those below 0 are padding."""
    return np.bincount(chosen[chosen >= 0], minlength=experts)


def of_trace(t: Trace, model: str) -> pd.DataFrame:
    """The counts of a trace, per domain, as a table of `COLUMNS`."""
    k = t.expert_index.shape[2]
    tables = [
        _table(load, model, domain, k, load.sum(1) // k) for domain, load in t.domain_load().items()
    ]
    return pd.concat(tables, ignore_index=True)


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics of counts (columns `COLUMNS`) per model, domain and layer, and of all domains
    together ("pooled", where there are several).

    gini_share: Gini over its largest value, 1 − k/E (missing where k is not known).  locality, of
    pooled rows only: 1 − CV²(pooled) / mean of CV²(domain); totals have no documents, so this CV²
    is the plain one.
    """
    rows = [_judged(part) for _, part in frame.groupby(["model", "layer"], sort=False)]
    return pd.concat(rows, ignore_index=True).reindex(
        columns=[*JUDGED, *METRICS, "gini_share", "locality"]
    )


def _judged(part: pd.DataFrame) -> pd.DataFrame:
    """`judged` of one layer of one model."""
    load = part.pivot_table(
        index="domain", columns="expert", values="count", sort=False, fill_value=0
    )
    about = part.iloc[0][["model", "top_k", "layer"]].to_dict() | dict(experts=load.shape[1])
    tokens = part.drop_duplicates("domain").set_index("domain").tokens[load.index]
    rows = metrics(load.to_numpy()).assign(domain=load.index, tokens=tokens.to_numpy())
    if len(load) > 1:
        pooled = metrics(load.to_numpy().sum(0)[None]).assign(domain="pooled", tokens=tokens.sum())
        pooled["locality"] = 1 - pooled.cv**2 / (rows.cv**2).mean()
        rows = pd.concat([rows, pooled])
    k = about["top_k"]
    return rows.assign(**about, gini_share=rows.gini / (1 - k / load.shape[1]) if k else np.nan)


def published() -> pd.DataFrame:
    """`judged` of the expert counts that AI2 published with OLMoE (arXiv 2409.02060), of
    OLMoE-1B-7B and Mixtral-8x7B: five domains of 208,896 tokens each, layers 0, 7 and 15.
    """
    return pd.read_csv(PUBLISHED)


def known(source: str) -> pd.DataFrame:
    """`judged` of other routers: "published", or the file of counts that `read` takes."""
    return published() if source == "published" else judged(read(Path(source)))


def beside(
    traces: Mapping[str, Trace], others: pd.DataFrame, names: Mapping[str, str]
) -> pd.DataFrame:
    """`judged` of traces, each under its own of the `names`, and below it that of other routers;
    router: that name.
    """
    own = [judged(of_trace(t, names[arm])) for arm, t in traces.items()]
    table = pd.concat([*own, others], ignore_index=True)
    return table.assign(router=table.model)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over layers of `judged`, of text of one domain and of all domains together: model, text
    ("one domain", "all"), gini, gini_share, cv, entropy, max_violation, locality.
    """
    text = table.domain.eq("pooled").map({True: "all", False: "one domain"})
    shown = ["gini", "gini_share", "cv", "entropy", "max_violation", "locality"]
    return table.assign(text=text).groupby(["model", "text"])[shown].mean().reset_index()


def whole(table: pd.DataFrame) -> pd.Series:
    """Of `means`, Gini over its largest value of all domains together, by model."""
    return table[table.text == "all"].set_index("model").gini_share


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Means over layers of `judged` of all domains together: router, the short name of its model;
    real_gini, its Gini over the largest one; real_locality.
    """
    means = table[table.domain == "pooled"].groupby("model")[["gini_share", "locality"]].mean()
    short = [str(name).split("-")[0].lower() for name in means.index]
    named = means.set_axis(["real_gini", "real_locality"], axis=1)
    return named.assign(router=short).reset_index(drop=True)
