"""What a notebook publishes: values, figures, tables, claims, and where they come from.

A `Chapter` collects them and writes ``<run_dir>/<chapter>/values.json``; the book, and every
comparison of runs, reads that one file.  Nothing appears under its final name before it is whole.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Markdown, display

from lib import provenance
from lib.paper import chapters, claims, columns, intact, intervals, markup, svg

KINDS = ("measured", "simulated", "synthetic", "published", "setting")
# relative, of the same computation elsewhere
TOLERANCE = dict(measured=0.02, simulated=0.02, synthetic=1e-6, published=1e-6, setting=0.0)
SENTENCES = {"paper": "sentences"}  # marks the output that the book, whose roles are links, omits


def find(run_dir: str, chapter: str, pattern: str) -> list[Path]:
    """The files of another chapter that match `pattern`: this run's, else the published run's.

    Where neither has any: one line that says how to make them.
    """
    own = Path(run_dir) / chapter
    for folder in (own, chapters.PUBLISHED / chapter[:2]):
        if found := sorted(folder.glob(pattern)):
            return found
    raise FileNotFoundError(
        f"values.find: {own / pattern}: no such file, nor a published one: "
        f"run notebooks/{chapter}.ipynb with the same run_dir"
    )


class Chapter:
    """The results of one notebook.

    Created after its parameters were checked; nothing is written before that, nor where data that
    it reads differ from their inventory.  Where it is created stands, after `close`, the chapter's
    prose with this run's numbers.
    """

    def __init__(self, name: str, parameters: SimpleNamespace) -> None:
        self.name, self.parameters = name, parameters
        known = chapters.source(name).is_file()
        self.changed = intact.check(intact.places(name)) if known else []
        self.folder = Path(parameters.run_dir) / name
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        self.values: dict[str, dict] = {}
        self.figures: dict[str, dict] = {}
        self.tables: dict[str, dict] = {}
        self.claims: dict[str, dict] = {}
        self.files: dict[str, str] = {}
        self.given = provenance.contents(vars(parameters))
        self.left = ""  # work that the same command goes on with: "3 of 9 runs left"
        self.commit, self.started = provenance.commit(), time.time()
        self.sources = chapters.sources(name) if known else {}
        self._top = display(
            Markdown("*The answer appears here when the notebook has run to its end.*"),
            metadata=SENTENCES,
            display_id=True,
        )

    def path(self, name: str) -> Path:
        """Where a file of this chapter belongs."""
        return self.folder / name

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A temporary path that becomes the chapter's file `name` when the block ends well."""
        return provenance.writing(self.path(name))

    def uses(self, *paths: Path) -> None:
        """Note files that the results depend on, by their SHA-256; their names are relative to the
        run or the repository.

        What a parameter names is noted already, by its content, and left out.  Refused: a file of
        the repository that the notebook does not declare among what it reads, and one elsewhere
        that no parameter names, since a change of it would not make the chapter stale.
        """
        homes = [self.folder.parent.resolve(), provenance.repository()]
        parameters = vars(self.parameters)
        named = [provenance.located(name, parameters[name]) for name in self.given]
        for path in paths:
            full = path.resolve()
            if any(full.is_relative_to(Path(str(place)).resolve()) for place in named):
                continue
            home = next((home for home in homes if full.is_relative_to(home)), None)
            if home is None:
                raise ValueError(f"{self.name}: reads {path}: must be named by a parameter")
            name = full.relative_to(home).as_posix()
            if home == homes[1] and not chapters.declares(self.name, name):
                raise ValueError(
                    f"{self.name}: reads {name}: must be named by the notebook's `reads` or `needs`"
                )
            self.files[name] = provenance.sha256(path)

    def value(
        self, name, value, *, unit=None, kind="measured", interval=None, fmt=None, tolerance=None
    ) -> None:
        """Publish a number (or short text) once, under a name that prose uses.

        unit, fmt: those of a column of that name, where not given.  interval: (low, high) of its
        95 % confidence interval.  tolerance: by how much, relative to it, the same computation on
        another machine may differ (default by kind; infinite: a time or rate, which is not judged).
        Refused: a name used twice, an unknown kind.
        """
        if name in self.values:
            raise ValueError(f"{self.name}: value {name!r}: is published already: each name once")
        if kind not in KINDS:
            options = ", ".join(KINDS)
            raise ValueError(f"{self.name}: {name!r}: kind = {kind!r}: must be one of {options}")
        fmt = columns.fmt(name, value) if fmt is None else fmt
        missing = not isinstance(value, str) and pd.isna(value)
        plain = value if isinstance(value, str) else math.nan if missing else float(value)
        if fmt.endswith("d") and isinstance(plain, float) and plain.is_integer():
            plain = int(plain)
        self.values[name] = dict(
            value=None if missing else plain,  # JSON knows no NaN
            unit=columns.known(name).unit if unit is None else unit,
            kind=kind,
            interval=None if missing or interval is None else [float(edge) for edge in interval],
            fmt=fmt,
            text=columns.show(plain, fmt),
            tolerance=str(TOLERANCE[kind] if tolerance is None else tolerance),
            cell=_cell(),
        )

    def values_of(
        self, rows, tag: str = "", *, by=(), of=(), kind="measured", tolerance=None, **formats: str
    ) -> None:
        """Publish columns of a table: `gini` of a row as "gini_<by>_<tag>".

        rows: a table, or one row of it.  by: columns whose content goes into the names.  of: which
        columns, if not all others.  Formats and units are those of `columns`, a format for this
        chapter alone a keyword; intervals the columns <name>_low and <name>_high, where they hold
        numbers.  A column that is called "value" adds nothing to the names and is written like what
        the first of `by` says.
        """
        table = rows.to_frame().T if isinstance(rows, pd.Series) else rows
        rest = intervals.without([name for name in table.columns if name not in by])
        for row in table.to_dict("records"):
            ending = [str(part) for part in (*(row[column] for column in by), tag) if part != ""]
            for column in [*of, *formats] or rest:
                plain = column == "value"
                known = ending[0] if plain else column
                self.value(
                    "_".join(ending if plain else [column, *ending]),
                    row[column],
                    unit=columns.known(known).unit,
                    kind=kind,
                    interval=intervals.of(row, column),
                    fmt=formats.get(column, columns.fmt(known, row[column])),
                    tolerance=tolerance,
                )

    def figure(
        self,
        name: str,
        fig,
        data: pd.DataFrame,
        *,
        caption: str,
        alt: str,
        reads=None,
        interactive=None,
    ) -> None:
        """Publish a matplotlib figure: SVG, its data as CSV, caption and alternative text.

        reads: a column or table whose numbers the alternative text tells, labelled by its index,
        or that there is none.
        interactive: the same as a plotly figure {"data": […], "layout": {…}}, which the book shows
        in its place where there is JavaScript; on paper and without it the static one stays.  Its
        "choices" {label: {…}} become a menu that restyles it.
        """
        if not caption.strip() or not alt.strip():
            raise ValueError(
                f"{self.name}: figure {name!r}: must have a caption and an alternative text"
            )
        numbers = "" if reads is None else columns.told(reads) or "none"
        image = self.folder / "figures" / f"{name}.svg"
        drawing = svg.drawn(fig, f"{self.name[:2]}-{name}")
        with provenance.writing(image) as temporary:
            temporary.write_text(drawing)
        fig.clear()
        with provenance.writing(image.with_suffix(".csv")) as temporary:
            data.to_csv(temporary, index=False, float_format="%.8g")
        self.figures[name] = dict(
            number=self._number(self.figures, name),
            caption=markup.resolved(caption, self._told),
            alt=markup.resolved(alt, self._told) + (f" {numbers}." if numbers else ""),
            file=f"figures/{name}.svg",
            data=f"figures/{name}.csv",
        )
        if interactive:
            self.figures[name]["interactive"] = interactive
        known = self.figures[name] | {"link": self._link(name)}
        display(HTML(markup.figure(name, drawing, known)))

    def table(self, name: str, table: pd.DataFrame, *, caption: str) -> None:
        """Publish a table: kept whole as CSV, shown with heads and formats of `columns`."""
        with provenance.writing(self.folder / "figures" / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.8g")
        known = {
            "number": self._number(self.tables, name),
            "caption": markup.resolved(caption, self._told),
            "link": self._link(name),
        }
        self.tables[name] = known
        display(HTML(markup.table(name, columns.readable(table), known)))

    @property
    def own(self) -> bool:
        """Whether the chapter is about this book's own checkpoints, not about a user's model."""
        return vars(self.parameters).get("model", "embedded") == "embedded"

    def claim(self, name: str, text: str, predicate: str, corrected: str = "") -> None:
        """State whether this run supports a claim, a predicate over its values: "gini_with <
        gini_without".

        One that fails is shown, never hidden.  corrected: what it was corrected from, told where
        the run is about this book's own checkpoints.
        """
        verdict = claims.verdict(predicate, self.values)
        if corrected and self.own:
            text = f"{text.removesuffix('.')} (corrected from {corrected})."
        text = markup.resolved(text, self._told)
        self.claims[name] = dict(text=text, predicate=predicate, verdict=verdict)
        words = f"<strong>{verdict.capitalize()}:</strong> {markup.inline(text)}"
        display(HTML(f'<p class="paper-claim">{words}</p>'))

    def check(self, name: str, condition) -> None:
        """Something that must always hold; if it does not, the notebook ends with one line."""
        if not bool(condition):
            raise RuntimeError(f"{self.name}: check failed: {name}")

    def close(self) -> None:
        """Write values.json, show the provenance, and the prose with its numbers at the top."""
        facts = {
            "commit": self.commit,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
            "run": provenance.run(),
            "parameters": {
                name: provenance.portable(value) for name, value in vars(self.parameters).items()
            },
            "given": self.given,
            "files": self.files,
            "sources": self.sources,
            "seconds": round(time.time() - self.started, 1),
            "peak_memory_bytes": provenance.peak_memory_bytes(),
            "changed_data": self.changed,
            **provenance.peak_gpu(),
        }
        parts = dict(values=self.values, figures=self.figures, claims=self.claims)
        content = dict(chapter=self.name, left=self.left, **parts, provenance=facts)
        with provenance.writing(self.folder / "values.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        display(HTML(markup.provenance(facts)))
        if self._top is not None and chapters.source(self.name).is_file():
            text = markup.sentences(chapters.cells(self.name), self._told)
            self._top.update(Markdown(text), metadata=SENTENCES)

    def _link(self, name: str) -> str:
        """Where a figure's or table's data lies, from the notebook and from its page."""
        return f"{self.name}/figures/{name}.csv"

    def _number(self, among: dict, name: str) -> str:
        """The number of a figure or table: of its chapter, and of its place among those made."""
        place = list(among).index(name) if name in among else len(among)
        return f"{int(self.name[:2])}.{place + 1}"

    def _told(self, number: str, name: str) -> str:
        """A value of this or another chapter of the run as text."""
        if number != self.name[:2]:
            found = sorted(self.folder.parent.glob(f"{number}_*/values.json"))
            place = found[0] if found else chapters.PUBLISHED / number / "values.json"
            known = json.loads(place.read_text())["values"] if place.is_file() else {}
            return markup.value(known[name]) if name in known else "not available"
        return markup.value(self.values[name]) if name in self.values else "not available"


def _cell() -> int | None:
    """The number of the notebook cell that runs: its place in the history of inputs, which is kept
    before it runs.
    """
    shell = get_ipython()
    return len(shell.user_ns["In"]) - 1 if shell else None
