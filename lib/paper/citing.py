"""How the book is cited: authors, licence, repository and BibTeX, from `CITATION.cff`."""

from __future__ import annotations

import html

import yaml

from lib.paper import chapters


def known() -> dict:
    """What `CITATION.cff` says."""
    return yaml.safe_load((chapters.ROOT / "CITATION.cff").read_text())


def bibtex(facts: dict) -> str:
    """The entry of a BibTeX file."""
    names = " and ".join(f"{{{author['name']}}}" for author in facts["authors"])
    fields = {
        "title": f"{{{facts['title']}}}",
        "author": names,
        "year": str(facts["date-released"])[:4],
        "version": facts["version"],
        "url": facts.get("repository-code", ""),
    }
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join(["@software{who-does-the-work,", *lines, "}"])


def page() -> str:
    """Authors, version, licence and repository as a paragraph of HTML, BibTeX below it."""
    facts = known()
    names = ", ".join(author["name"] for author in facts["authors"])
    said = f"{names}, version {facts['version']} of {facts['date-released']}, licence "
    said = html.escape(f"{said}{facts['license']} (LICENSE in the repository). Repository: ")
    place = facts.get("repository-code", "")
    link = f'<a href="{html.escape(place)}">{html.escape(place)}</a>' if place else ""
    held = link or "the checkout from which this book was built"
    return f"<p>{said}{held}.</p><pre>{html.escape(bibtex(facts))}</pre>"
