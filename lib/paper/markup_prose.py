"""Prose about this run: roles that stand for its values, and for the word that the sign of one
calls for; a sentence that names a number which the run has not drops out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ROLE = re.compile(r"\{val\}`(\d\d)\.([^`]+)`")
WORD = re.compile(r"\{word\}`(\d\d)\.(\S+) ([^`]+)`")
# "<least> to <most>", but not what goes from one to the other
SPAN = re.compile(rf"(?<!from )({ROLE.pattern})\s+to\s+{ROLE.pattern}")
SIGNS = re.compile(r"^([^\[]*?)(?: \[(.+), (.+)\])?$")
Told = Callable[[str, str], str]  # (number of a chapter, name) → the value as text
Has = Callable[[str, str], bool]  # (number of a chapter, name): whether the run has this value
ENDS = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\*\*))\s+(?=[\"“*_({\[A-Z$])")
ITEM = re.compile(r"^(?=- )", re.MULTILINE)
STILL = ("#", "|", "$$", "%")  # blocks that hold no sentences
BOXES = ("```", ":::")  # that stand or go whole


def asked(text: str) -> list[tuple[str, str]]:
    """The values that the roles of a text name: (number of a chapter, name)."""
    return ROLE.findall(text) + [found[:2] for found in WORD.findall(text)]


def word(told: str, choices: str) -> str:
    """Of "more / less / as much" the word for a value as it is told: the first where it is above
    zero, the second where it is below, the third where its interval holds zero; without an
    interval its own sign decides.

    Refused: another number of words, a value that is no number.
    """
    words = [part.strip() for part in choices.split("/")]
    found = SIGNS.match(told)
    ends = [end for end in (found.groups()[1:] if found else ()) if end]
    signs = {_sign(text) for text in ends or [told]}
    if len(words) != 3:
        raise ValueError(f"word: {choices!r}: must be three words: above / below / neither")
    return words[0] if signs == {1} else words[1] if signs == {-1} else words[2]


def _sign(told: str) -> int:
    number = re.match(r"[+\-−]?[\d.,]+(e[+-]?\d+)?", told)
    if number is None:
        raise ValueError(f"word: {told!r}: must be a number")
    plain = float(number[0].replace("−", "-").replace(",", ""))
    return (plain > 0) - (plain < 0)


def kept(text: str, has: Has) -> str:
    """A Markdown text without the sentences whose numbers are missing; a list item or a paragraph
    of which nothing is left goes whole.

    Headings, tables and formulas stay, a box stands or goes whole.
    """
    if all(has(*found) for found in asked(text)):
        return text
    blocks = (_block(block, has) for block in text.split("\n\n"))
    return "\n\n".join(block for block in blocks if block.strip())


def once(text: str, told: Told) -> str:
    """A text in which a span from the least to the most is one number where both are told alike."""

    def span(found: re.Match) -> str:
        least, most = told(found[2], found[3]), told(found[4], found[5])
        return found[1] if least == most else found[0]

    return SPAN.sub(span, text)


def _block(block: str, has: Has) -> str:
    if block.startswith(BOXES):
        return block if all(has(*found) for found in asked(block)) else ""
    if block.startswith(STILL):
        return block
    if block.startswith("- "):
        items = (_sentences(item, has) for item in ITEM.split(block) if item)
        return "\n".join(item for item in items if item.strip(" -\n"))
    return _sentences(block, has)


def _sentences(text: str, has: Has) -> str:
    """The sentences whose numbers are there; what only introduces one (**Answer.**) goes with the
    last of them.
    """
    lead = "- " if text.startswith("- ") else ""
    parts = ENDS.split(text.removeprefix(lead))
    left = [part for part in parts if all(has(*found) for found in asked(part))]
    words = [part for part in left if not re.fullmatch(r"\*\*[^*]*\*\*\s*", part)]
    if not words or len(left) == len(parts):
        return text if len(left) == len(parts) else ""
    return lead + " ".join(left)
