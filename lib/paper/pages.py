"""A chapter's page in the book: its executed notebook, made ready to be read."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lib.paper import chapters, compare, markup_prose, markup_tables, rules

PARAMETERS = {"parameters", "injected-parameters"}  # tags of papermill's cells


def executed(chapter: str, run: Path) -> Path:
    """The executed copy of a chapter in a run; of one that failed, what papermill left."""
    places = (run / f"{chapter}.ipynb", run / chapter[:2] / f"{chapter}.ipynb.xz")
    return next((place for place in places if place.is_file()), run / "logs" / f"{chapter}.ipynb")


def fresh(copy: str, cells: list[dict]) -> str:
    """An executed notebook with the prose of its source, which may have changed since; one whose
    code changed, or whose cells have no ids, is left as it was computed.
    """
    notebook = json.loads(copy)
    code = {cell.get("id"): cell for cell in notebook["cells"] if cell["cell_type"] == "code"}
    given = [c for c in code.values() if "injected-parameters" in c["metadata"].get("tags", [])]
    wanted = [cell.get("id") for cell in cells if cell["cell_type"] == "code"]
    if wanted != [key for key, cell in code.items() if cell not in given]:
        return copy
    notebook["cells"] = []
    for cell in cells:
        notebook["cells"].append(code.get(cell.get("id"), cell))
        notebook["cells"] += given if "parameters" in cell["metadata"].get("tags", []) else []
    return json.dumps(notebook)


def page(
    source: str,
    has: markup_prose.Has,
    name: str = "",
    led: Callable[[str], str] = str,
    told: markup_prose.Told | None = None,
) -> str:
    """The text of an executed notebook as the book shows it: papermill's own cells hidden, progress
    bars left out.

    All code is folded.  The two parameter cells become one folded table, and below it stands a link
    to the executed notebook, where its `name` is told.  A failed notebook keeps its traceback.
    Before each code cell stands an anchor.  has: the numbers that there are, without which
    sentences drop out.  led: what the HTML of an output goes through.  told: the
    values as text, by which a span of equal ends is one number.
    """
    notebook = json.loads(source)
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = markup_prose.kept("".join(cell["source"]), has)
            cell["source"] = markup_prose.once(text, told) if told else text
    given = [cell for cell in notebook["cells"] if _tags(cell) & PARAMETERS]
    if given:
        place = notebook["cells"].index(given[0])
        notebook["cells"] = [cell for cell in notebook["cells"] if cell not in given]
        notebook["cells"].insert(place, _markdown(parameters(given) + _download(name)))
    notebook["cells"] = [part for cell in notebook["cells"] for part in (*_anchor(cell), cell)]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [
                _readable(out, led)
                for out in cell["outputs"]
                if out.get("name") != "stderr" and not _hidden(out)
            ]
            metadata = cell.setdefault("metadata", {})
            metadata["tags"] = [*metadata.get("tags", []), "hide-input"]
    return json.dumps(notebook)


def parameters(given: list[dict]) -> str:
    """The parameter cells of an executed notebook, its defaults and what was injected, as a folded
    table: name, value of this run, default, meaning; without the folder that a run writes to.
    """
    defaults, *injected = ("".join(cell["source"]) for cell in given)
    plain, words = rules.literals(defaults), rules.comments(defaults)
    here = plain | rules.literals("\n".join(injected))
    rows = [
        (name, *(json.dumps(value, ensure_ascii=False) for value in pair), words[name])
        for name, pair in ((name, (here[name], plain[name])) for name in plain)
        if name != "run_dir"
    ]
    frame = pd.DataFrame(rows, columns=["parameter", "this run", "default", "meaning"])
    table = compare.to_html(frame, "parameters")
    return (
        f'<details class="paper-given"><summary>Parameters of this run</summary>{table}</details>'
    )


def _download(name: str) -> str:
    """A link to the executed notebook, which lies beside its page."""
    link = f'<a href="{html.escape(name)}.ipynb" download>Download the executed notebook</a>'
    return f'<p class="paper-given">{link}</p>' if name else ""


def _tags(cell: dict) -> set[str]:
    return set(cell.get("metadata", {}).get("tags", []))


def _hidden(output: dict) -> bool:
    """Progress bars, and the prose with its numbers, which stands on the page itself."""
    sentences = output.get("metadata", {}).get("paper") == "sentences"
    return sentences or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def _readable(output: dict, led: Callable[[str], str]) -> dict:
    """An output whose tables and captions are as people read them."""
    if text := output.get("data", {}).get("text/html"):
        output["data"]["text/html"] = led(markup_tables.told("".join(text)))
    return output


def _markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def _anchor(cell: dict) -> list[dict]:
    count = cell.get("execution_count")
    return [_markdown(f'<div id="cell-{count}" class="paper-anchor"></div>')] if count else []


def note(source: str, text: str, kind: str = "warning") -> str:
    """A notebook with a warning below its title, or another kind of box below its first words: the
    question comes before what is said of the page.
    """
    notebook = json.loads(source)
    first = notebook["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n")
    box = f":::{{{kind}}}\n{text}\n:::\n"
    parts = (title, "\n", box, rest) if kind == "warning" else (title, rest, "\n", box)
    first["source"] = "\n".join(parts)
    return json.dumps(notebook)


def beside(source: str, record: dict) -> str:
    """A notebook followed by its values beside the published ones, folded."""
    other = compare.records(chapters.PUBLISHED).get(record["chapter"][:2])
    if other is None:
        return source
    one, two = (compare.table({record["chapter"][:2]: part}) for part in (record, other))
    both = one.join(two, lsuffix="_a", rsuffix="_b").reset_index()
    frame = pd.DataFrame(
        {
            "value": both.name,
            "this run": both.text_a.fillna("none"),
            "published run": both.text_b.fillna("none"),
            "unit": both.unit_a,
            "kind": both.kind_a,
        }
    )
    facts = other["provenance"]
    origin = facts["run"]["parameters_file"] or "by hand"
    text = f"This run beside the published one ({facts['hardware']}, {origin})"
    body = compare.to_html(frame, "this run beside the published one")
    notebook = json.loads(source)
    notebook["cells"].append(
        _markdown(
            f'<details class="paper-beside"><summary>{html.escape(text)}</summary>{body}</details>'
        )
    )
    return json.dumps(notebook)


def confirmed(record: dict, later: dict) -> str:
    """What a page says whose values a later library was seen to reproduce."""
    then, now = record["provenance"]["commit"][:12], later["commit"][:12]
    parameters = later.get("at", "its defaults")
    return (
        f"Computed at commit `{then}`. The library was changed since; at commit `{now}` its run at "
        f"{parameters} reproduced all {later['values']} values."
    )
