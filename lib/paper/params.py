"""Parameters of a notebook: literals in its `parameters` cell, checked before anything is computed
by the rules of `ranges` and those that the notebook adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from lib import provenance
from lib.paper import chapters
from lib.paper.ranges import RANGES, Rule


class ParameterError(ValueError):
    """One line per bad parameter; a notebook shows these lines instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ParameterError: {line}" for line in str(self).splitlines()]


def rules_of(notebook: str, own: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rule of every parameter that a notebook declares: that of `RANGES`, else the notebook's
    `own`.

    Refused: a parameter without a rule, and an own rule of no parameter or of one that has its rule
    in `RANGES`.
    """
    names = list(chapters.defaults(notebook))
    for name in names:
        if name not in RANGES and name not in own:
            hint = provenance.nearest(name, list(RANGES))
            raise ValueError(f"{notebook}: {name}: must have a rule in lib/paper/ranges.py{hint}")
    for name in own:
        if name in RANGES or name not in names:
            why = "has its rule in lib/paper/ranges.py" if name in RANGES else "is no parameter"
            raise ValueError(f"{notebook}: a rule of {name}: {name} {why}")
    return {name: own[name] if name in own else RANGES[name] for name in names}


def check(notebook: str, given: Mapping[str, object], **own: Rule) -> SimpleNamespace:
    """The parameters of a notebook, taken from `given` (its globals) and checked; all bad ones are
    named.
    """
    found = rules_of(notebook, own)
    problems = [
        f"{notebook}: {name} = {given[name]!r}: {words}"
        for name, (holds, words) in found.items()
        if not holds(given[name])
    ]
    if problems:
        raise ParameterError("\n".join(problems))
    return SimpleNamespace(**{name: given[name] for name in found})
