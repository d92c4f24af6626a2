"""The claims of a run as a page tells them: how many hold, then each with what decides it."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable

from lib.paper import chapters, markup, markup_tables

CLAIM = re.compile(r'<p class="paper-claim">(?=<strong>([^<:]+):)')
VERDICTS = ("supported", "not supported", "undecided", "not run")
SIGNS = {"<=": "≤", ">=": "≥", "==": "=", "!=": "≠", "*": "×", "-": "−"}
PART = re.compile(r"<=|>=|==|!=|[A-Za-z_]\w*|[-*<>/+()]|[\d.]+(?:e-?\d+)?")
Value = Callable[[dict, str], str]  # (record of a chapter, name of a value) → its HTML


def decided(record: dict, predicate: str, value: Value) -> str:
    """A predicate with each name replaced by its value, and signs as people write them; where all
    values are told in per cent, so is what they are compared with.
    """
    parts = PART.findall(predicate)
    own = [record["values"][part] for part in parts if part in record["values"]]
    percent = bool(own) and all(str(known.get("fmt", "")).endswith("%") for known in own)

    def told(place: int, part: str) -> str:
        if part in record["values"]:
            return value(record, part)
        factor = {"*", "/"} & {*parts[max(place - 1, 0) : place + 2]}
        if percent and not factor and part[0].isdigit() and float(part):
            return f"{100 * float(part):.3g}%"
        return html.escape(SIGNS.get(part) or markup_tables.powers(part))

    text = " ".join(told(*placed) for placed in enumerate(parts))
    return text.replace("( ", "(").replace(" )", ")")


def totals(run: dict[str, dict]) -> str:
    """How many claims there are, and how many of each verdict."""
    found = Counter(claim["verdict"] for own in run.values() for claim in own["claims"].values())
    parts = [f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict]]
    return f"{sum(found.values())} claims: {', '.join(parts) or 'none was computed'}."


def title(chapter: str) -> str:
    """The title of a chapter: the first line of its notebook."""
    first = "".join(chapters.cells(chapter)[0]["source"]).splitlines()[0]
    return first.lstrip("# ")


def page(run: dict[str, dict], other: dict[str, dict], value: Value) -> str:
    """All claims as HTML, by chapter, which is linked by its title; `other`: the records of the
    published run, whose verdict is told where it is another one.
    """
    parts = []
    for number, record in run.items():
        if not record["claims"]:
            continue
        link, words = f"../notebooks/{record['chapter']}.html", title(record["chapter"])
        known = other.get(number, {}).get("claims", {})
        items = "".join(
            _claim(record, claim, known.get(name, {}).get("verdict"), value)
            for name, claim in record["claims"].items()
        )
        parts.append(f'<h3><a href="{html.escape(link)}">{html.escape(words)}</a></h3>')
        parts.append(f'<ul class="paper-claims">{items}</ul>')
    return "".join(parts)


def marked(text: str) -> str:
    """The HTML of an output whose claim has the colour of its verdict."""
    return CLAIM.sub(lambda found: f'<p class="paper-claim {_named(found[1])}">', text)


def _named(verdict: str) -> str:
    return f"paper-verdict-{verdict.lower().replace(' ', '-')}"


def _claim(record: dict, claim: dict, published: str | None, value: Value) -> str:
    verdict = claim["verdict"]
    differs = published is not None and published != verdict
    because = "" if verdict == "not run" else decided(record, claim["predicate"], value)
    because = f"asked: {because}" if verdict in ("not supported", "undecided") else because
    return (
        f'<li class="{_named(verdict)}">'
        f"<strong>{verdict.capitalize()}:</strong> {markup.inline(claim['text'])} "
        + (f'<span class="paper-because">{because}</span>' if because else "")
        + (f" <em>The published run: {published}.</em>" if differs else "")
        + "</li>"
    )
