"""What is known of published values beyond their numbers: how their intervals were made, and on
which machine what they rest on was measured.
"""

from __future__ import annotations

import re

from lib.paper.columns_known import COLUMNS
from lib.paper.plots_style import label

Rules = tuple[tuple[str, str], ...]  # (pattern at the beginning of a name, words), the first counts

SEEDS = "95 % interval, Student's t over seeds"
CLUSTERS = "95 % interval, bootstrap over clusters of documents"
CHECKPOINTS = "95 % interval, Student's t over checkpoints"
CROSSED = "95 % interval over seeds and clusters of documents"
RANDOM = "band that holds nine in ten draws of random placements"
INTERVALS: dict[str, Rules] = {
    "01": (
        ("locality_null", "band that holds 95 % of draws with permuted labels"),
        ("locality", "95 % interval, jackknife over clusters of documents"),
        ("cost", "95 % interval of the median of pairs, by order statistics"),
    ),
    "02": (("", CLUSTERS),),
    "03": (
        ("trainer_ratio", "95 % interval, Student's t over rounds"),
        ("gini|nats|router_entropy|specialisation", SEEDS),
        ("", CROSSED),
    ),
    "04": (
        ("rho_random|counts_random", RANDOM),
        ("p99_growth", "95 % interval, bootstrap over seeds"),
        ("", SEEDS),
    ),
    "05": (
        ("error_gain", "95 % interval over clusters of shape and tokens"),
        ("start_us|wire", "95 % interval, bootstrap over the points of the fit"),
        ("beta|slowdown", "95 % interval, bootstrap over draws of routes"),
        ("", "95 % interval, bootstrap over groups that err together"),
    ),
    "06": (
        ("gini_none|gini_switch|phi_|price_without", CHECKPOINTS),
        (".*_(embedded|smallest|largest)|lost_reroute", "95 % interval over clusters of documents"),
        (
            "",
            "95 % interval over checkpoints and clusters of documents; where checkpoints are too "
            "few, over clusters alone",
        ),
    ),
}
OTHERS = "machines of others, who published the counts"
# a name in braces is a published text of the chapter; "" is the machine that computed the page
MEASURED: dict[str, Rules] = {
    "00": ((".*_here|compared", ""), ("", "{training_device}")),
    "01": (("real_", OTHERS),),
    "03": (("trainer|rate_book|rate_trainer", "{trainer_device}"), ("", "{training_device}")),
    "04": (
        ("counts|packing|copies", OTHERS),
        ("bound_ms|exact_ms|rho", ""),
        ("", "GPUs whose tables lie in data/measured"),
    ),
    "05": (
        ("bounds", "{bounds_device}"),
        ("exact|approximate|bound", "a CPU, see data/measured/engine"),
        (".*_earlier", "{base}"),
        (".*_fresh|fresh|by_|error_gain|h4|h6b|queued|graph|call|launch", "{judge}"),
        ("later", "{later}"),
        ("", "{machines}"),
    ),
    "06": (
        (".*_(olmoe|mixtral)|.*_kept_", OTHERS),
        ("order|lost_reroute|.*_embedded", ""),
        ("", "NVIDIA H200, in the runs that trained the models"),
    ),
}
ENDINGS = ("with", "without", "none")  # no part of what a column is called


def _first(rules: Rules, name: str) -> str:
    return next((words for pattern, words in rules if re.match(pattern, name)), "")


def interval(chapter: str, name: str) -> str:
    """How the interval of a value was made, "" where that is not known; chapter: two digits."""
    return _first(INTERVALS.get(chapter, ()), name)


def machine(record: dict, name: str) -> str:
    """Where what a measured value of a chapter's record rests on was measured; "" where that is the
    machine that computed the page.
    """
    words = _first(MEASURED.get(record["chapter"][:2], ()), name)
    known = {key: str(value["value"]) for key, value in record["values"].items()}
    return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], ""), words)


def meaning(name: str) -> str:
    """A published name in words: those of the longest column that it begins with, and its rest."""
    parts = name.split("_")
    for count in [n for n in range(len(parts), 0, -1) if n == 1 or parts[n - 1] not in ENDINGS]:
        if column := COLUMNS.get("_".join(parts[:count])):
            rest = " ".join(map(label, parts[count:]))
            return f"{column.words}: {rest}" if rest else column.words
    return name.replace("_", " ")


def digits(value: object) -> str:
    """A value in four digits; whole numbers and texts as they are."""
    if not isinstance(value, int | float):
        return "not available" if value is None else str(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
