"""The book's Sphinx extension: a page shows its *executed* notebook, and a number in prose leads to
where it was made.

- At `source-read` every chapter gets the outputs of its executed copy in the chosen run (config
  value `paper_run`), with a warning if anything it depends on changed since, and with this run's
  values beside the published ones.
- {val}`01.gini_with` prints a published value, linked to the cell that computed it, with all that
  is known of it as tip.
- {fig} 01.load (a directive) places a published figure on any page; {claims} and {compared} list
  all claims and values.
- A role that is left as it was typed is a warning, which ends the build.
"""

from __future__ import annotations

import html
import json
import lzma
import os
import re
from functools import cache
from pathlib import Path

import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from lib import provenance
from lib.paper import architecture, chapters, compare, markup, pages, prose, publish, slides, stale

MISSING = "(not available in this run)"
CODE = re.compile(r"<(pre|code)\b.*?</\1>", re.DOTALL)
RAW_ROLE = re.compile(r"\{(?:val|fig|cite|doc|ref)[a-z:]*\}`[^`]*`")
logger = logging.getLogger(__name__)


@cache
def _records(run: Path) -> dict[str, dict]:
    """What a run published, read once in the process that builds its book."""
    return compare.records(run)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    path, run = Path(app.srcdir) / f"{docname}.ipynb", Path(app.config.paper_run)
    if not path.is_file():
        source[0] = prose.kept(source[0], compare.told(run))
    if not path.is_file() or path.parent.name != "notebooks":
        return
    copy, record = pages.executed(path.stem, run), _records(run).get(path.stem[:2])
    if not copy.is_file():
        source[0] = pages.note(source[0], "This chapter was not computed in this run.")
        return
    figures = record["figures"] if record else {}
    folder = compare.folder(run, path.stem)
    text = publish.pictures(provenance.text(copy), folder, figures, inside=True)
    source[0] = pages.page(pages.fresh(text, chapters.cells(path.stem)), compare.told(run))
    if record is None:
        source[0] = pages.note(
            source[0], "This chapter failed in this run; what it had computed until then is shown."
        )
        return
    if changed := stale.since(run, record):
        names = ", ".join(f"`{name}`" for name in changed)
        source[0] = pages.note(
            source[0], f"This page is stale: it was computed before a change of {names}."
        )
    elif (later := stale.confirmed(run, path.stem)) and later["sources"] != record["provenance"][
        "sources"
    ]:
        source[0] = pages.note(source[0], pages.confirmed(record, later), "note")
    if run != chapters.PUBLISHED:
        source[0] = pages.beside(source[0], record)


class Val(SphinxRole):
    """{val}`NN.name`: a published value, linked to the cell that made it, with everything known of
    it in the tooltip.
    """

    def run(self) -> tuple[list[nodes.Node], list]:
        number, _, name = self.text.partition(".")
        run = Path(self.env.config.paper_run)
        published = _records(chapters.PUBLISHED).get(number)
        record = _records(run).get(number)
        elsewhere = record is None and published is not None  # not computed here, told in grey
        record = published if elsewhere else record
        if record is None or name not in record["values"]:
            return [nodes.emphasis(text=MISSING)], []
        up = "../" * self.env.docname.count("/")
        other = None if run == chapters.PUBLISHED or elsewhere else published
        text = value_html(record, name, f"{up}notebooks/{record['chapter']}.html", other)
        if elsewhere:
            text = f'<span class="paper-elsewhere" title="of the published run">{text}</span>'
        return [nodes.raw("", text, format="html")], []


def value_html(record: dict, name: str, link: str, other: dict | None = None) -> str:
    """One value as HTML: text with unit and interval, linked to the cell that made it, the kind as
    class, details as title.

    `other` is the published record of the chapter, whose value then stands among the details.
    """
    value, facts = record["values"][name], record["provenance"]
    text = markup.value(value)
    details = [
        f"{record['chapter']}: {name} = {value['value']} {value['unit']}".strip(),
        value["kind"],
    ]
    if value["interval"]:
        low, high = value["interval"]
        details.append(f"95 % interval {low:.6g} to {high:.6g}")
    if other and name in other["values"]:
        details.append(f"published run: {other['values'][name]['text']}")
    made = facts["run"]
    given = made["parameters_file"] or "defaults and command line"
    details.append(f"run: {made['name'] or 'by hand'}; parameters: {given}")
    details += [f"commit {facts['commit'][:12]}{facts['commit'][40:]}", facts["hardware"]]
    title = html.escape("\n".join(details)).replace("\n", "&#10;")
    target = html.escape(link) + (f"#cell-{value['cell']}" if value["cell"] else "")
    attributes = f'class="paper-value paper-{value["kind"]}" href="{target}" title="{title}"'
    return f"<a {attributes}>{html.escape(text)}</a>"


