"""Parameters of a notebook: literals in its `parameters` cell, checked before anything is computed.

Every number has an upper bound, the one of its rule or else one that stands here: what is larger
by a slip of the finger ends in one line, not in a machine without memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace

MOST = 2**20  # of counts and sizes; where products of them need memory or time a rule says less
LARGEST = 1e15  # of quantities
LONGEST = 1000  # items of a list
Rule = tuple[Callable[[object], bool], str]  # what a value must satisfy, and how to say it


class ParameterError(ValueError):
    """One line per bad parameter; a notebook shows these lines instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ParameterError: {line}" for line in str(self).splitlines()]


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
    """A list, neither empty nor of more than `LONGEST` items, each of which satisfies `rule`."""
    holds, words = rule
    return (
        lambda v: isinstance(v, list) and 0 < len(v) <= LONGEST and all(map(holds, v)),
        f"must be a list; each item {words}",
    )


def _within(value: float, least: float | None, most: float) -> bool:
    return (least is None or value >= least) and value <= most


def _limits(least: float | None, most: float) -> str:
    top = f"{most:g}" if isinstance(most, float) else f"{most}"
    return f" ≤ {top}" if least is None else f" from {least} to {top}"


def check(notebook: str, given: Mapping[str, object], **rules: Rule) -> SimpleNamespace:
    """The parameters named by `rules`, taken from `given` (a notebook's globals) and checked; all
    bad ones are named.
    """
    problems = [
        f"{notebook}: {name} = {given[name]!r}: {words}"
        for name, (holds, words) in rules.items()
        if not holds(given[name])
    ]
    if problems:
        raise ParameterError("\n".join(problems))
    return SimpleNamespace(**{name: given[name] for name in rules})
