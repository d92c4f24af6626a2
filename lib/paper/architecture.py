"""The rooms of `lib` and who imports whom, read from the source and drawn."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from lib.paper import chapters
from lib.provenance import repository

Arrows = Mapping[str, set[str]]
WIDE, HIGH, GAP, STEP = 116, 34, 22, 84  # of a box and of the spaces between, in SVG units


def room(name: str) -> str:
    """The room of a module, its first part below `lib`."""
    return name.split(".")[1]


def arrows(home: Path | None = None) -> dict[str, set[str]]:
    """By room (a folder or a single file below `lib`) the other rooms that it imports."""
    home = home or repository() / "lib"
    found: dict[str, set[str]] = {}
    for path in sorted(home.rglob("*.py")):
        own = path.relative_to(home).parts[0].removesuffix(".py")
        if not own.startswith("__"):
            found.setdefault(own, set()).update(map(room, chapters.modules(path.read_text())))
    return {name: targets & found.keys() - {name} for name, targets in found.items()}


def levels(known: Arrows) -> list[list[str]]:
    """Rooms from the lowest, which import nothing, upwards, each above all that it imports.

    Refused: a circle.
    """
    found: list[list[str]] = []
    left = dict(known)
    while left:
        free = sorted(name for name, targets in left.items() if not targets & left.keys())
        if not free:
            raise ValueError(f"architecture: a circle among {', '.join(sorted(left))}")
        found.append(free)
        for name in free:
            del left[name]
    return found


def direct(known: Arrows) -> dict[str, set[str]]:
    """Without arrows that lead where others already lead in steps."""

    def reach(name: str) -> set[str]:
        return set().union(*({own} | reach(own) for own in known[name]))

    return {
        name: {own for own in targets if not any(own in reach(x) for x in targets - {own})}
        for name, targets in known.items()
    }


def drawing(known: Arrows) -> str:
    """An SVG: a box per room, the highest on top, an arrow to what each imports itself."""
    rows = levels(known)[::-1]
    width = max(len(row) for row in rows) * (WIDE + GAP) + GAP
    place = {
        name: (
            (width - len(row) * (WIDE + GAP) + GAP) / 2 + i * (WIDE + GAP),
            GAP + number * STEP,
        )
        for number, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    steps = [(name, own) for name, to in direct(known).items() for own in sorted(to)]
    lines = [_arrow(place[name], place[own]) for name, own in steps]
    boxes = [_box(name, *at) for name, at in place.items()]
    words = "; ".join(
        f"{name} imports {', '.join(sorted(to)) or 'nothing'}" for name, to in sorted(known.items())
    )
    head = "<defs><marker id='to' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' "
    head += "markerHeight='8' orient='auto'><path d='M0 0L8 4L0 8z' fill='currentColor'/></marker>"
    return (
        f"<svg class='paper-rooms' viewBox='0 0 {width} {GAP + len(rows) * STEP}' role='img' "
        f"aria-label='{html.escape(words)}'>{head}</defs>{''.join(lines)}{''.join(boxes)}</svg>"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    ends = f"x1='{start[0] + WIDE / 2:g}' y1='{start[1] + HIGH:g}' "
    ends += f"x2='{end[0] + WIDE / 2:g}' y2='{end[1] - 2:g}'"
    return f"<line {ends} stroke='currentColor' stroke-opacity='.5' marker-end='url(#to)'/>"


def _box(name: str, x: float, y: float) -> str:
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{WIDE}' height='{HIGH}' rx='5'/>"
        f"<text x='{x + WIDE / 2:g}' y='{y + HIGH / 2 + 5:g}'>{html.escape(name)}</text>"
    )
