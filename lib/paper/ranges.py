"""What the parameters of notebooks may be: kinds of rules, and the rule of each name.

One name means one thing and has one rule, in whatever notebook it stands. Every number has an upper
bound, by the memory or the time that it asks for: what is larger by a slip of the finger ends in
one line, not in a machine without memory. A rule that needs what only a chapter knows stands in its
notebook.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

MOST = 2**20  # of counts and sizes
LARGEST = 1e15  # of quantities
LONGEST = 1000  # items of a list
INSIDE = 50_000  # files below a folder: `/` is named by a slip, and all of it would be read
XZ = bytes.fromhex("fd377a585a00")  # how a file that xz packed begins
Rule = tuple[Callable[[object], bool], str]  # what a value must satisfy, and how to say it


def whole(least: int | None = None, most: int = MOST) -> Rule:
    """A whole number within the limits, both included."""
    return lambda v: type(v) is int and _within(v, least, most), "must be a whole number" + _limits(
        least, most
    )


def real(least: float | None = None, most: float = LARGEST) -> Rule:
    """A finite number within the limits, both included."""
    return (
        lambda v: type(v) in (int, float) and math.isfinite(v) and _within(v, least, most),
        "must be a finite number" + _limits(least, most),
    )


def choice(*options: str) -> Rule:
    """One of the given words."""
    return lambda v: v in options, f"must be one of {', '.join(options)}"


def device() -> Rule:
    """What a chapter computes on; "cuda" only where a card's driver is."""
    cards = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    rule = "must be one of auto, cpu, cuda, and cuda only where there is a GPU"
    there = ("auto", "cpu", *(["cuda"] if any(Path(one).exists() for one in cards) else []))
    return lambda v: v in there, rule


def text() -> Rule:
    """A text that is not empty."""
    return lambda v: isinstance(v, str) and v.strip() != "", "must be a text that is not empty"


def positive(most: float = LARGEST) -> Rule:
    """A number > 0."""
    return (
        lambda v: type(v) in (int, float) and 0 < v <= most,
        f"must be a finite number > 0 and ≤ {most:g}",
    )


def anything() -> Rule:
    """A text, empty or not."""
    return lambda v: isinstance(v, str), "must be a text"


def flag() -> Rule:
    """True or False."""
    return lambda v: type(v) is bool, "must be True or False"


def each(rule: Rule) -> Rule:
    """A list, neither empty nor of more than `LONGEST` items, all different, each of which
    satisfies `rule`.
    """
    holds, words = rule

    def fits(value: object) -> bool:
        if not isinstance(value, list) or not 0 < len(value) <= LONGEST:
            return False
        return all(map(holds, value)) and len(set(value)) == len(value)

    return fits, f"must be a list; each item another one that {words}"


def multiple(of: int, least: int, most: int) -> Rule:
    """A whole number within the limits, both included, that `of` divides."""
    holds, words = whole(least, most)
    return lambda v: holds(v) and v % of == 0, f"{words}, a multiple of {of}"


def of_nodes(node: int, most: int) -> Rule:
    """A number of devices: of one node, or of whole nodes."""
    return (
        lambda v: type(v) is int and (2 <= v <= node or (v % node == 0 and node < v <= most)),
        f"must be a whole number from 2 to {node}, or whole nodes of {node} up to {most}",
    )


def place(*words: str, hub: str = "", holds: str = "", called: str = "") -> Rule:
    """One of the words, a path that exists, or, where `hub` is a pattern, what a hub may have under
    that name; an address of the network is none of these.  holds: a pattern of files of which a
    folder must hold one, `called` so in words.
    """

    def fits(value: object) -> bool:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            return False
        named = bool(hub and re.fullmatch(hub, value))
        if value in words or named:
            return True
        path = found(value)
        return path is not None and (not holds or any(path.glob(holds)))

    some = f" (a file, or a folder of at most {INSIDE})"
    rest = (", or what a hub calls so" if hub else "") + (f" and holds {called}" if holds else "")
    return fits, f"must be {', '.join(map(repr, words))}, a path that exists{some}{rest}"


def packed(*words: str) -> Rule:
    """One of the words, or a file that xz packed."""

    def fits(value: object) -> bool:
        full = found(value) if isinstance(value, str) else None
        if value in words or full is None or not full.is_file():
            return value in words
        with full.open("rb") as file:
            return file.read(len(XZ)) == XZ

    options = ", ".join(map(repr, words))
    return fits, f"must be {options}, a path that exists (a file that `make corpus` wrote)"


def found(path: str) -> Path | None:
    """The path, with ~ the user's home, where there is a file or a folder of at most `INSIDE`; a
    device or a pipe may never end.
    """
    try:
        full = Path(path).expanduser()
        return full if full.is_file() or (full.is_dir() and not _endless(full)) else None
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, of no user
        return None


@functools.cache
def _endless(folder: Path) -> bool:
    """Whether more than `INSIDE` files lie below a folder, looked at once in a process."""
    counts = itertools.accumulate(len(files) for _, _, files in os.walk(folder))
    return any(count > INSIDE for count in counts)


def _within(value: float, least: float | None, most: float) -> bool:
    return (least is None or value >= least) and value <= most


def _limits(least: float | None, most: float) -> str:
    top = f"{most:g}" if isinstance(most, float) else f"{most}"
    return f" ≤ {top}" if least is None else f" from {least} to {top}"


