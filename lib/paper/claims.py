"""Whether a claim holds: a predicate over published values and their intervals."""

from __future__ import annotations

import itertools

from lib import provenance


def judge(predicate: str, values: dict[str, dict]) -> bool | None:
    """Whether a predicate over values by their names holds: on every corner of their 95 %
    intervals, on none, or neither.

    None where it holds on some corners only, or where a value that it names is missing.  Values
    without an interval count as exact.  Refused: a name that was not published.
    """
    code = compile(predicate, "<claim>", "eval")
    if unknown := [name for name in code.co_names if name not in values]:
        hint = provenance.nearest(unknown[0], list(values))
        raise ValueError(f"claim {predicate!r}: {unknown[0]}: no such value{hint}")
    edges = {name: values[name]["interval"] or [values[name]["value"]] for name in code.co_names}
    if any(None in known for known in edges.values()):
        return None
    corners = (
        dict(zip(edges, corner, strict=True)) for corner in itertools.product(*edges.values())
    )
    seen = {bool(eval(code, {"__builtins__": {}}, corner)) for corner in corners}
    return seen.pop() if len(seen) == 1 else None


def verdict(predicate: str, values: dict[str, dict]) -> str:
    """What `judge` says in words: "supported", "not supported", "undecided" where it holds on some
    corners only, and "not run" where a value that it names is missing.
    """
    holds = judge(predicate, values)
    if holds is not None:
        return "supported" if holds else "not supported"
    names = compile(predicate, "<claim>", "eval").co_names
    return "not run" if any(values[name]["value"] is None for name in names) else "undecided"