class Fig(SphinxDirective):
    """{fig} NN.name: a published figure with its caption and alternative text, linked to the cell
    that made it.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        number, _, name = self.arguments[0].partition(".")
        run = Path(self.env.config.paper_run)
        record = _records(run).get(number)
        if record is None or name not in record["figures"]:
            return [nodes.paragraph("", "", nodes.emphasis(text=MISSING))]
        known = record["figures"][name]
        drawing = provenance.text(compare.folder(run, record["chapter"]) / known["file"])
        return [nodes.raw("", markup.figure(name, drawing, known), format="html")]


class Claims(SphinxDirective):
    """{claims}: every claim of the run, its predicate and verdict, beside the published run's."""

    def run(self) -> list[nodes.Node]:
        run = Path(self.env.config.paper_run)
        frame = compare.claims(_records(run), _records(chapters.PUBLISHED))
        return _table(
            frame.rename(columns={"here": "this run", "published": "published run"}), "claims"
        )


class Compared(SphinxDirective):
    """{compared}: values that differ between this run and the published one."""

    def run(self) -> list[nodes.Node]:
        run = Path(self.env.config.paper_run)
        frame = compare.compare(_records(chapters.PUBLISHED), _records(run))
        if frame.empty:
            return [nodes.paragraph(text="No value differs.")]
        return _table(
            frame.rename(columns={"a": "published run", "b": "this run"}), "values that differ"
        )


class Listed(SphinxDirective):
    """{listed} faults/kills.csv: a table below `data`, or the facts of a .json, as it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = chapters.ROOT / "data" / self.arguments[0]
        if not path.is_file():
            return [nodes.paragraph(text="Not made yet: make test-long makes this table.")]
        self.env.note_dependency(str(path))
        if path.suffix == ".json":
            frame = pd.DataFrame([json.loads(path.read_text())])
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return _table(frame.rename(columns=lambda name: name.replace("_", " ")), path.stem)


class Rooms(SphinxDirective):
    """{rooms}: the rooms of `lib` with their imports."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", architecture.drawing(architecture.arrows()), format="html")]


def _table(frame: pd.DataFrame, label: str) -> list[nodes.Node]:
    return [nodes.raw("", compare.to_html(frame, label), format="html")]


def _without_thebe(
    _app: Sphinx, _page: str, _template: str, context: dict, _doctree: object
) -> None:
    """Leave out the scripts of thebe (live code from a remote server), which Jupyter Book always
    adds, twice.
    """
    scripts = context.get("script_files", [])
    context["script_files"] = [
        s for s in scripts if "thebe" not in f"{s} {getattr(s, 'attributes', '')}".lower()
    ]


def _no_role_is_left(
    _app: Sphinx, page: str, _template: str, context: dict, _doctree: object
) -> None:
    """Warn, which ends the build, of a role outside of code that no one has put a value for."""
    text = CODE.sub("", context.get("body", ""))
    for role in RAW_ROLE.findall(text):
        logger.warning("%s: %s: a role that was not resolved", page, role)


def _plain_citations(
    _app: Sphinx, _page: str, _template: str, context: dict, _doctree: object
) -> None:
    """Take the roles from the list of references, to which docutils gives no list items."""
    body = context.get("body", "").replace(' role="doc-biblioentry"', "")
    context["body"] = body.replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )


def _scripts(app: Sphinx, error: Exception | None) -> None:
    """Unpack the vendored scripts, which are a fifth as large in the repository."""
    for packed in sorted((Path(app.srcdir) / "book" / "scripts").glob("*.xz")):
        if error is None:
            target = Path(app.outdir) / "_static" / packed.stem
            target.write_bytes(lzma.decompress(packed.read_bytes()))


def _tables(app: Sphinx, error: Exception | None) -> None:
    """Put the data of figures and tables beside the pages that link it."""
    run = Path(app.config.paper_run)
    for record in compare.records(run).values() if error is None else ():
        folder = compare.folder(run, record["chapter"]) / "figures"
        target = Path(app.outdir) / "notebooks" / record["chapter"] / "figures"
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.csv*")):
            (target / file.name.removesuffix(".xz")).write_text(provenance.text(file))


def _slides(app: Sphinx, error: Exception | None) -> None:
    """Put the slides beside the pages."""
    if error is None:
        text = slides.deck(Path(app.config.paper_run))
        (Path(app.outdir) / "slides.html").write_text(text)


def setup(app: Sphinx) -> dict:
    app.add_config_value("paper_run", os.environ.get("PAPER_RUN", "_build/runs/default"), "")
    app.add_role("val", Val())
    app.add_directive("fig", Fig)
    app.add_directive("claims", Claims)
    app.add_directive("compared", Compared)
    app.add_directive("listed", Listed)
    app.add_directive("rooms", Rooms)
    app.connect("source-read", _read)
    app.connect("html-page-context", _without_thebe, priority=999)
    app.connect("html-page-context", _plain_citations)
    app.connect("html-page-context", _no_role_is_left)
    app.connect("build-finished", _scripts)
    app.connect("build-finished", _tables)
    app.connect("build-finished", _slides)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
