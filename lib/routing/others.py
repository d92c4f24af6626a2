"""Counts of experts that others recorded: read from what serving engines write, and held against
the metrics of this book.

A table of counts has a row per model, domain, layer and expert, with the columns `COLUMNS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lib.routing import recorded
from lib.routing.profile import METRICS, metrics
from lib.routing.trace import Trace

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "real_routers.csv"
LARGEST = {"experts": 65_536, "top_k": 65_536, "layer": 9_999}  # that a model may have
MOST = 2**53  # a count that is a whole number in every format
COLUMNS = ["model", "experts", "top_k", "domain", "layer", "tokens", "expert", "count"]
NUMBERS = ["experts", "top_k", "layer", "tokens", "expert", "count"]
JUDGED = ["model", "experts", "top_k", "layer", "domain", "tokens"]  # what a row of metrics is of


def read(path: Path, experts: int = 0, top_k: int = 0) -> pd.DataFrame:
    """Counts that others recorded, a table of `COLUMNS` with a row for every expert, chosen or not;
    the kinds of files are those of `recorded.rows`.

    experts, top_k: what the file does not tell (0: the file's own).  Rows that stand twice, as of
    several ranks, are summed.  Layers without an assignment, as dense ones are, are left out with
    a warning.  Refused: a number of experts that is nowhere told (the largest one seen is not it)
    or told in two ways; counts that are no whole numbers ≥ 0, so shares too; an expert beyond the
    number of experts; top_k ≥ experts; and an expert with more assignments than there are tokens.
    """
    try:
        return checked(recorded.rows(path), path, experts, top_k)
    except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(f"others.read: {path}: cannot be read as counts: {reason}") from None


def checked(frame: pd.DataFrame, path: Path, experts: int = 0, top_k: int = 0) -> pd.DataFrame:
    """`read` of the rows of a file, with what they lack as given."""
    told = {name: _told(frame, name, n) for name, n in (("experts", experts), ("top_k", top_k))}
    names = dict(model=path.stem, domain="all", tokens=0)
    frame = frame.assign(**{n: v for n, v in names.items() if n not in frame}, **told)
    frame = frame.assign(**{name: _whole(frame, name) for name in NUMBERS})
    return _counted(frame, path.name)


def _told(frame: pd.DataFrame, name: str, given: int) -> pd.Series:
    """The file's column `name`, or where it has none as given."""
    column = frame[name] if name in frame else pd.Series(0, frame.index)
    column = column.where(column != 0, given)
    if given and (column != given).any():
        other = column[column != given].iloc[0]
        raise ValueError(f"counts_{name} = {given}: must be {other}, as in the file, or 0")
    if name == "experts" and (column == 0).any():
        raise ValueError("does not tell the number of experts: counts_experts must")
    return column


def _whole(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of whole numbers ≥ 0."""
    numbers = pd.to_numeric(frame[name], errors="coerce")
    bad = ~np.isfinite(numbers) | (numbers < 0) | (numbers > MOST)
    bad |= numbers != np.floor(numbers)
    if bad.any():
        place, value = int(bad.to_numpy().argmax()), frame[name][bad].iloc[0]
        raise ValueError(f"row {place + 1}: {name} = {value}: must be whole, and ≥ 0, at most 2⁵³")
    return numbers.astype(np.int64)


def _counted(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows summed, with those of experts that were never chosen."""
    for column, most in LARGEST.items():
        if (worst := frame[column].max()) > most:
            raise ValueError(f"{column} = {worst}: must be at most {most}")
    for column in ("experts", "top_k"):
        each = frame.groupby("model")[column].unique()
        if len(several := each[each.map(len) > 1]):
            values = ", ".join(map(str, sorted(several.iloc[0])))
            raise ValueError(f"{column} of model {several.index[0]}: {values}: must be one number")
    beyond = frame[frame.expert >= frame.experts]
    if len(beyond):
        rule = f"must be below {beyond.experts.iloc[0]}, the number of experts"
        raise ValueError(f"expert {beyond.expert.iloc[0]}: {rule}")
    about = ["model", "experts", "top_k", "domain", "layer"]
    sums = frame.groupby([*about, "expert"])[["tokens", "count"]].sum().reset_index()
    parts = {key: _layer(part, *key[1:3]) for key, part in sums.groupby(about)}
    empty = sorted({int(key[-1]) for key, part in parts.items() if not part["count"].sum()})
    whole = [
        part.assign(**dict(zip(about, key, strict=True)))
        for key, part in parts.items()
        if part["count"].sum()
    ]
    if not whole:
        raise ValueError("counts nothing: must have some assignments")
    if empty:
        layers = ", ".join(map(str, empty))
        warnings.warn(f"{name}: left out, without an assignment: layers {layers}", stacklevel=3)
    return pd.concat(whole, ignore_index=True)[COLUMNS]


def _layer(part: pd.DataFrame, experts: int, k: int) -> pd.DataFrame:
    """tokens, expert, count of one layer, a row for every expert."""
    if k >= experts:
        raise ValueError(f"top_k = {k}: must be below {experts}, the number of experts")
    load = part.set_index("expert")["count"].reindex(range(experts), fill_value=0)
    tokens = int(part.tokens.max()) or (-(-int(load.sum()) // k) if k else 0)
    if tokens and load.max() > tokens:
        rule = f"must be at most {tokens}, the tokens (is top_k {k}?)"
        raise ValueError(f"an expert with {load.max()} assignments in a layer: {rule}")
    return pd.DataFrame(dict(tokens=tokens, expert=load.index, count=load.to_numpy()))


def _table(load: np.ndarray, model: str, domain: str, k: int, tokens: np.ndarray) -> pd.DataFrame:
    """Counts [layers, experts] of one domain as a table of `COLUMNS`; tokens [layers]."""
    layer, expert = np.indices(load.shape)
    about = dict(model=model, experts=load.shape[1], top_k=k, domain=domain, layer=layer.ravel())
    spread = np.repeat(tokens, load.shape[1])
    return pd.DataFrame(about | dict(tokens=spread, expert=expert.ravel(), count=load.ravel()))


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

    gini_share: Gini over its largest value, 1 − k/E, or where k is not known (top_k 0) over
    1 − 1/E, the largest of any k, so that it is then told too small; 0 where k = E.  locality, of
    pooled rows only: 1 − CV²(pooled) / mean of CV²(domain); totals have no documents, so this CV²
    is the plain one.
    """
    rows = [_judged(part) for _, part in frame.groupby(["model", "layer"], sort=False)]
    return pd.concat(rows, ignore_index=True).reindex(
        columns=[*JUDGED, *METRICS, "gini_share", "locality"]
    )


def _judged(part: pd.DataFrame) -> pd.DataFrame:
    """`judged` of one layer of one model."""
    counted = part.pivot_table(index="domain", columns="expert", values="count", sort=False)
    load = counted.reindex(columns=range(int(part.experts.iloc[0]))).fillna(0).astype(np.int64)
    about = part.iloc[0][["model", "top_k", "layer"]].to_dict() | dict(experts=load.shape[1])
    tokens = part.drop_duplicates("domain").set_index("domain").tokens[load.index]
    rows = metrics(load.to_numpy()).assign(domain=load.index, tokens=tokens.to_numpy())
    if len(load) > 1:
        pooled = metrics(load.to_numpy().sum(0)[None]).assign(domain="pooled", tokens=tokens.sum())
        pooled["locality"] = 1 - pooled.cv**2 / (rows.cv**2).mean()
        rows = pd.concat([rows, pooled])
    largest = 1 - max(about["top_k"], 1) / load.shape[1]
    return rows.assign(**about, gini_share=rows.gini / largest if largest > 0 else 0.0)


def published() -> pd.DataFrame:
    """`judged` of the expert counts that AI2 published with OLMoE (arXiv 2409.02060), of
    OLMoE-1B-7B and Mixtral-8x7B: five domains of 208,896 tokens each, layers 0, 7 and 15.
    """
    return pd.read_csv(PUBLISHED)


def known(source: str, experts: int = 0, top_k: int = 0) -> pd.DataFrame:
    """`judged` of other routers: "published", or the file of counts that `read` takes."""
    if source == "published":
        return published()
    return judged(read(Path(source).expanduser(), experts, top_k))


def beside(
    traces: Mapping[str, Trace], others: pd.DataFrame, names: Mapping[str, str]
) -> pd.DataFrame:
    """`judged` of traces, each under its own of the `names`, and below it that of other routers;
    router: that name.
    """
    own = [judged(of_trace(t, names[arm])) for arm, t in traces.items()]
    table = pd.concat([*own, others], ignore_index=True)
    unknown = table.top_k.eq(0).map({True: " (k unknown: taken as 1)", False: ""})
    return table.assign(router=table.model + unknown)


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
