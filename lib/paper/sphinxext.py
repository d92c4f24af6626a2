"""The book's Sphinx extension: a page shows its *executed* notebook, and a number in prose leads to where it was made.

- At `source-read` every chapter gets the text of its executed copy in the chosen run (config value `paper_run`).
- {val}`01.gini_with` prints a published value with its interval, linked to its chapter, all details in its tooltip.
- {fig}`04.levels` (a directive) places a published figure on any page.
"""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

MISSING = "(not available in this run)"


def chapters(run: Path) -> dict[str, dict]:
    """The published contents of each chapter of a run, by its two digits; those that did not finish are absent."""
    return {path.parent.name[:2]: json.loads(path.read_text()) for path in sorted(run.glob("[0-9][0-9]_*/values.json"))}


def executed(notebook: Path, run: Path) -> Path:
    """The executed copy of a notebook in a run; of one that failed, what papermill left."""
    whole = run / notebook.name
    return whole if whole.is_file() else run / "logs" / notebook.name


def page(source: str) -> str:
    """The text of an executed notebook as the book shows it: papermill's own cells hidden, progress bars left out.

    Of the two parameter cells the default one stays, with its comments; the injected one is shown after it only if it
    changes something a reader chose.  A failed notebook keeps its traceback.
    """
    notebook = json.loads(source)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        tags = cell.setdefault("metadata", {}).get("tags", [])
        if "injected-parameters" in tags and _only_run_dir(cell):
            cell["metadata"]["tags"] = [*tags, "remove-cell"]
        if cell["cell_type"] == "code":
            cell["outputs"] = [out for out in cell["outputs"] if out.get("name") != "stderr" and not _widget(out)]
            if "parameters" not in tags and "injected-parameters" not in tags:
                cell["metadata"]["tags"] = [*tags, "hide-input"]
    return json.dumps(notebook)


def _widget(output: dict) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def note(source: str, text: str) -> str:
    """A notebook with a warning below its title."""
    notebook = json.loads(source)
    first = notebook["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n")
    first["source"] = f"{title}\n\n:::{{warning}}\n{text}\n:::\n{rest}"
    return json.dumps(notebook)


def _only_run_dir(cell: dict) -> bool:
    lines = [line for line in "".join(cell["source"]).splitlines() if line and not line.startswith("#")]
    return all(line.startswith("run_dir") for line in lines)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    path = Path(app.srcdir) / f"{docname}.ipynb"
    if not path.is_file() or path.parent.name != "notebooks":
        return
    run = Path(app.config.paper_run)
    copy = executed(path, run)
    if copy.is_file():
        source[0] = page(copy.read_text())
        app.env.note_dependency(str(copy))
    else:
        source[0] = note(source[0], "This chapter was not computed in this run.")


class Val(SphinxRole):
    """{val}`NN.name`: a published value, linked to its chapter, with everything known of it in the tooltip."""

    def run(self) -> tuple[list[nodes.Node], list]:
        number, _, name = self.text.partition(".")
        run = Path(self.env.config.paper_run)
        for path in run.glob(f"{number}_*/values.json"):
            self.env.note_dependency(str(path))
        chapter = chapters(run).get(number)
        if chapter is None or name not in chapter["values"]:  # a chapter failed, or another model has other values
            return [nodes.emphasis(text=MISSING)], []
        return [nodes.raw("", value_html(chapter, name, self._link(chapter["chapter"])), format="html")], []

    def _link(self, chapter: str) -> str:
        up = "../" * self.env.docname.count("/")
        return f"{up}notebooks/{chapter}.html"


def value_html(chapter: dict, name: str, link: str) -> str:
    """One value as HTML: text with unit, a link to where it was computed, the kind as a class, details as title."""
    value, facts = chapter["values"][name], chapter["provenance"]
    text = " ".join(part for part in (value["text"], value["unit"]) if part)
    details = [f"{chapter['chapter']}: {name} = {value['value']} {value['unit']}".strip(), value["kind"]]
    if value["interval"]:
        low, high = value["interval"]
        details.append(f"95 % interval {low:.6g} to {high:.6g}")
    details += [f"commit {facts['commit'][:12]}", facts["hardware"], facts["date"]]
    title = html.escape("; ".join(details))
    return f'<a class="paper-value paper-{value["kind"]}" href="{html.escape(link)}" title="{title}">{html.escape(text)}</a>'


class Fig(SphinxDirective):
    """{fig}`NN.name`: a published figure with its caption, alternative text and a link to its data."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        number, _, name = self.arguments[0].partition(".")
        run = Path(self.env.config.paper_run)
        chapter = chapters(run).get(number)
        if chapter is None or name not in chapter["figures"]:
            return [nodes.paragraph("", "", nodes.emphasis(text=MISSING))]
        known = chapter["figures"][name]
        file = run / chapter["chapter"] / known["file"]
        self.env.note_dependency(str(file))
        image = nodes.image(
            uri=os.path.relpath(file, Path(self.env.srcdir) / Path(self.env.docname).parent), alt=known["alt"]
        )
        caption = nodes.caption("", "", nodes.Text(known["caption"].replace("*", "")))
        return [nodes.figure("", image, caption, classes=["paper-figure"])]


def _without_thebe(_app: Sphinx, _page: str, _template: str, context: dict, _doctree: object) -> None:
    """Leave out the scripts of thebe (live code from a remote server), which Jupyter Book always adds, twice."""
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s} {getattr(s, 'attributes', '')}".lower()]


def setup(app: Sphinx) -> dict:
    app.add_config_value("paper_run", os.environ.get("PAPER_RUN", "_build/runs/default"), "")
    app.add_role("val", Val())
    app.add_directive("fig", Fig)
    app.connect("source-read", _read)
    app.connect("html-page-context", _without_thebe, priority=999)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
