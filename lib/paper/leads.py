"""The first words of a figure's caption on its page: what it shows, with the numbers of the run.

They stand in book/leads.yml, as prose does: a changed word recomputes nothing.
"""

from __future__ import annotations

import re
from functools import cache

import yaml

from lib import provenance
from lib.paper import markup, markup_prose, markup_tables

FILE = provenance.repository() / "book" / "leads.yml"
CAPTION = re.compile(
    r'(<figcaption>(?:<a class="paper-number" href="#fig-([^"]+)">Figure (\d+)\.[^<]*</a>))'
)


@cache
def written() -> dict[str, list[str]]:
    """By chapter and figure ("01.load") the sentences of the file, the best first."""
    known = yaml.safe_load(FILE.read_text())
    return {name: [one] if isinstance(one, str) else one for name, one in known.items()}


def led(text: str, told: markup.Told) -> str:
    """A page's HTML whose figures' captions begin with the first of their sentences of which the
    run has every number.
    """

    def begun(found: re.Match) -> str:
        for sentence in written().get(f"{int(found[3]):02d}.{found[2]}", []):
            if all(told(*name) != markup.MISSING for name in markup_prose.asked(sentence)):
                words = markup_tables.powers(markup.inline(markup.resolved(sentence.strip(), told)))
                return f"{found[1]} <strong>{words}</strong>"
        return found[0]

    return CAPTION.sub(begun, text)
