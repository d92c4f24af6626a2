"""How the columns of tables are called and written, everywhere in the book: one place for both.

A table shows `COLUMNS[name]` of its columns, an interval in the cell of its value; a published
value of that name has the same format and unit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import pandas as pd

from lib.paper import intervals

NONE = "–"  # in a table, where there is no number


@dataclass(frozen=True)
class Column:
    """Words for the head of a column, the format of its numbers (Python's), and their unit."""

    words: str
    fmt: str = ".3g"
    unit: str = ""


COLUMNS = {
    "estimate": Column("estimate", ".4f"),
    "p": Column("p", ".4f"),
    "checkpoints": Column("models", "d"),
    "price": Column("price of balancing", ".3f"),
    "gini_after": Column("Gini with", ".3f"),
    "gini_before": Column("Gini without", ".3f"),
    "memory_gb": Column("memory beyond the model (GB)", ".2f", "GB"),
    "trained": Column("trained"),
    "above_start": Column("nats per token above the start", ".4f"),
    "faster": Column("learning rate, times", "g"),
    "above_none": Column("nats per token above training on", ".4f"),
    "able": Column("can show the table"),
    "above_null": Column("above the null", ".0%"),
    "accuracy": Column("next-token accuracy", ".1%"),
    "accuracy_points": Column("accuracy gained (points)", "+.2f", "points"),
    "added": Column("nats per token above the start", "+.4f"),
    "adds": Column("what it adds to the language loss"),
    "approximate_error": Column("makespan, approximate", ".1e"),
    "approximate_ratio": Column("SimGrid / approximate", ".0f"),
    "arithmetic_us": Column("of it arithmetic (µs)", ".4g"),
    "arm": Column("checkpoint"),
    "batch_gini_p50": Column("Gini, P50", ".2f"),
    "batch_gini_p95": Column("Gini, P95", ".2f"),
    "batch_gini_p99": Column("Gini, P99", ".2f"),
    "batch_kilotokens": Column("thousand tokens of a batch", ".3g", "thousand tokens"),
    "batch_maxvio_p50": Column("MaxVio, P50", ".2f"),
    "batch_maxvio_p95": Column("MaxVio, P95", ".2f"),
    "batch_maxvio_p99": Column("MaxVio, P99", ".2f"),
    "beta": Column("elasticity β", ".2f"),
    "beta_difference": Column("predicted − measured", "+.2f"),
    "beta_predicted": Column("predicted β", ".2f"),
    "between": Column("between settings"),
    "between_visits": Column("between visits", ".3f"),
    "bias_over_rival": Column("bias over its rival", ".4f"),
    "bits_per_byte": Column("bits per byte", ".3f"),
    "bits_per_byte_5gram": Column("5-gram", ".3f"),
    "bits_per_byte_with": Column("with balance loss", ".3f"),
    "bits_per_byte_without": Column("without balance loss", ".3f"),
    "bits_per_byte_xz": Column("xz -9", ".3f"),
    "bound_ms": Column("bound (ms)", ".0f", "ms"),
    "busiest": Column("busiest over mean", ".1f"),
    "by_active": Column("active experts", ".1%"),
    "by_gini": Column("Gini", ".1%"),
    "by_rho": Column("ρ", ".1%"),
    "by_tiles": Column("rows in whole tiles", ".1%"),
    "bytes_leaving": Column("bytes that leave the node per token", ",.0f"),
    "churn": Column("choices changed", ".0%"),
    "cluster_null": Column("null by cluster", ".3f"),
    "coefficient": Column("coefficient", "g"),
    "cheaper": Column("cells where cheaper", "d"),
    "cost": Column("nats per token above no loss", "+.4f"),
    "cv": Column("CV", ".3f"),
    "cv2": Column("CV², unbiased", ".3f"),
    "dead": Column("dead experts"),
    "dearer": Column("cells where dearer", "d"),
    "delta": Column("added nats per token", ".3f", "nats/token"),
    "delta_mass": Column("added nats, mass", ".3f", "nats/token"),
    "delta_native": Column("added nats, native", ".3f", "nats/token"),
    "delta_prefill": Column("added nats, prefill", ".3f", "nats/token"),
    "delta_prefix": Column("added nats, prefix", ".3f", "nats/token"),
    "delta_rank": Column("added nats, rank", ".3f", "nats/token"),
    "difference": Column("nats per token above Switch", "+.4f"),
    "difference_here": Column("difference", ".1g", "nats/token"),
    "document_null": Column("null by document", ".3f"),
    "drift": Column("drift without a loss", "+.3f"),
    "drop_over_reroute": Column("drop over re-route", ".4f"),
    "drop_over_reroute_1": Column("drop over re-route, γ = 1", ".4f", "nats/token"),
    "drop_over_reroute_125": Column("drop over re-route, γ = 1.25", ".4f", "nats/token"),
    "drop_over_reroute_15": Column("drop over re-route, γ = 1.5", ".4f", "nats/token"),
    "dropped": Column("slots left empty", ".1%"),
    "effective": Column("effective experts", ".1f"),
    "entropy": Column("entropy", ".3f"),
    "entropy_over_switch": Column("entropy over Switch", ".4f"),
    "epochs": Column("passes over the text", ".1f"),
    "error": Column("relative error", ".1%"),
    "error_median": Column("median error", ".1%"),
    "error_most": Column("largest error", ".1%"),
    "error_p95": Column("95th percentile", ".1%"),
    "even_us": Column("even routes (µs)", ".0f"),
    "exact_ms": Column("exact (ms)", ".0f", "ms"),
    "exact_ratio": Column("SimGrid / exact", ".0f"),
    "flow_error": Column("single flow", ".1e"),
    "gain_kept": Column("gain kept on other text", ".2f"),
    "gain": Column("gain", ".3f"),
    "gini": Column("Gini", ".3f"),
    "gini_all": Column("all documents", ".3f"),
    "gini_document": Column("one document", ".3f"),
    "gini_later": Column("later quarters", ".3f"),
    "gini_later_most": Column("largest of them", ".3f"),
    "gini_mixture": Column("training mixture", ".3f"),
    "gini_opening": Column("first quarter", ".3f"),
    "gini_over_switch": Column("Gini over Switch", ".4f"),
    "gini_quarter_2": Column("second quarter", ".3f"),
    "gini_quarter_3": Column("third quarter", ".3f"),
    "gini_quarter_4": Column("last quarter", ".3f"),
    "gini_share": Column("Gini over its largest value", ".2f"),
    "held_out_share_left": Column("held-out documents left", ".0%"),
    "in_sample": Column("error in sample", ".1%"),
    "inside": Column("levels that single runs can show", "d"),
    "kept": Column("gates kept", ".1%"),
    "kind": Column("kind of kernel"),
    "known": Column("share known", ".2f"),
    "least": Column("least above Switch", "+.4f"),
    "least_at": Column("where least"),
    "leak": Column("largest change of a logit", ".4g"),
    "level": Column("P95 compared at", ".2f"),
    "locality": Column("locality", ".2f"),
    "locality_null": Column("with permuted labels", ".2f"),
    "locality_p": Column("p", ".4f"),
    "makespan_error": Column("makespan", ".1e"),
    "mass_over_native": Column("mass over native", ".4f", "nats/token"),
    "max_time_us": Column("time (µs)", ".2f"),
    "max_violation": Column("MaxVio", ".2f"),
    "mean_us": Column("mean (µs)", ".0f"),
    "measured_us": Column("measured (µs)", ".4g"),
    "megabytes": Column("megabytes", ".2f", "MB"),
    "milliseconds": Column("milliseconds", ".1f"),
    "min_over_mean": Column("least over mean", ".3f"),
    "most": Column("most above Switch", "+.4f"),
    "most_at": Column("where most"),
    "nats": Column("nats per token", ".4f"),
    "nats_per_token": Column("nats per token", ".3f"),
    "null": Column("null", ".3f"),
    "optimal_over_reroute": Column("optimal over re-route", ".4f", "nats/token"),
    "over_even": Column("time over even routes", ".2f"),
    "p10_over_p50": Column("P10 / P50", ".3f"),
    "p50_over_mean": Column("P50 / mean", ".3f"),
    "p90_over_p50": Column("P90 / P50", ".3f"),
    "p95": Column("busiest over nominal, P95", ".2f"),
    "p95_over_mean": Column("P95 / mean", ".3f"),
    "p95_prefill": Column("P95, prefill", ".2f"),
    "p95_prefix": Column("P95, prefix", ".2f"),
    "p99_over_mean": Column("P99 / mean", ".3f"),
    "p99_over_p50": Column("P99 / P50", ".3f"),
    "p_equivalent": Column("p of equivalence", ".2g"),
    "p_holm": Column("p (Holm)", ".2g"),
    "parameters_m": Column("parameters", ".1f", "million"),
    "passes": Column("passes", ".2f"),
    "perplexity": Column("perplexity", ".2f"),
    "perplexity_before": Column("perplexity before", ".2f"),
    "perplexity_both": Column("perplexity"),
    "perplexity_ratio": Column("perplexity, times", ".3f"),
    "phi": Column("Φ", ".2f"),
    "policy": Column("weights"),
    "predecessor": Column("the predecessor's slowdown", "+.1%"),
    "predicted_us": Column("predicted (µs)", ".4g"),
    "price_correlation": Column("bias against minus prices", ".2f"),
    "rate": Column("thousand tokens per second", ".3g", "thousand tokens/s"),
    "rate_book": Column("rate of this book", ".3g", "thousand tokens/s"),
    "rate_trainer": Column("rate of the Trainer", ".3g", "thousand tokens/s"),
    "ratio": Column("ratio", ".1f"),
    "ceiling": Column("ceiling: of the time at most", ".1%"),
    "copied_kept": Column("kept with copies", ".0%"),
    "copies_gb": Column("GB of copies a device", ".2f", "GB"),
    "enough": Column("left alone up to", ".0%"),
    "found_again": Column("found again", "d"),
    "lasting": Column("lasts up to", ".3g"),
    "lost": Column("nats per token lost", ".3f", "nats/token"),
    "models_all": Column("models", "d"),
    "models_even": Column("balanced models", "d"),
    "models_uneven": Column("other models", "d"),
    "offered": Column("offered by"),
    "order_all": Column("rank correlation", ".2f"),
    "order_even": Column("rank correlation, balanced", ".2f"),
    "order_uneven": Column("rank correlation, others", ".2f"),
    "over_start": Column("nats per token above a loss from the start", ".4f"),
    "packed_kept": Column("kept, packed", ".0%"),
    "perplexity_by": Column("perplexity changes by", "+.1%"),
    "phi_null": Column("null of Φ", ".2f"),
    "phi_python": Column("Φ within Python", ".2f"),
    "phi_python_null": Column("its null", ".2f"),
    "rho_both": Column("ρ: median, P95"),
    "rho_left": Column("ρ left", ".2f"),
    "settled": Column("gain kept to the end", ".2f"),
    "shapes": Column("shapes", "d"),
    "slowdown_copied": Column("slowdown, with copies", "+.1%"),
    "slowdown_packed": Column("slowdown, packed", "+.1%"),
    "slower": Column("layer slower by", ".1%"),
    "small_beta": Column("small elasticity below", ".3g"),
    "stale_over_fresh": Column("drift: stale / fresh", ".2f"),
    "reached": Column("P95 reached", ".2f"),
    "repair": Column("repair", ".3f"),
    "rho": Column("ρ", ".2f"),
    "rho_fresh": Column("ρ, fresh", ".2f"),
    "rho_other": Column("ρ, another domain", ".2f"),
    "rho_random": Column("ρ, random", ".2f"),
    "rho_same": Column("ρ, same domain", ".2f"),
    "router_entropy": Column("router entropy (nats)", ".2f"),
    "saved": Column("time saved", ".0%"),
    "seeds": Column("seeds", ".0f"),
    "share": Column("share of the time", ".1%"),
    "shared": Column("CV² that domains share", ".2f"),
    "shared_share": Column("shared part", ".2f"),
    "slowdown": Column("slowdown", "+.1%"),
    "slowdown_error": Column("error of the slowdown", ".0%"),
    "slowdown_other": Column("slowdown, another domain", "+.1%"),
    "slowdown_p95": Column("its P95", "+.1%"),
    "slowdown_same": Column("slowdown, same domain", "+.1%"),
    "specialisation": Column("specialisation (bits)", ".3f"),
    "specific": Column("CV² of each alone", ".2f"),
    "stride": Column("every n-th document", ".0f"),
    "target": Column("MaxVio compared at", ".2f"),
    "test": Column("nats, other clusters", ".3f", "nats/token"),
    "text_tokens_m": Column("million tokens", ".1f"),
    "time_error": Column("error of the time", ".1%"),
    "time_us": Column("time (µs)", ".4g"),
    "times_even": Column("time over even routes", ".1f"),
    "tokens_m": Column("million tokens of a run", ".2g", "million"),
    "train_gini": Column("Gini while training", ".3f"),
    "training_gini": Column("Gini at the end of training", ".2f"),
    "training_megabytes": Column("training text", ".0f", "MB"),
    "training_rate_m": Column("training rate", ".2f", "million tokens/s"),
    "training_tokens_m": Column("training tokens", ".0f", "million"),
    "unique_tokens_m": Column("unique tokens", ".1f", "million"),
    "us": Column("time (µs)", ".0f"),
    "validation": Column("nats, deciding clusters", ".3f", "nats/token"),
    "variant": Column("sent"),
    "when": Column("tokens per device", ""),
    "whole_step": Column("of a whole step", "+.1%"),
    "wire_share": Column("share of the wire", ".0%"),
    "worst_over_bar": Column("worst over the better bar", ".2f"),
}


def known(name: Hashable) -> Column:
    """What is known of a column; of one that is not listed its own name in words."""
    return COLUMNS.get(str(name)) or Column(str(name).replace("_", " "))


def show(value: Any, fmt: str) -> str:
    """A value in its format; texts as they are, booleans in words, missing numbers as such."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not available"
    return format(round(value) if fmt.endswith("d") else value, fmt)


def fmt(name: Hashable, value: object) -> str:
    """The format of a value of a column; a whole number of a column that is not listed keeps all
    its digits.
    """
    plain = known(name).fmt
    return "d" if isinstance(value, Integral) and plain == Column.fmt else plain


def cell(row: dict, name: str) -> str:
    """One cell of a table for readers: the value, and in brackets its interval."""
    value, limits = row[name], intervals.of(row, name)
    if not isinstance(value, str) and pd.isna(value):
        return NONE
    text, ends = show(value, fmt(name, value)), [show(v, known(name).fmt) for v in limits or ()]
    return f"{text} [{', '.join(ends)}]" if ends else text


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table as texts: heads in words, numbers in their formats, intervals beside their values."""
    names = intervals.without([str(name) for name in table.columns])
    rows = table.to_dict("records")
    columns = [[cell(row, name) for row in rows] for name in names]
    return pd.DataFrame(dict(enumerate(columns))).set_axis([known(n).words for n in names], axis=1)


def told(data: pd.Series | pd.DataFrame) -> str:
    """The numbers of a column or table in a sentence, each after the label that its index gives:
    "re-route, 1.25: 0.166; drop, 1.25: 0.166".
    """
    table = data.to_frame() if isinstance(data, pd.Series) else data
    parts = []
    for label, row in zip(table.index, table.to_dict("records"), strict=True):
        names = label if isinstance(label, tuple) else (label,)
        words = ", ".join(f"{name:g}" if isinstance(name, float) else str(name) for name in names)
        numbers = ", ".join(
            cell(row, str(name))
            if len(intervals.without(list(row))) == 1
            else f"{known(name).words} {cell(row, name)}"
            for name in intervals.without([str(name) for name in row])
        )
        parts.append(f"{words}: {numbers}")
    return "; ".join(parts)
