"""What a notebook publishes: values, figures, tables, claims, and where they come from.

A `Chapter` collects them and writes ``<run_dir>/<chapter>/values.json``; the book, and every
comparison of runs, reads that one file.  Nothing appears under its final name before it is whole.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, display

from lib import provenance
from lib.paper import workflow

KINDS = ("measured", "simulated", "synthetic")
NONE = "–"  # in a table, where there is no number
TOLERANCE = {
    "measured": 0.02,
    "simulated": 0.02,
    "synthetic": 1e-6,
}  # relative, of the same computation elsewhere
DPI = 160
LINE = "\u2028"  # stands for a line break while pandas, which would spell it out, writes a table


def repository() -> Path:
    """The root of the repository."""
    return provenance.repository()


def find(run_dir: str, chapter: str, pattern: str) -> list[Path]:
    """The files of another chapter that match `pattern`: this run's, else the published run's.

    Where neither has any: one line that says how to make them.
    """
    own = Path(run_dir) / chapter
    for folder in (own, repository() / "data" / "reference" / chapter[:2]):
        if found := sorted(folder.glob(pattern)):
            return found
    raise FileNotFoundError(
        f"values.find: {own / pattern}: no such file, nor a published one: "
        f"run notebooks/{chapter}.ipynb with the same run_dir"
    )


def show(value: float | int | str, fmt: str) -> str:
    """A value in its format; texts and missing values as they are."""
    if isinstance(value, str):
        return value
    return "not available" if isinstance(value, float) and math.isnan(value) else format(value, fmt)


def judge(predicate: str, values: dict[str, dict]) -> bool | None:
    """Whether a predicate over values by their names holds: on every corner of their 95 %
    intervals, on none, or neither.

    None (undecided) where it holds on some corners only, or where a value that it names is missing.
    Values without an interval count as exact.  Refused: a name that was not published.
    """
    code = compile(predicate, "<claim>", "eval")
    if unknown := [name for name in code.co_names if name not in values]:
        raise ValueError(
            f"claim {predicate!r}: {unknown[0]}: no such value{provenance.nearest(unknown[0], list(values))}"
        )
    edges = {name: values[name]["interval"] or [values[name]["value"]] for name in code.co_names}
    if any(None in known for known in edges.values()):
        return None
    corners = (
        dict(zip(edges, corner, strict=True)) for corner in itertools.product(*edges.values())
    )
    seen = {bool(eval(code, {"__builtins__": {}}, corner)) for corner in corners}
    return seen.pop() if len(seen) == 1 else None


class Chapter:
    """The results of one notebook.  Created after its parameters were checked; nothing is written
    before that.
    """

    def __init__(self, name: str, parameters: SimpleNamespace) -> None:
        self.name, self.parameters = name, parameters
        self.folder = Path(parameters.run_dir) / name
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        self.values: dict[str, dict] = {}
        self.figures: dict[str, dict] = {}
        self.claims: dict[str, dict] = {}
        self.files: dict[str, str] = {}
        self.commit, self.started = provenance.commit(), time.time()
        self.sources = workflow.sources(name) if workflow.source(name).is_file() else {}

    def path(self, name: str) -> Path:
        """Where a file of this chapter belongs."""
        return self.folder / name

    def writing(self, name: str):
        """A temporary path that becomes the file `name` of this chapter when the block ends well."""
        return provenance.writing(self.path(name))

    def uses(self, path: Path) -> None:
        """Note a file that the results depend on, by its SHA-256; its name is relative to the run
        or the repository.
        """
        full = path.resolve()
        homes = [
            home
            for home in (self.folder.parent.resolve(), repository())
            if full.is_relative_to(home)
        ]
        name = full.relative_to(homes[0]) if homes else Path(path.name)
        self.files[name.as_posix()] = provenance.sha256(path)

    def value(
        self, name, value, *, unit="", kind="measured", interval=None, fmt=".3g", tolerance=None
    ):
        """Publish a number (or short text) once, under a name that prose uses.

        interval: (low, high) of its 95 % confidence interval.  tolerance: by how much, relative to
        it, the same computation on another machine may differ (default by kind; infinite: a time or
        rate, which is not judged). Refused: a name used twice, an unknown kind.
        """
        if name in self.values:
            raise ValueError(f"{self.name}: value {name!r}: is published already: each name once")
        if kind not in KINDS:
            raise ValueError(
                f"{self.name}: value {name!r}: kind = {kind!r}: must be one of {', '.join(KINDS)}"
            )
        plain = (
            value if isinstance(value, str) else (int(value) if fmt.endswith("d") else float(value))
        )
        text, missing = show(plain, fmt), isinstance(plain, float) and math.isnan(plain)
        plain, interval = (None, None) if missing else (plain, interval)  # JSON knows no NaN
        limits = None if interval is None else [float(edge) for edge in interval]
        self.values[name] = dict(
            value=plain,
            unit=unit,
            kind=kind,
            interval=limits,
            fmt=fmt,
            text=text,
            tolerance=str(TOLERANCE[kind] if tolerance is None else tolerance),
            cell=_cell(),
        )

    def figure(
        self,
        name: str,
        fig,
        *,
        caption: str,
        alt: str,
        data: pd.DataFrame,
        interactive: dict | None = None,
    ) -> None:
        """Publish a matplotlib figure: PNG, its data as CSV, caption and alternative text (neither
        may be empty).

        interactive: the same as a plotly figure {"data": […], "layout": {…}}, which the book shows
        in its place where there is JavaScript; on paper and without it the static one stays.  Its
        "choices" {label: {…}} become a menu that restyles it.
        """
        if not caption.strip() or not alt.strip():
            raise ValueError(
                f"{self.name}: figure {name!r}: must have a caption and an alternative text"
            )
        image = self.folder / "figures" / f"{name}.png"
        with provenance.writing(image) as temporary:
            fig.savefig(temporary, dpi=DPI, metadata={"Software": None})
        fig.clear()
        with provenance.writing(image.with_suffix(".csv")) as temporary:
            data.to_csv(temporary, index=False)
        self.figures[name] = dict(
            caption=caption, alt=alt, file=f"figures/{name}.png", data=f"figures/{name}.csv"
        )
        if interactive:
            self.figures[name]["interactive"] = interactive
        source = base64.b64encode(image.read_bytes()).decode()
        display(HTML(figure_html(name, f"data:image/png;base64,{source}", self.figures[name])))

    def table(
        self, name: str, table: pd.DataFrame, *, caption: str, fmt: dict[str, str] | None = None
    ) -> None:
        """Publish a table: shown as HTML that scrolls by itself, kept as CSV."""
        with provenance.writing(self.folder / "figures" / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        shown = table.copy()
        for column, form in (fmt or {}).items():
            shown[column] = shown[column].map(
                lambda v, form=form: form.format(v) if pd.notna(v) else NONE
            )
        wide = shown.map(lambda cell: len(str(cell)) > 48).to_numpy().any()
        classes = "paper-table paper-wrap" if wide else "paper-table"
        lines = shown.map(lambda cell: cell.replace("\n", LINE) if isinstance(cell, str) else cell)
        body = lines.to_html(
            index=False, border=0, classes=classes, float_format="{:.4g}".format, na_rep=NONE
        ).replace(LINE, "\n")
        label = html.escape(f"table {name}")
        display(
            HTML(
                f'<div class="paper-scroll" tabindex="0" role="region" aria-label="{label}">{body}</div>'
                f'<p class="paper-caption">{_inline(caption)}</p>'
            )
        )

    def claim(self, name: str, text: str, predicate: str) -> None:
        """State whether this run supports a claim, a predicate over its values: "gini_with <
        gini_without".

        One that fails is shown, never hidden.
        """
        holds = judge(predicate, self.values)
        verdict = "undecided" if holds is None else "supported" if holds else "not supported"
        self.claims[name] = dict(text=text, predicate=predicate, verdict=verdict)
        display(
            HTML(
                f'<p class="paper-claim"><strong>{verdict.capitalize()}:</strong> {_inline(text)}</p>'
            )
        )

    def check(self, name: str, condition) -> None:
        """Something that must always hold; if it does not, the notebook ends with one line."""
        if not bool(condition):
            raise RuntimeError(f"{self.name}: check failed: {name}")

    def close(self) -> None:
        """Write values.json and show the provenance."""
        facts = {
            "commit": self.commit,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
            "run": provenance.run(),
            "parameters": {
                name: provenance.portable(value) for name, value in vars(self.parameters).items()
            },
            "files": self.files,
            "sources": self.sources,
            "seconds": round(time.time() - self.started, 1),
            "peak_memory_bytes": provenance.peak_memory_bytes(),
        }
        content = dict(
            chapter=self.name,
            values=self.values,
            figures=self.figures,
            claims=self.claims,
            provenance=facts,
        )
        with provenance.writing(self.folder / "values.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        display(HTML(_provenance_html(facts)))


def _cell() -> int | None:
    """The number of the notebook cell that runs: its place in the history of inputs, which is kept
    before it runs.
    """
    shell = get_ipython()
    return len(shell.user_ns["In"]) - 1 if shell else None


def _inline(text: str) -> str:
    """Escaped text in which *words* between asterisks are emphasised."""
    parts = html.escape(text).split("*")
    return "".join(f"<em>{part}</em>" if i % 2 else part for i, part in enumerate(parts))


def figure_html(name: str, source: str, known: dict) -> str:
    """A figure as HTML: image, caption, and its interactive form where there is one."""
    return (
        f'<figure class="paper-figure" id="fig-{html.escape(name)}"><img src="{html.escape(source)}" '
        f'alt="{html.escape(known["alt"])}">{plot_html(known)}<figcaption>{_inline(known["caption"])}</figcaption></figure>'
    )


def plot_html(known: dict) -> str:
    """The interactive form of a figure as data for the book's script; nothing where it has none."""
    data = html.escape(json.dumps(known.get("interactive")))
    return (
        f'<div class="paper-plot" data-figure="{data}" hidden></div>'
        if "interactive" in known
        else ""
    )


