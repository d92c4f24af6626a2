"""The book on paper: its pages, one after the other, in one file that Chromium prints."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lib import provenance
from lib.paper import chapters, plain

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--no-pdf-header-footer", "--generate-pdf-document-outline"),
    *("--virtual-time-budget=60000", "--run-all-compositor-stages-before-draw"),
)
PATIENCE_S = 600
ARTICLE = re.compile(r'<article class="bd-article">(.*)</article>', re.DOTALL)
HEAD = re.compile(r"<link [^>]*stylesheet[^>]*>|<script[^>]*tex-svg[^>]*></script>")
MATH = re.compile(r"<script>window\.MathJax[^<]*</script>")
ID = re.compile(r'( id="|="url\(#|: url\(#|xlink:href="#)([^")]+)')
LINK = re.compile(r'(<(?:a|img)\b[^>]*? (?:href|src)=")([^"]*)(")')


def toc() -> list[str]:
    """The pages of the book in their order, as its table of contents names them."""
    known: Any = plain.read(chapters.ROOT / "book/_toc.yml")
    parts = known.get("parts", [known])
    return [known["root"], *(page["file"] for part in parts for page in part.get("chapters", []))]


def joined(html: Path, pages: list[str]) -> str:
    """The pages of a built book as one: each begins on a new sheet, and links lead within it."""
    places = {page: f"page-{place}" for place, page in enumerate(pages)}
    texts = {page: (html / f"{page}.html").read_text() for page in pages}
    parts = [
        f'<article class="bd-article" id="{places[page]}">{_body(text, page, places)}</article>'
        for page, text in texts.items()
    ]
    heads: dict[str, None] = {}
    for page, text in texts.items():
        for part in (*MATH.findall(text), *HEAD.findall(text)):
            heads[part.replace("../" * page.count("/"), "")] = None
    return (
        '<!doctype html><html lang="en" data-theme="light" data-mode="light">'
        f'<head><meta charset="utf-8"><title>{_title(texts[pages[0]])}</title>{"".join(heads)}'
        "<style>article + article { break-before: page; }</style></head>"
        f'<body class="paper-print"><main class="bd-content">{"".join(parts)}</main></body></html>'
    )


def _title(text: str) -> str:
    found = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    return found[1].strip() if found else ""


def _body(text: str, page: str, places: dict[str, str]) -> str:
    """The article of a page, its ids and links as they are among all pages."""
    found = ARTICLE.search(text)
    if found is None:
        raise ValueError(f"pdf: {page}.html: must be a page of a built book")
    own = places[page]

    def link(part: re.Match) -> str:
        target, hash_, anchor = part[2].partition("#")
        if re.match(r"[a-z]+:", target):
            return part[0]
        name = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        other = own if not target else places.get(name.removesuffix(".html"))
        if other is None:
            return f"{part[1]}{name}{hash_}{anchor}{part[3]}"
        return f"{part[1]}#{other}{'-' * bool(anchor)}{anchor}{part[3]}"

    body = ID.sub(lambda part: f"{part[1]}{own}-{part[2]}", found[1])
    return LINK.sub(link, body)


def printed(html: Path, pages: list[str], target: Path) -> int:
    """Print pages of a built book to a PDF; the number of its sheets.

    Refused: a machine without Chromium, and one whose Chromium prints nothing.
    """
    chromium = next((path for name in NAMES if (path := shutil.which(name))), None)
    if chromium is None:
        raise ValueError(f"pdf: chromium: must be installed (one of {', '.join(NAMES)})")
    source = html / "print.html"  # beside the styles that it names
    with provenance.writing(source) as part:
        part.write_text(joined(html, pages))
    try:
        with provenance.writing(target) as part:
            command = [chromium, *FLAGS, f"--print-to-pdf={part.resolve()}", source.as_uri()]
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=PATIENCE_S
            )
            if done.returncode or not part.is_file() or not sheets(part):
                said = done.stderr.strip().splitlines() or ["it said nothing"]
                raise RuntimeError(f"pdf: {said[-1]} (exit {done.returncode})")
    finally:
        source.unlink()
    return sheets(target)


def sheets(path: Path) -> int:
    """The number of pages of a PDF that Chromium printed."""
    return len(re.findall(rb"/Type /Page\b", path.read_bytes()))
