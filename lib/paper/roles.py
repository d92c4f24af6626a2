"""Roles of the book's prose: a published value with all that is known of it, and the word that its
sign calls for.
"""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxRole

from lib.paper import (
    chapters,
    columns_about,
    compare,
    markup,
    markup_prose,
    markup_tables,
    plots_style,
)

MISSING = "(not available in this run)"
FILE = re.compile(r"(\S+/)+\S+|\S+\.[a-z]{2,}")  # what a word is that names a file


@cache
def records(run: Path) -> dict[str, dict]:
    """What a run published, read once in the process that builds its book."""
    return compare.records(run)


class Val(SphinxRole):
    """{val}`NN.name`: a published value, linked to the cell that made it, with everything known of
    it in the tooltip; what this run has not computed is told of the published one, in grey.
    """

    def run(self) -> tuple[list[nodes.Node], list]:
        number, _, name = self.text.partition(".")
        run = Path(self.env.config.paper_run)
        published = records(chapters.PUBLISHED).get(number)
        record = record_of(run, number)
        elsewhere = number not in records(run)
        if record is None or name not in record["values"]:
            return [nodes.emphasis(text=MISSING)], []
        up = "../" * self.env.docname.count("/")
        other = None if run == chapters.PUBLISHED or elsewhere else published
        text = value_html(record, name, f"{up}notebooks/{record['chapter']}.html", other)
        if elsewhere:
            text = f'<span class="paper-elsewhere" title="of the published run">{text}</span>'
        return [nodes.raw("", text, format="html")], []


class Word(SphinxRole):
    """{word}`NN.name more / less / as much`: the word that the sign of a value calls for."""

    def run(self) -> tuple[list[nodes.Node], list]:
        name, _, choices = self.text.partition(" ")
        number, _, name = name.partition(".")
        record = record_of(Path(self.env.config.paper_run), number)
        if record is None or name not in record["values"]:
            return [nodes.emphasis(text=MISSING)], []
        told = markup.value(record["values"][name])
        return [nodes.Text(markup_prose.word(told, choices))], []


def record_of(run: Path, number: str) -> dict | None:
    """What a run published of a chapter, of one that it has not computed what the published run
    did.
    """
    return records(run).get(number) or records(chapters.PUBLISHED).get(number)


def told(run: Path) -> markup.Told:
    """(number of a chapter, name) → the value of this run as text."""

    def text(number: str, name: str) -> str:
        value = records(run).get(number, {}).get("values", {}).get(name)
        return markup.value(value) if value else markup.MISSING

    return text


def value_html(record: dict, name: str, link: str, other: dict | None = None) -> str:
    """One value as HTML: text with unit and interval, linked to the cell that made it, the kind as
    class, details as title.

    `other` is the published record of the chapter, whose value then stands among the details.
    """
    value = record["values"][name]
    text = markup_tables.powers(markup.value(value))
    details = [*_what(record, name), *_whence(record, name)]
    if other and name in other["values"]:
        details.append(f"published run: {other['values'][name]['text']}")
    title = html.escape("\n".join(details)).replace("\n", "&#10;")
    target = html.escape(link) + (f"#cell-{value['cell']}" if value["cell"] else "")
    words = " paper-words" * isinstance(value["value"], str)  # which may break at the end of a line
    attributes = f'class="paper-value paper-{value["kind"]}{words}" href="{target}" title="{title}"'
    shown = html.escape(text)
    if isinstance(value["value"], str) and FILE.fullmatch(text):
        shown = f"<code>{shown}</code>"
    return f"<a {attributes}>{shown}</a>"


def _what(record: dict, name: str) -> list[str]:
    """What a value is: its meaning, number, kind, and how its interval was made."""
    value, number = record["values"][name], record["chapter"][:2]
    told = f"{columns_about.digits(value['value'])} {value['unit']}".strip()
    lines = [columns_about.meaning(name), f"{number}.{name} = {told}, {value['kind']}"]
    if value["interval"]:
        low, high = map(columns_about.digits, value["interval"])
        lines.append(f"{low} to {high}: {columns_about.interval(number, name) or '95 % interval'}")
    return lines


def _whence(record: dict, name: str) -> list[str]:
    """Where a value comes from: the machines that measured and computed it, its run and commit."""
    facts, made = record["provenance"], record["provenance"]["run"]
    here = facts["hardware"]
    there = columns_about.machine(record, name) or here
    if record["values"][name]["kind"] != "measured":
        lines = [f"computed on {here}"]
    elif there == here:
        lines = [f"measured and computed on {here}"]
    else:
        lines = [f"measured on {plots_style.machines(there)}", f"computed on {here}"]
    given = made["parameters_file"] or "defaults and command line"
    commit = f"{facts['commit'][:12]}{facts['commit'][40:]}"
    return [*lines, f"run: {made['name'] or 'by hand'}; parameters: {given}; commit {commit}"]
