"""Drawings of ideas, which show no result: SVG in the colours of the page's theme, as wide as a
narrow screen, so that their words can be read there.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDE = 400  # SVG units; words are 13 of them high
LOADS = ((2, 1), (5, 2), (1, 1), (0, 0))  # tokens of each expert, by device
RECEIVED = tuple(sum(pair) for pair in LOADS)
BUSIEST = max(range(len(RECEIVED)), key=RECEIVED.__getitem__)
MEAN = sum(RECEIVED) / len(RECEIVED)
STACKS = (5, 2, 1, 0)  # tokens that choose each expert, before anything is done about it
CAPACITY = 3
BLUE, RED, GREEN = "var(--paper-blue)", "var(--paper-red)", "var(--paper-green)"
GREY = "var(--paper-grid)"


@dataclass(frozen=True)
class Drawing:
    """A drawing: its height, its parts as SVG, caption and alternative text."""

    height: int
    parts: Callable[[], list[str]]
    caption: str
    alt: str


def rect(x: float, y: float, width: float, height: float, fill: str = "none", more="") -> str:
    """A rectangle with the outline of the text's colour."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" '
        f'fill="{fill}" stroke="currentColor" stroke-width="0.8" {more}/>'
    )


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """One line of words."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {more}>{html.escape(words)}</text>'


def path(points: str, colour: str = "currentColor", width: float = 1, more: str = "") -> str:
    """A line."""
    return f'<path d="{points}" fill="none" stroke="{colour}" stroke-width="{width:g}" {more}/>'


def router() -> list[str]:
    """Tokens, the router, experts on devices, and a line per choice."""
    parts = [text(4, 16, "tokens", "start"), text(4, 63, "two experts each", "start")]
    for token in range(sum(RECEIVED) // 2):
        x = 140 + 36 * token
        parts += [f'<circle cx="{x}" cy="12" r="7" fill="{BLUE}"/>', path(f"M{x} 20V46", GREY, 2)]
    parts += [rect(120, 46, 220, 24, "var(--paper-surface)"), text(230, 63, "router")]
    for device, pair in enumerate(LOADS):
        left, hot = 4 + 100 * device, device == BUSIEST
        parts.append(rect(left, 148, 92, 62, more='stroke-dasharray="4 3"'))
        for place, load in enumerate(pair):
            x = left + 25 + 42 * place
            start = 155 + 50 * device
            bend = f"M{start} 70C{start} 112 {x} 104 {x} 154"
            parts.append(path(bend, RED if hot else BLUE, 1.6 * load) if load else "")
            parts.append(rect(x - 18, 155, 36, 26, "var(--paper-surface)"))
            parts.append(text(x, 173, str(load)))
        parts.append(text(left + 46, 202, f"device {device + 1}"))
        width = 92 * RECEIVED[device] / max(RECEIVED)
        parts.append(rect(left, 220, width, 12, RED if hot else BLUE, 'stroke-opacity="0"'))
        parts.append(text(left, 249, f"{RECEIVED[device]} received", "start"))
    ratio = max(RECEIVED) / MEAN
    words = f"mean {MEAN:g}; the busiest device has ρ = {ratio:.1f} times that"
    return [*parts, text(4, 274, words, "start", 'font-weight="600"')]


def straggler() -> list[str]:
    """What each device does over time: receive, compute, wait, send back."""
    left, first, top = 74, 22, 10
    wire, arithmetic = 14, 17  # units of time of one token
    ends = [left + first + (wire + arithmetic) * load for load in RECEIVED]
    last = max(ends)
    back = last + wire * 3
    parts = []
    for device, load in enumerate(RECEIVED):
        y, at = top + 40 * device, left + first + wire * load
        parts.append(text(0, y + 18, f"device {device + 1}", "start"))
        parts.append(rect(left, y, at - left, 26, BLUE))
        parts.append(rect(at, y, ends[device] - at, 26, RED) if load else "")
        if device != BUSIEST:
            parts.append(rect(ends[device], y, last - ends[device], 26, GREY))
        parts.append(rect(last, y, back - last, 26, BLUE))
    wait = (ends[-1] + last) / 2
    parts.append(text(wait, top + 138, f"waits for device {BUSIEST + 1}"))
    even = left + first + (wire + arithmetic) * MEAN + wire * 3
    foot = top + 40 * len(RECEIVED)
    row = top + 40 * (len(RECEIVED) - 1)  # whose words no line strikes through
    for x, words, anchor, y in (
        (back, "done", "end", foot + 14),
        (even, "done, were all even", "middle", foot + 14),
    ):
        line = f"M{x:g} {top - 6}V{row}M{x:g} {row + 26}V{foot}"
        parts.append(path(line, more='stroke-dasharray="3 3"'))
        parts.append(text(x, y, words, anchor, 'font-weight="600"'))
    return [*parts, *keys(foot + 40, ((BLUE, "wire"), (RED, "experts"), (GREY, "waiting")))]


def keys(y: float, entries: Sequence[tuple[str, str]], step: float = 96) -> list[str]:
    """A legend in one row."""
    parts = []
    for place, (colour, words) in enumerate(entries):
        x = 4 + step * place
        parts += [rect(x, y - 11, 14, 12, colour), text(x + 20, y, words, "start")]
    return parts


def capacity() -> list[str]:
    """The same choices without a capacity, with those above it dropped, and re-routed."""
    over = sum(max(0, load - CAPACITY) for load in STACKS)
    kept = [min(load, CAPACITY) for load in STACKS]
    moved, left = list(kept), over
    while left:  # to the expert with the most room, one by one
        place = min(range(len(moved)), key=lambda i: (moved[i], i))
        moved[place], left = moved[place] + 1, left - 1
    floor, side = 150, 24
    parts = []
    for panel, words in enumerate(("as chosen", "drop", "re-route")):
        at = 4 + 136 * panel
        parts.append(text(at + 60, 14, words, more='font-weight="600"'))
        for expert, load in enumerate(STACKS):
            x, count = at + 30 * expert, max(load, moved[expert]) if panel == 2 else load
            for level in range(count):
                above, new = level >= CAPACITY, panel == 2 and level >= kept[expert]
                fill = "none" if above and panel else RED if above else GREEN if new else BLUE
                dash = 'stroke-dasharray="3 2"' if fill == "none" else ""
                parts.append(rect(x, floor - (level + 1) * side, side, side - 3, fill, dash))
            parts.append(text(x + side / 2, floor + 15, str(expert + 1)))
        line = floor - CAPACITY * side - 2
        parts.append(path(f"M{at - 2} {line}H{at + 118}", more='stroke-dasharray="5 3"'))
    parts.append(text(128, floor - CAPACITY * side - 7, "capacity", "end"))
    parts.append(text(4, floor + 35, "experts, and the tokens that each serves", "start"))
    entries = ((BLUE, "served"), (RED, "too many"), (GREEN, "moved"), ("none", "not served"))
    return [*parts, *keys(floor + 60, entries)]


RATIO = f"{max(RECEIVED) / MEAN:.1f}"
DRAWINGS = {
    "router": Drawing(
        282,
        router,
        "A router sends each token to a few experts. Experts lie on devices, and what a device "
        "receives is the sum over its own: here one device has far more than its share. "
        "A drawing, no measurement.",
        f"Tokens enter a router; lines lead to eight experts on {len(LOADS)} devices. Received: "
        f"{', '.join(map(str, RECEIVED))}; the busiest has {RATIO} times the mean.",
    ),
    "straggler": Drawing(
        218,
        straggler,
        "The busiest device sets the pace: all others wait for its results before the layer goes "
        "on. What the even case would save is the cost of imbalance. A drawing, no measurement.",
        f"A bar of time per device: it receives, computes, sends back. Device {BUSIEST + 1} takes "
        "longest, the others wait for it; a line to the left marks when all were done if even.",
    ),
    "capacity": Drawing(
        222,
        capacity,
        "A capacity bounds what an expert serves. Tokens above it are dropped, and lose that "
        "expert, or re-routed to one that has room, and get another. A drawing, no measurement.",
        f"Three pictures of the same tokens on {len(STACKS)} experts, a line at the capacity: as "
        "chosen one stack is above it; dropped, the part above is gone; re-routed, it lies on "
        "the experts with room.",
    ),
}


def figure(name: str) -> str:
    """A drawing as a figure of a page, with its number: its place in `DRAWINGS`.

    Refused: a name that there is not.
    """
    if name not in DRAWINGS:
        raise ValueError(f"drawing: {name}: must be one of {', '.join(DRAWINGS)}")
    known = DRAWINGS[name]
    anchor = f"drawing-{name}"
    image = (
        f'<svg class="paper-drawing" role="img" aria-label="{html.escape(known.alt)}" '
        f'viewBox="0 0 {WIDE} {known.height}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(known.parts())}</svg>"
    )
    label = f'<a class="paper-number" href="#{anchor}">Drawing {list(DRAWINGS).index(name) + 1}</a>'
    return (
        f'<figure class="paper-figure" id="{anchor}">{image}'
        f"<figcaption>{label} {html.escape(known.caption)}</figcaption></figure>"
    )