# the words of parameters that else name a place
PLACES: dict[str, tuple[str, ...]] = {
    "model": ("embedded", "without", "with"),
    "text": ("held-out",),
    "corpus_source": ("auto",),
    "trace": ("auto",),
    "counts": ("published",),
    "measured": ("auto",),
}
MODEL = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"  # owner/name of a hub
FILES = r"(?!.*\.(?:txt|md|jsonl?|ndjson|csv|tsv|parquet|gz|zip)$)"  # of which no data set ends so
DATASET = rf"{FILES}(?:{MODEL}|[A-Za-z0-9][\w.-]*)"

RANGES: dict[str, Rule] = {
    # where and from what
    "run_dir": text(),
    "device": device(),
    "seed": whole(0),
    "model": place(*PLACES["model"], hub=MODEL),
    "revision": text(),
    "dtype": choice("auto", "float32", "bfloat16", "float16"),
    "remote_code": anything(),
    "arms": each(choice("without", "with")),
    "trace": place(*PLACES["trace"]),
    "counts": place(*PLACES["counts"]),
    "counts_experts": whole(0, 2**16),
    "counts_top_k": whole(0, 4096),
    # what to do
    "decision_devices": each(of_nodes(8, 1024)),
    "decision_tokens": each(whole(1, 2**17)),
    "spare_slots": whole(0, 64),
    "enough": real(0, 0.99),
    "lasting": real(1, 100),
    "small_beta": real(0, 100),
    "known_level": real(0, 0.9),
    "known_devices": whole(2, 1024),
    "known_tokens": whole(1, 2**17),
    "measured": place(*PLACES["measured"], holds="*/*.csv.xz", called="MACHINE/EXPERIMENT.csv.xz"),
    "constants": choice("measured", "published"),
    # text
    "corpus_source": packed(*PLACES["corpus_source"]),
    "allow_partial": flag(),
    "text": place(*PLACES["text"], hub=DATASET),
    "text_field": text(),
    "text_split": text(),
    "documents": whole(2, 10_000),
    "documents_per_domain": whole(2, 10_000),
    "tokens_per_document": whole(16, 8192),  # all logits of one document at once
    "fit_documents": whole(2, 10_000),
    "completion_tokens": whole(1, 400),
    # training
    "retrain": flag(),
    "epochs": real(0, 100),
    "steps": whole(0, 1_000_000),
    "time_budget_s": real(0, 30 * 86_400),
    "batch_sequences": whole(1, 4096),
    "sequence_tokens": whole(8, 1024),  # positions that the embedded model has
    "learning_rate": real(0, 1),
    "balance_coefficient": real(0, 1000),
    "training_seeds": whole(1, 1000),
    "training_strides": each(whole(1, 100_000)),
    "finetune_steps": whole(1, 1_000_000),
    "finetune_sequences": whole(1, 4096),
    "finetune_learning_rate": real(0, 1),
    "equivalence_margin": real(1e-6, 10),
    "checkpoint_every": whole(0, 1_000_000),
    "deterministic": flag(),
    "trained": choice("auto", "all", "routers"),
    "keep": anything(),
    # draws
    "batch_tokens": whole(16, 2**18),
    "batches": whole(20, 100_000),
    "null_draws": whole(20, 100_000),
    "locality_draws": whole(20, 100_000),
    "bootstrap_draws": whole(20, 100_000),
    "shuffles": whole(1, 100),
    # cost of recording
    "cost_shape": choice("model", "OLMoE-1B-7B"),
    "cost_tokens": whole(16, 2**14),
    "cost_repeats": whole(5, 10_000),
    # strategies
    "strategy_names": each(text()),
    "gammas": each(positive(1000)),
    "bias_scales": each(real(0, 100)),
    "among": each(whole(1, 4096)),
    "policies": each(choice("native", "mass", "rank")),
    "group_sizes": each(whole(1)),
    "prefill_tokens": whole(1),
    "ablation": flag(),
    "fit_steps": whole(1, 1_000_000),
    # the wire
    "num_tokens": whole(16),  # fewer may all stay on one device
    "num_experts": whole(2, 4096),
    "top_k": whole(1, 4096),
    "imbalance_levels": each(real(0, 1)),
    "family": choice("power", "lognormal", "one_hot"),
    "num_devices": whole(2, 1024),  # a matrix of devices × devices per seed
    "devices_per_node": whole(0, 1024),
    "hidden_size": whole(1, 2**17),
    "bytes_per_element": real(0.125, 16),
    "fabric": text(),
    "nvlink_bytes_per_s": real(0, LARGEST),
    "nic_bytes_per_s": real(0, LARGEST),
    "expert_parallel": each(whole(2, 1024)),
    "device_tokens": each(whole(1, 2**17)),
    "step_levels": each(real(0, 1)),
    "step_seeds": whole(2, 10_000),
    "exact_up_to": whole(0, 1024),
    "overlap": flag(),
    "placement_tokens": whole(1),
    "scale_devices": each(multiple(8, 8, 8192)),  # nodes of 8; a matrix of devices × devices
    "scale_exact": whole(0, 8192),
    "seeds": whole(20, 100_000),
    # measuring
    "measure": flag(),
    "measure_seconds": real(30, 86_400),
    "large_bytes": whole(1, 2**34),
    "load_draws": whole(2, 1000),
    "deepep_fitted": each(whole(1, 4096)),
    "nodes_fitted": each(whole(1, 4096)),
    "normal_fitted": each(whole(1, 4096)),
}
