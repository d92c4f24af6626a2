"""Prose about this run: a sentence that names a number which the run has not drops out."""

from __future__ import annotations

import re
from collections.abc import Callable

from lib.paper.markup import ROLE

Has = Callable[[str, str], bool]  # (number of a chapter, name): whether the run has this value
ENDS = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\*\*))\s+(?=[\"“*_({\[A-Z$])")
ITEM = re.compile(r"^(?=- )", re.MULTILINE)
STILL = ("#", "|", "$$", "%")  # blocks that hold no sentences
BOXES = ("```", ":::")  # that stand or go whole


def kept(text: str, has: Has) -> str:
    """A Markdown text without the sentences whose numbers are missing; a list item or a paragraph
    of which nothing is left goes whole.

    Headings, tables and formulas stay, a box stands or goes whole.
    """
    if all(has(*found) for found in ROLE.findall(text)):
        return text
    blocks = (_block(block, has) for block in text.split("\n\n"))
    return "\n\n".join(block for block in blocks if block.strip())


def _block(block: str, has: Has) -> str:
    if block.startswith(BOXES):
        return block if all(has(*found) for found in ROLE.findall(block)) else ""
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
    left = [part for part in parts if all(has(*found) for found in ROLE.findall(part))]
    words = [part for part in left if not re.fullmatch(r"\*\*[^*]*\*\*\s*", part)]
    if not words or len(left) == len(parts):
        return text if len(left) == len(parts) else ""
    return lead + " ".join(left)
