"""The book's Sphinx extension: a page shows its *executed* notebook, and a number in prose leads to
where it was made.

- At `source-read` every chapter gets the outputs of its executed copy in the chosen run (config
  value `paper_run`), with a warning if anything it depends on changed since, and with this run's
  values beside the published ones.
- {val}`01.gini_with` prints a published value, linked to the cell that computed it, with all that
  is known of it as tip.
- {word}`06.delta more / less / as much` is the word that its sign calls for.
- The first place of each word of the glossary on a page explains it (`glossary`).
- {fig} 01.load (a directive) places a published figure on any page; {claims} and {compared} list
  all claims and values, {claimed} what the predecessor claimed.
- A role that is left as it was typed is a warning, which ends the build.
"""

from __future__ import annotations

import json
import lzma
import os
import re
from functools import partial
from pathlib import Path

import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from lib import provenance
from lib.paper import (
    architecture,
    asides,
    chapters,
    citing,
    claimed,
    compare,
    drawings,
    glossary,
    leads,
    markup,
    markup_prose,
    pages,
    plots_style,
    publish,
    roles,
    slides,
    stale,
    verdicts,
)

WORDS = re.compile(r">[^<>]+<")  # between tags
CODE = re.compile(r"<(pre|code)\b.*?</\1>", re.DOTALL)
RAW_ROLE = re.compile(r"\{(?:val|word|fig|cite|doc|ref)[a-z:]*\}`[^`]*`")
logger = logging.getLogger(__name__)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    path, run = Path(app.srcdir) / f"{docname}.ipynb", Path(app.config.paper_run)
    told = roles.told(run)
    if not path.is_file():
        source[0] = markup_prose.once(markup_prose.kept(source[0], compare.told(run)), told)
    if not path.is_file() or path.parent.name != "notebooks":
        return
    copy, record = pages.executed(path.stem, run), roles.records(run).get(path.stem[:2])
    if not copy.is_file():
        source[0] = pages.note(source[0], "This chapter was not computed in this run.")
        return
    fresh = pages.fresh(_pictured(copy, run, path.stem), chapters.cells(path.stem))
    source[0] = pages.page(fresh, compare.told(run), path.stem, partial(_output, told=told), told)
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


def _output(text: str, told: markup.Told) -> str:
    """The HTML of an output as its page shows it, machines by their words."""
    text = WORDS.sub(lambda found: plots_style.machines(found[0]), text)
    return verdicts.marked(asides.folded(leads.led(text, told)))


class Fig(SphinxDirective):
    """{fig} NN.name: a published figure with its caption and alternative text, linked to the cell
    that made it.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        number, _, name = self.arguments[0].partition(".")
        run = Path(self.env.config.paper_run)
        record = roles.records(run).get(number)
        if record is None or name not in record["figures"]:
            return [nodes.paragraph("", "", nodes.emphasis(text=roles.MISSING))]
        known = record["figures"][name]
        drawing = provenance.text(compare.folder(run, record["chapter"]) / known["file"])
        text = leads.led(markup.figure(name, drawing, known), roles.told(run))
        return [nodes.raw("", text, format="html")]


class Claims(SphinxDirective):
    """{claims}: every claim of the run with the values that decide it; {claims} totals: how many
    hold.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        run, up = Path(self.env.config.paper_run), "../" * self.env.docname.count("/")
        if self.arguments:
            told = verdicts.totals(roles.records(run))
            return [nodes.paragraph(text=told, classes=["paper-totals"])]
        text = verdicts.page(
            roles.records(run),
            roles.records(chapters.PUBLISHED),
            lambda record, name: roles.value_html(
                record, name, f"{up}notebooks/{record['chapter']}.html"
            ),
        )
        return [nodes.raw("", text, format="html")]


class Claimed(SphinxDirective):
    """{claimed}: what the predecessor claimed, and what this run, or the published one, says."""

    def run(self) -> list[nodes.Node]:
        own = compare.records(Path(self.env.config.paper_run))
        record = (compare.records(chapters.PUBLISHED) | own)["04"]
        return _table(claimed.table(record), "what the predecessor claimed")


class Compared(SphinxDirective):
    """{compared}: values that differ between this run and the published one."""

    def run(self) -> list[nodes.Node]:
        run = Path(self.env.config.paper_run)
        frame = compare.compare(roles.records(chapters.PUBLISHED), roles.records(run))
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


class Citing(SphinxDirective):
    """{citing}: authors, licence, repository and BibTeX."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", citing.page(), format="html")]


class Rooms(SphinxDirective):
    """{rooms}: the rooms of `lib` with their imports."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", architecture.drawing(architecture.arrows()), format="html")]


class Drawing(SphinxDirective):
    """{drawing} router: a drawing of an idea; those of the book are numbered as `drawings` lists
    them.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            return [nodes.raw("", drawings.figure(self.arguments[0]), format="html")]
        except ValueError as error:
            raise self.error(str(error)) from None


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


def _pictured(copy: Path, run: Path, chapter: str) -> str:
    """The text of an executed notebook with its pictures inside."""
    record = roles.records(run).get(chapter[:2])
    figures = record["figures"] if record else {}
    folder = compare.folder(run, chapter)
    return publish.pictures(provenance.text(copy), folder, figures, inside=True)


def _explained(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Explain the words of the glossary where each first stands on a page."""
    if docname == glossary.PAGE:
        return
    places = app.env.domains["std"].objects
    home = app.builder.get_relative_uri(docname, glossary.PAGE)
    glossary.explain(doctree, lambda word: f"{home}#{places['term', word][1]}")


def _scripts(app: Sphinx, error: Exception | None) -> None:
    """Unpack the vendored scripts, which are a fifth as large in the repository."""
    for packed in sorted((Path(app.srcdir) / "book" / "scripts").glob("*.xz")):
        if error is None:
            target = Path(app.outdir) / "_static" / packed.stem
            target.write_bytes(lzma.decompress(packed.read_bytes()))


def _tables(app: Sphinx, error: Exception | None) -> None:
    """Put the data of figures and tables, and the executed notebooks, beside the pages that link
    them.
    """
    run, home = Path(app.config.paper_run), Path(app.outdir) / "notebooks"
    for name in chapters.names() if error is None else ():
        if (copy := pages.executed(name, run)).is_file():
            (home / f"{name}.ipynb").write_text(_pictured(copy, run, name))
    for record in compare.records(run).values() if error is None else ():
        folder = compare.folder(run, record["chapter"]) / "figures"
        target = home / record["chapter"] / "figures"
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
    app.add_role("val", roles.Val())
    app.add_role("word", roles.Word())
    app.add_directive("fig", Fig)
    app.add_directive("claims", Claims)
    app.add_directive("claimed", Claimed)
    app.add_directive("compared", Compared)
    app.add_directive("listed", Listed)
    app.add_directive("rooms", Rooms)
    app.add_directive("citing", Citing)
    app.add_directive("drawing", Drawing)
    app.connect("source-read", _read)
    app.connect("doctree-resolved", _explained)
    app.connect("html-page-context", _without_thebe, priority=999)
    app.connect("html-page-context", _plain_citations)
    app.connect("html-page-context", _no_role_is_left)
    app.connect("build-finished", _scripts)
    app.connect("build-finished", _tables)
    app.connect("build-finished", _slides)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
