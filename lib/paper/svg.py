"""A matplotlib figure as a drawing that stands in a page: its colours follow the page's theme.

What is black takes the colour of the text around it, what is white that of the ground, and the grid
the style sheet's `--paper-grid`, so that one drawing serves a light and a dark page, and paper.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which takes the command line a second to import
    from matplotlib.figure import Figure

FRAME = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
GROUND = re.compile(r'(<g id="patch_\d+">\s*<path d="[^"]*"[^>]*style="fill: )#ffffff')
IDS = re.compile(r'(\bid="|href="#|url\(#)')
HASHED = re.compile(r'(\bid="|href="#|url\(#)(\w*?[0-9a-f]{10})(?=["\)])')  # by every digit drawn
LONG = re.compile(r"-?\d+\.\d{3,}")
THEME = {
    "#000000": "currentColor",
    "#444444": "var(--paper-dark, #444444)",
    "#ffffff": "var(--paper-ground, #ffffff)",
    "#e5e5e5": "var(--paper-grid, #e5e5e5)",
}

# too dark for a dark page, where the style sheet has lighter ones under these names
DEEP = {
    "#882255": "plum",
    "#332288": "indigo",
    "#414487": "indigo",
    "#8b1a1a": "maroon",
    "#1b4f72": "navy",
    "#6a3d9a": "violet",
}


def drawn(fig: Figure, name: str) -> str:
    """The figure as one <svg> of the width it is given; its ids begin with `name`, which must be no
    other figure's of the page.
    """
    text = io.StringIO()
    fig.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    body = FRAME.sub("", text.getvalue())
    body = GROUND.sub(r"\1none", body[body.index("<svg") :])
    for colour, themed in THEME.items():
        body = body.replace(colour, themed)
    seen: dict[str, str] = {}
    body = HASHED.sub(lambda found: found[1] + seen.setdefault(found[2], f"h{len(seen)}"), body)
    body = IDS.sub(lambda found: f"{found[1]}{html.escape(name)}-", body)
    _, _, rest = body.partition(">")
    width, height = 72 * fig.get_size_inches()  # in points, which are the drawing's units
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" '
        'style="fill: currentColor; stroke-linejoin: round; stroke-linecap: butt">'
    )
    return root + re.sub(r"\s+", " ", LONG.sub(_short, rest)).replace("> <", "><").strip()


def _short(number: re.Match) -> str:
    """A coordinate to a hundredth of a point; what is as small as a scale to four digits."""
    value = float(number[0])
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4g}"


def told(drawing: str, alt: str) -> str:
    """The drawing as an image of a page, with its alternative text, deep colours as the theme has
    them.
    """
    for colour, name in DEEP.items():
        drawing = drawing.replace(colour, f"var(--paper-{name}, {colour})")
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)
