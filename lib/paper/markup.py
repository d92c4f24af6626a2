"""Values, figures, tables and provenance as HTML, and texts in which roles stand for values."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML

from lib.paper import columns, markup_prose, markup_tables, plots_style, svg
from lib.paper.markup_prose import ROLE, WORD, Told

OTHER_ROLE = re.compile(r"\{[a-z]+\}`([^`]+)`")
HEADING = re.compile(r"^#{2,6} +(.+)$", re.MULTILINE)
BOX = re.compile(r"```\{\w+\}([^\n]*)\n(?::\w+:[^\n]*\n)*(.*)\n```", re.DOTALL)
NUMBER = re.compile(r"[−+≤≥<>-]?\d[\d.,e−+-]*( ?[%×])?( \[.*\])?$")  # a cell that is a number
MISSING = "not available"  # how a value is told that is not there


def value(known: dict) -> str:
    """A published value as text, with its unit and interval, unless its ends read alike."""
    if known["value"] is None:
        return known["text"]
    limits = known["interval"] or []
    edges = list(dict.fromkeys(columns.show(edge, known["fmt"]) for edge in limits))
    interval = f"[{', '.join(edges)}]" if len(edges) > 1 else ""
    text = plots_style.machines(plots_style.strategy(known["text"]))
    return " ".join(part for part in (text, known["unit"], interval) if part)


def resolved(text: str, told: Told) -> str:
    """A text with the role of every value replaced by that value, of every word by that word."""
    text = markup_prose.once(text, told)
    text = WORD.sub(lambda found: markup_prose.word(told(found[1], found[2]), found[3]), text)
    return ROLE.sub(lambda found: told(found[1], found[2]), text)


def sentences(cells: list[dict], told: Told) -> str:
    """The paragraphs of a notebook's prose that state values, with their numbers, as Markdown, each
    below the last heading before it; without the sentences whose numbers are missing.
    """
    parts, head = [], ""
    for text in ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"):
        text = markup_prose.kept(text, lambda *name: told(*name) != MISSING)
        for block in HEADING.sub(r"\n\n\g<0>\n\n", text).split("\n\n"):
            block = BOX.sub(lambda box: f"*{box[1].strip() or 'Note'}.* {box[2]}", block.strip())
            if found := HEADING.fullmatch(block):
                head = found[1]
            elif ROLE.search(block):
                parts += [f"**{head}**"] if head else []
                parts.append(OTHER_ROLE.sub(r"[\1]", resolved(block, told)))
                head = ""
    return "\n\n".join(parts)


def inline(text: str) -> str:
    """Escaped text in which *words* between asterisks are emphasised."""
    parts = html.escape(text).split("*")
    return "".join(f"<em>{part}</em>" if i % 2 else part for i, part in enumerate(parts))


def figure(name: str, drawing: str, known: dict) -> str:
    """A figure: its drawing, caption, and below it its interactive form where there is one."""
    return (
        f'<figure class="paper-figure" id="fig-{html.escape(name)}">{image(drawing, known)}'
        f"<figcaption>{caption('Figure', f'fig-{name}', known)}</figcaption>{plot(known)}</figure>"
    )


def caption(what: str, anchor: str, known: dict) -> str:
    """What stands below a figure or table: its number, at which it can be cited, its words, and all
    its data.
    """
    parts = [
        f'<a class="paper-number" href="#{html.escape(anchor)}">{what} {known["number"]}</a>'
        if "number" in known
        else "",
        inline(known["caption"]),
        f'<a class="paper-data" href="{html.escape(known["link"])}" download>CSV</a>'
        if "link" in known
        else "",
    ]
    return " ".join(part for part in parts if part)


def image(drawing: str, known: dict) -> str:
    """The drawing of a figure, with its alternative text."""
    return svg.told(drawing, known["alt"])


def plot(known: dict) -> str:
    """The interactive form of a figure as data for the book's script; nothing where it has none."""
    if "interactive" not in known:
        return ""
    data = html.escape(json.dumps(known["interactive"]))
    return (
        '<details class="paper-explore"><summary>Explore</summary>'
        f'<div class="paper-plot" data-figure="{data}"></div></details>'
    )