def _provenance_html(facts: dict) -> str:
    """The provenance as a table, long parts folded.  What differs between equal runs stands in rows
    of class paper-when.
    """
    files = "".join(
        f"<li><code>{html.escape(name)}</code> {sha[:12]}</li>"
        for name, sha in facts["files"].items()
    )
    origin = facts["run"]["parameters_file"]
    rows = {
        "commit": f"<code>{html.escape(facts['commit'][:12] + facts['commit'][40:])}</code>",
        "run": html.escape(facts["run"]["name"] or "by hand")
        + (f", {html.escape(origin)}" if origin else ""),
        "hardware": html.escape(facts["hardware"]),
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "parameters": ", ".join(
            f"{k} = {html.escape(repr(v))}" for k, v in facts["parameters"].items()
        ),
        "data (SHA-256)": f"<ul>{files}</ul>" if files else "none",
    }
    when = {
        "computed": facts["date"],
        "time": f"{facts['seconds']:.0f} s",
        "peak memory": f"{facts['peak_memory_bytes'] / 2**30:.1f} GiB",
    }
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    body += "".join(
        f'<tr class="paper-when"><th>{name}</th><td>{value}</td></tr>'
        for name, value in when.items()
    )
    return (
        '<div class="paper-scroll" tabindex="0" role="region" aria-label="provenance">'
        f'<table class="paper-table paper-provenance">{body}</table></div>'
    )
