"""How much of each chapter's code is the study, and how much is its publication.

    python tests/share_of_science.py

prints per chapter the code characters of statements that call lib.{model, routing, balance,
network, measure, engines, commands} or stats, of those that call lib.paper, and the share of the
former.

A statement counts once, by its outermost call of either: `t = studies.f(…)` is science,
`chapter.figure("x", plots.f(t), t)` publication; of a compound one its head and each statement
within count apart.  One that calls neither does not count, nor do imports and the parameters.
Characters are those of a statement without blanks; what stands within quotes is prose.
"""

from __future__ import annotations

import ast
import copy
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SCIENCE = {"model", "routing", "balance", "network", "measure", "engines", "commands", "stats"}
SIDES = {room: "science" for room in SCIENCE} | {"paper": "paper"}
INNER = ("body", "orelse", "finalbody", "handlers")  # statements within a compound one


def code(notebook: dict) -> str:
    """The code cells of a notebook without its parameters."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    own = [cell for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
    return "\n".join("".join(cell["source"]) for cell in own)


def sides(tree: ast.AST) -> dict[str, str]:
    """The names that stand for a part of lib, and whether that is "science" or "paper"."""
    found = {"chapter": "paper"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            for alias in node.names:
                parts = [*str(node.module).split("."), alias.name]
                if parts[1] in SIDES:
                    found[alias.asname or alias.name] = SIDES[parts[1]]
    return found


def statements(nodes: list) -> Iterator[ast.AST]:
    """All simple statements, and what stands in the heads of compound ones."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        inner = [part for name in INNER for part in getattr(node, name, [])]
        if not inner:
            yield node
            continue
        yield from statements(inner)
        for name, value in ast.iter_fields(node):
            if name not in INNER:
                heads = value if isinstance(value, list) else [value]
                yield from (head for head in heads if isinstance(head, ast.AST))


def root(call: ast.Call) -> str:
    """The name that a call, or a chain of calls, begins with."""
    node: ast.AST = call
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def side(statement: ast.AST, known: dict[str, str]) -> str:
    """Whether the outermost call of lib in a statement is "science" or "paper"; "" without one."""
    waiting = deque([statement])
    while waiting:
        node = waiting.popleft()
        if isinstance(node, ast.Call) and root(node) in known:
            return known[root(node)]
        waiting.extend(ast.iter_child_nodes(node))
    return ""


class Silent(ast.NodeTransformer):
    """Takes the words out of texts."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


def characters(statement: ast.AST) -> int:
    """Code characters of a statement: without blanks, line breaks and what stands in quotes."""
    silent = ast.fix_missing_locations(Silent().visit(copy.deepcopy(statement)))
    return len("".join(ast.unparse(silent).split()))


def counted(source: str) -> dict[str, int]:
    """Code characters of "science" and of "paper" in a source."""
    tree, found = ast.parse(source), {"science": 0, "paper": 0}
    known = sides(tree)
    for statement in statements(tree.body):
        if own := side(statement, known):
            found[own] += characters(statement)
    return found


def share(source: str) -> float:
    """The share of science in a source; 0 where there is neither."""
    found = counted(source)
    return found["science"] / max(sum(found.values()), 1)


if __name__ == "__main__":
    print(f"{'chapter':20} {'science':>8} {'paper':>8} {'share':>6}")
    for path in NOTEBOOKS:
        source = code(json.loads(path.read_text()))
        science, paper = counted(source).values()
        print(f"{path.stem:20} {science:8,} {paper:8,} {share(source):6.0%}")
