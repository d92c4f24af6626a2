"""The glossary, kept in one place, and its words on every page: the first of each explains itself.

The source is the `glossary` of `book/notation.md`. On each page but that one the first place where
a word of it stands in running text leads there, with its meaning as tip.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from docutils import nodes

from lib.paper import chapters

PAGE = "book/notation"
BLOCK = re.compile(r"^```\{glossary\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"((?:^\S.*\n)+)((?:^ +\S.*\n)+)", re.MULTILINE)
SYMBOLS = {r"\rho": "ρ", r"\beta": "β"}  # as formulas write them
LEFT = (nodes.reference, nodes.literal, nodes.title, nodes.literal_block, nodes.term, nodes.raw)


@cache
def terms() -> dict[str, str]:
    """Every word of the glossary with its meaning, in the order of the source; words on lines above
    one meaning share it.  None where the page is not there.

    Refused: a word that stands twice.
    """
    found: dict[str, str] = {}
    place = chapters.ROOT / f"{PAGE}.md"
    for block in BLOCK.findall(place.read_text() if place.is_file() else ""):
        for words, meaning in ENTRY.findall(block):
            for word in words.splitlines():
                if word in found:
                    raise ValueError(f"{PAGE}: {word}: must stand once in the glossary")
                found[word] = " ".join(meaning.split())
    return found


def explain(page: nodes.document, target: Callable[[str], str]) -> None:
    """Make the first place of each word in a page's running text a link with its meaning as tip.

    target: of a word the address of its entry, as seen from the page.
    """
    left = dict(terms())
    for node in list(page.findall(lambda n: isinstance(n, nodes.Text | nodes.math))):
        if not left or _stands_apart(node):
            continue
        parts = _split(node, left)
        if parts and node.parent is not None:
            node.parent.replace(node, [_linked(part, target) for part in parts])


def _stands_apart(node: nodes.Node) -> bool:
    """Whether a text is none that is read as running text: code, headings, links, formulas."""
    if isinstance(node.parent, nodes.math):
        return True
    while node.parent is not None:
        if isinstance(node, LEFT):
            return True
        node = node.parent
    return False


def _split(node: nodes.Node, left: dict[str, str]) -> list[tuple[nodes.Node, str]]:
    """A text in parts, each with the word that it is or "", the words taken out of `left`; empty
    where none stands in it.
    """
    if isinstance(node, nodes.math):
        word = SYMBOLS.get(node.astext().strip(), "")
        return [(node.deepcopy(), word)] if _taken(word, left) else []
    words = sorted(left, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])")
    parts: list[tuple[nodes.Node, str]] = []
    end, text = 0, node.astext()
    for found in pattern.finditer(text):
        if _taken(found[1], left):
            parts += [(nodes.Text(text[end : found.start()]), ""), (nodes.Text(found[1]), found[1])]
            end = found.end()
    return [*parts, (nodes.Text(text[end:]), "")] if parts else []


def _taken(word: str, left: dict[str, str]) -> bool:
    """Whether a word is left; it and all that share its meaning are then taken out."""
    meaning = left.get(word)
    for other in [name for name, own in left.items() if own == meaning]:
        del left[other]
    return meaning is not None


def _linked(part: tuple[nodes.Node, str], target: Callable[[str], str]) -> nodes.Node:
    node, word = part
    if not word:
        return node
    about = f"{word}: {terms()[word]}"
    link = dict(refuri=target(word), reftitle=about, classes=["paper-term"], internal=True)
    return nodes.reference("", "", node, **link)
