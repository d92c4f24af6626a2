"""Whether a claim holds: a predicate over published values and their intervals."""

from __future__ import annotations

import ast
import itertools
from types import CodeType

from lib import provenance

# what a predicate may be made of: arithmetic and comparisons of names and numbers
SYNTAX = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.cmpop, ast.Name, ast.Load),
)


def judge(predicate: str, values: dict[str, dict]) -> bool | None:
    """Whether a predicate over values by their names holds: on every corner of their 95 %
    intervals, on none, or neither.

    None where it holds on some corners only, or where a value that it names is missing.  Values
    without an interval count as exact.  Refused: a name that was not published, and all but
    arithmetic and comparisons of names and numbers.
    """
    code, used = parsed(predicate)
    if unknown := [name for name in used if name not in values]:
        hint = provenance.nearest(unknown[0], list(values))
        raise ValueError(f"claim {predicate!r}: {unknown[0]}: no such value{hint}")
    edges = {name: values[name]["interval"] or [values[name]["value"]] for name in used}
    if any(None in known for known in edges.values()):
        return None
    corners = (
        dict(zip(edges, corner, strict=True)) for corner in itertools.product(*edges.values())
    )
    seen = {bool(eval(code, {"__builtins__": {}}, corner)) for corner in corners}
    return seen.pop() if len(seen) == 1 else None


def parsed(predicate: str) -> tuple[CodeType, list[str]]:
    """A predicate compiled, and the names in it."""
    tree = ast.parse(predicate.strip(), "<claim>", "eval")
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        if not (number or isinstance(node, SYNTAX)):
            raise ValueError(
                f"claim {predicate!r}: {ast.unparse(node) or type(node).__name__}: must be "
                "arithmetic or a comparison of names and numbers"
            )
    names = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return compile(tree, "<claim>", "eval"), list(dict.fromkeys(names))


def verdict(predicate: str, values: dict[str, dict]) -> str:
    """What `judge` says in words: "supported", "not supported", "undecided" where it holds on some
    corners only, and "not run" where a value that it names is missing.
    """
    holds = judge(predicate, values)
    if holds is not None:
        return "supported" if holds else "not supported"
    names = parsed(predicate)[1]
    return "not run" if any(values[name]["value"] is None for name in names) else "undecided"
