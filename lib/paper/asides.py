"""Tables for those who check: folded on their page until they are asked for.

They stand in book/asides.yml, by chapter and name ("05.worst"): what is folded recomputes nothing.
"""

from __future__ import annotations

import html
import re
from functools import cache

import yaml

from lib import provenance

FILE = provenance.repository() / "book" / "asides.yml"
TABLE = re.compile(
    r'<div id="tab-([^"]+)">.*<p class="paper-caption">'
    r'<a class="paper-number" [^>]*>(Table (\d+)\.\d+)</a>(.*?)</p>',
    re.DOTALL,
)
LINK = re.compile(r'<a class="paper-data".*?</a>', re.DOTALL)


@cache
def written() -> frozenset[str]:
    """The names in the file."""
    return frozenset(yaml.safe_load(FILE.read_text()))


def folded(text: str) -> str:
    """The HTML of an output; its table, if it is an aside, below a line that says what it holds."""
    found = TABLE.search(text)
    if not found or f"{int(found[3]):02d}.{found[1]}" not in written():
        return text
    words = html.unescape(re.sub(r"<[^>]+>", "", LINK.sub("", found[4]))).strip()
    line = f"<summary>{found[2]}: {html.escape(words)}</summary>"
    return f'<details class="paper-aside">{line}{text}</details>'
