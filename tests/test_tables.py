"""Tables as people read them."""

import pandas as pd
import pytest

from lib.paper import markup, markup_tables

LIMITS = '<span class="paper-limits">'


@pytest.mark.parametrize(
    ("text", "head", "wanted"),
    [
        ("1.27e+08", "variance", "1.27·10⁸"),
        ("1.02e+03", "even routes (µs)", "1,020"),
        ("9.9e-06", "estimate", "9.9·10⁻⁶"),
        ("9.9e-06", "p (Holm)", "&lt;&nbsp;0.0001"),
        ("9.9e-06", "p", "&lt;&nbsp;0.0001"),
        ("9.9e-06", "passes", "9.9·10⁻⁶"),
        ("0.00011", "p (Holm)", "0.00011"),
        ("0.21 [-0.19, 0.24]", "Gini", f"<span>0.21</span> {LIMITS}[−0.19, 0.24]</span>"),
        ("1e-05 [2e-06, 3e-05]", "s", f"<span>1·10⁻⁵</span> {LIMITS}[2·10⁻⁶, 3·10⁻⁵]</span>"),
        ("drop_position 1.25", "setting", "drop position 1.25"),
        ("torch/_dynamo/cache_size.py", "document", "torch/_dynamo/cache_size.py"),
        ("-7%", "lean", "−7%"),
        ("gpt-oss-20b", "model", "gpt-oss-20b"),
        ("TensorRT-LLM 1.3.0rc20", "engine", "TensorRT-LLM 1.3.0rc20"),
        ("nan", "kind", "–"),
        ("True", "causal", "yes"),
        ("2026-05-01", "date", "2026-05-01"),
    ],
)
def test_a_cell(text, head, wanted):
    assert markup_tables.cell(text, head) == wanted


def test_a_text_stays_as_it_was_written():
    text = "def cache_size(n=-1e-05): return the_size if n_bytes is None else 1"
    known = {"caption": "A table.", "link": "x.csv", "number": "1.1"}
    page = markup_tables.told(markup.table("x", pd.DataFrame({"original": [text]}), known))
    assert f">{text}<" in page


def test_of_a_long_table_eight_rows_are_shown_and_none_is_lost():
    known = {"caption": "A table.", "link": "x.csv", "number": "1.1"}
    for rows in (8, 9, 30):
        shown = pd.DataFrame({"setting": [f"row_{i}" for i in range(rows)], "p": "0.5"})
        page = markup_tables.told(markup.table("x", shown, known))
        first, _, rest = page.partition('<tbody class="paper-rest">')
        assert first.count("<tr>") == 1 + 8 and rest.count("<tr>") == rows - 8
        assert all(f">row {i}<" in page for i in range(rows))
        assert (f"{rows - 8} more row" in page) == (rows > 8)
        assert markup_tables.told(page) == page or rows > 8
        assert 'href="x.csv"' in page


def test_a_table_of_many_columns_is_set_smaller():
    for columns in (8, 9):
        shown = pd.DataFrame({f"c{i}": ["1"] for i in range(columns)})
        page = markup_tables.told(markup.table("x", shown, {"caption": "A table."}))
        assert ("paper-wide" in page) == (columns > 8)


def test_of_a_provenance_the_long_rows_are_folded():
    facts = dict(commit="c" * 40, run=dict(name="r", parameters_file=""), hardware="h", date="d")
    facts |= dict(versions=dict(torch="2"), parameters=dict(seed=0), files={}, seconds=1)
    page = markup_tables.told(markup.provenance(facts | dict(peak_memory_bytes=1)))
    first, _, rest = page.partition('<tbody class="paper-rest">')
    assert all(f"<th>{name}</th>" in first for name in ("commit", "run", "hardware", "time"))
    assert all(f"<th>{name}</th>" in rest for name in markup_tables.FOLDED)
    assert page.endswith("<summary>versions, parameters, data</summary></details>")
