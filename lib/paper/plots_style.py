"""What a name looks like and how it is called, throughout the book: `style` and `label` answer for
any name, so that a new strategy, loss, model or fabric needs no row here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

GREY = "#7F7F7F"  # references and nulls
DARK = "#444444"  # what is told by the line alone
BETA = "β: % of time per\n% of the busiest's load"  # elasticity


@dataclass(frozen=True)
class Style:
    """What a name looks like: colour (Okabe-Ito and its like, safe for colour blindness), marker
    and line of matplotlib.
    """

    colour: str
    mark: str = "o"
    dash: Any = "-"


STYLES = {  # of the names that this book uses most; every other name gets its own by `style`
    "model": Style("#D55E00"),
    "without": Style("#D55E00"),
    "with": Style("#0072B2", "s", "--"),
    "null": Style(GREY, "", ":"),
    "predecessor": Style("#000000", "X", ""),
    # losses
    "none": Style("#D55E00", "o"),
    "switch": Style("#0072B2", "s"),
    "gini": Style("#009E73", "^"),
    "entropy": Style("#CC79A7", "v"),
    "cv2": Style("#E69F00", "D"),
    "max": Style("#56B4E9", "P"),
    "stock": Style("#882255", "X"),
    "z": Style("#8C564B", "h"),
    "bias": Style("#000000", "*"),
    "start": Style(GREY, ".", ":"),
    # families of routes
    "power": Style("#009E73", "o"),
    "sorted": Style("#CC79A7", "s"),
    "lognormal": Style("#E69F00", "^"),
    "one_hot": Style("#56B4E9", "D"),
    # strategies
    "native": Style("#000000", "X"),
    "random": Style(GREY, "x"),
    "round_robin": Style("#B0A000", "+"),
    "hashed": Style("#A6761D", "1"),
    "drop": Style("#D55E00", "o"),
    "drop_position": Style("#8B1A1A", "s"),
    "expanded_drop": Style("#E69F00", "P"),
    "reroute": Style("#0072B2", "D"),
    "optimal": Style("#56B4E9", "v"),
    "sinkhorn": Style("#009E73", "^"),
    "biased": Style("#CC79A7", "*"),
    "expert_choice": Style("#6A3D9A", "<"),
    "least_loaded": Style("#33A02C", ">"),
    "threshold": Style("#E7298A", "h"),
    "activate_fewer": Style("#1B4F72", "d"),
    # what tells a token's first expert
    "token": Style("#D55E00", "o"),
    "position": Style(GREY, "s"),
    "domain": Style("#009E73", "D"),
    "second": Style("#E69F00", "^"),
    "before": Style("#0072B2", "v"),
    # parts of a layer's time (its start: as the loss "start")
    "wire": Style("#0072B2"),
    "arithmetic": Style("#D55E00"),
    "order": Style("#E69F00"),
    "hidden": Style("#FFFFFF"),
    # statistics, and how a number was come by
    "mean": Style("#009E73"),
    "P50": Style(DARK, "", ":"),
    "P95": Style(DARK, "", "--"),
    "P99": Style(DARK, "", "-."),
    "β": Style("#D55E00"),
    "of it arithmetic": Style("#0072B2", "", ":"),
    "fit": Style("#0072B2", "+"),
    "held_out": Style("#D55E00", "o"),
    "same domain": Style("#0072B2", "o"),
    "packed for": Style("#0072B2", "o"),
    "another domain": Style("#D55E00", "s"),
    "all domains": Style("#882255", "D"),
    "all other domains": Style("#E69F00", "^"),
    "no text": Style(DARK, "x"),
    "bound": Style(DARK, "", "-"),
    "exact": Style(DARK, "", "--"),
    # shapes of models, fabrics and experiments
    "OLMoE-1B-7B": Style("#009E73", "o"),
    "Mixtral-8x7B": Style("#D55E00", "s"),
    "Qwen3-30B-A3B": Style("#CC79A7", "^"),
    "DeepSeek-V3": Style("#0072B2", "D"),
    "gpt-oss-20b": Style("#56B4E9", "v"),
    "gpt-oss-120b": Style("#E69F00", "P"),
    "NVLink throughout": Style("#0072B2", "o"),
    "nodes of 8, fat tree": Style("#D55E00", "s"),
    "nodes of 8, tree 3 : 1": Style("#009E73", "^"),
    "nodes of 8, rails": Style("#CC79A7", "D"),
    "small exchange": Style("#0072B2", "", "-"),
    "large exchange": Style("#D55E00", "", "--"),
    "experts": Style("#009E73", "", ":"),
    "layer": Style("#CC79A7", "", "-."),
}
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288"]
MARKS = "osD^v<>Pph8*Xd"
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2)), (0, (1, 4)))
NAMES = {
    "model": "the model",
    "packed for": "the domain packed for",
    "without": "without balance loss",
    "with": "with balance loss",
    "null": "perfect router",
    "olmoe": "OLMoE-1B-7B",
    "mixtral": "Mixtral-8x7B",
    "qwen3": "Qwen3-30B-A3B",
    "of it arithmetic": "β from arithmetic alone",
    "repeated_model": "one prompt repeated",
    "repeated_without": "one prompt repeated, without the loss",
    "repeated_with": "one prompt repeated, with the loss",
    "embedded_without": "the embedded one without the loss",
    "embedded_with": "the embedded one with the loss",
    "specific": "each alone",
    "kept": "share of a placement's gain kept",
    "change": "difference: with − without",
    "one_hot": "one hot expert",
    "sorted": "power law, hot experts side by side",
    "power": "power law",
    "lognormal": "log-normal",
    "predecessor": "the predecessor",
    "none": "no loss",
    "switch": "Switch, per layer",
    "gini": "Gini",
    "cv2": "importance CV²",
    "entropy": "entropy",
    "max": "maximum",
    "stock": "stock (transformers)",
    "z": "z-loss",
    "bias": "loss-free bias",
    "start": "before training",
    "second": "the token's other expert",
    "before": "its expert a layer before",
    "trace_without": "without balance loss",
    "trace_with": "with balance loss",
    "reroute": "re-route",
    "drop_position": "drop by position",
    "biased": "frozen bias",
    "h4": "H4",
    "h6b": "H6b",
    "embedded": "Switch, the embedded pair",
    "switch_z": "Switch with the z-loss",
    "falling_bias": "loss-free bias with a falling step",
}
# what the number of a setting is
CAPPED = ("drop", "drop_position", "expanded_drop", "reroute", "optimal")
NUMBERS = {"biased": " × ", "least_loaded": " of "} | dict.fromkeys(CAPPED, " at γ ")
SETTING = re.compile(r"([a-z_]+) (\d+(?:\.\d+)?)")
MACHINE = re.compile(r"(?<![\w/])nvidia-([a-z]+\d+)([\w-]*?)-x(\d+)(?:-seed(\d+))?\b")
CARD = re.compile(r"g?[abh]\d{3}")


def style(name: Hashable) -> Style:
    """Colour, mark and line of a name: those of STYLES, else some of its own by the SHA-256 of its
    text, the same in every figure and on every machine.
    """
    digest = hashlib.sha256(str(name).encode()).digest()
    own = Style(*(kind[digest[i] % len(kind)] for i, kind in enumerate((COLOURS, MARKS, DASHES))))
    return STYLES.get(str(name), own)


def label(name: Hashable) -> str:
    """Words for a name: those of NAMES; a setting of a strategy, a machine and a card as people
    write them; else its own with spaces for underscores.
    """
    text = str(name)
    if (found := SETTING.fullmatch(text)) and found[1] in NUMBERS:
        return f"{label(found[1])}{NUMBERS[found[1]]}{found[2]}"
    if MACHINE.fullmatch(text):
        return machines(text)
    if CARD.fullmatch(text):
        return text.upper()
    return NAMES.get(text) or text.replace("_", " ")


def strategy(text: str) -> str:
    """The words of a strategy that is published as a text; any other text as it is."""
    known = (
        text in NUMBERS
        or SETTING.fullmatch(text)
        or (text.isidentifier() and "_" in text and text.islower())
    )
    return label(text) if known else text


def machines(text: str) -> str:
    """A text in which machines are called as people write them: "2 × H200, seed 17"."""
    return MACHINE.sub(_machine, text)


def _machine(found: re.Match) -> str:
    card, rest, number, seed = found.groups()
    words = f"{number} × {(card + rest).upper().replace('-', ' ')}"
    return f"{words}, seed {seed}" if seed else words
