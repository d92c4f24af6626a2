"""Five slides from a run's values, as one page that needs no network."""

from __future__ import annotations

import html
import lzma
from pathlib import Path

from nbconvert.filters.markdown_mistune import markdown2html_mistune

from lib.paper import chapters, compare, markup, markup_prose

HOME = chapters.ROOT / "book" / "slides"
STYLE = """
body{background:#fff;color:#222}
.reveal{font:30px/1.4 system-ui,sans-serif}
.reveal .slides{text-align:left}
.reveal h1,.reveal h2{margin:0 0 .6em;line-height:1.2}
.reveal h1{font-size:1.5em;color:#555}
.reveal .anchor-link{display:none}
.reveal li{margin:.35em 0}
.reveal code{font-size:.85em}
@media (prefers-color-scheme:dark){body{background:#191919;color:#eee}.reveal h1{color:#aaa}}
"""
START = "Reveal.initialize({hash:true,slideNumber:true,width:1100,height:700,center:false});"


def told(run: Path) -> markup.Told:
    """The values of a run as text; of a chapter that it has not, the published ones."""
    own, published = compare.records(run), compare.records(chapters.PUBLISHED)

    def text(number: str, name: str) -> str:
        known = (own.get(number) or published.get(number) or {}).get("values", {})
        return markup.value(known[name]) if name in known else "(not available)"

    return text


def deck(run: Path) -> str:
    """The slides as HTML with reveal.js inside; in the source `---` stands between slides.  What
    names a number that the run has not is left out.
    """
    kept = markup_prose.kept((HOME / "deck.md").read_text(), compare.told(run))
    source = markup.resolved(kept, told(run))
    parts = [markdown2html_mistune(part) for part in source.split("\n---\n")]
    script, look = (
        lzma.decompress((HOME / f"reveal.{end}.xz").read_bytes()).decode() for end in ("js", "css")
    )
    title = html.escape(source.splitlines()[0].lstrip("# "))
    slides = "".join(f"<section>{part}</section>" for part in parts)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{look}{STYLE}</style></head><body>"
        f"<div class='reveal'><div class='slides'>{slides}</div></div>"
        f"<script>{script}</script><script>{START}</script></body></html>\n"
    )