def ask(constants: str, example: str) -> HTML:
    """The box "What about my model?": the constants (JSON) that the book's script computes with,
    and the example that stands where no script runs.
    """
    data = html.escape(constants)
    return HTML(
        f'<div class="paper-advice" id="my-model" data-known="{data}"><p>{html.escape(example)}</p>'
        "</div>"
    )


def scroll(label: str, body: str) -> str:
    """HTML that scrolls by itself where it is too wide."""
    return (
        f'<div class="paper-scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"{body}</div>"
    )


def table(name: str, shown: pd.DataFrame, known: dict) -> str:
    """A table of texts with its caption; columns of numbers at the right, long cells may wrap."""
    texts = shown.astype(str)
    wide = any(len(cell) > markup_tables.LONG for cell in texts.to_numpy().flat)
    right = [texts.iloc[:, i].map(_number).all() for i in range(texts.shape[1])]
    rows = [_row(texts.columns, right, "th"), *(_row(row, right) for row in texts.to_numpy())]
    body = (
        f'<table class="paper-table{" paper-wrap" * wide}"><thead>{rows[0]}</thead>'
        f"<tbody>{''.join(rows[1:])}</tbody></table>"
    )
    return (
        f'<div id="tab-{html.escape(name)}">{scroll(f"table {name}", body)}</div>'
        f'<p class="paper-caption">{caption("Table", f"tab-{name}", known)}</p>'
    )


def _row(cells: Iterable[str], right: list[bool], tag: str = "td") -> str:
    ends = [' class="paper-right"' if one else "" for one in right]
    parts = [f"<{tag}{end}>{html.escape(c)}</{tag}>" for c, end in zip(cells, ends, strict=True)]
    return f"<tr>{''.join(parts)}</tr>"


def _number(cell: str) -> bool:
    return cell == columns.NONE or bool(NUMBER.match(cell))


def provenance(facts: dict) -> str:
    """The provenance as a table, long parts folded; what a parameter names on disk stands among the
    data under the parameter's name.

    What differs between equal runs stands in rows of class paper-when.
    """
    files = "".join(
        f"<li><code>{html.escape(name)}</code> {sha[:12]}</li>"
        for name, sha in (facts.get("given", {}) | facts["files"]).items()
    )
    origin, given = facts["run"]["parameters_file"], facts["parameters"]
    rows = {
        "commit": f"<code>{html.escape(facts['commit'][:12] + facts['commit'][40:])}</code>",
        "run": html.escape(facts["run"]["name"] or "by hand")
        + (f", {html.escape(origin)}" if origin else ""),
        "hardware": html.escape(facts["hardware"]),
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "parameters": ", ".join(f"{k} = {html.escape(repr(v))}" for k, v in given.items()),
        "data (SHA-256)": f"<ul>{files}</ul>" if files else "none",
    }
    if facts.get("changed_data"):
        rows["data changed on purpose"] = html.escape(", ".join(facts["changed_data"]))
    when = {
        "computed": facts["date"],
        "time": f"{facts['seconds']:.0f} s",
        "peak memory": f"{facts['peak_memory_bytes'] / 2**30:.1f} GiB",
    }
    if "peak_gpu_bytes" in facts:
        when["peak memory of a GPU"] = f"{facts['peak_gpu_bytes'] / 2**30:.1f} GiB"
    body = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows.items())
    body += "".join(
        f'<tr class="paper-when"><th>{name}</th><td>{text}</td></tr>' for name, text in when.items()
    )
    table = f'<table class="paper-table paper-provenance">{body}</table>'
    return scroll("provenance", table)
