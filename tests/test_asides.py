"""Tables for those who check are folded, and every name in the file is a table's."""

import pandas as pd

from lib.paper import asides, chapters, compare, markup

KNOWN = dict(number="5.1", caption="Measured <em>tables</em>.", link="05/figures/worst.csv")


def shown(name: str) -> str:
    return markup.table(name, pd.DataFrame({"a": ["1"]}), KNOWN)


def test_an_aside_is_below_a_line_that_says_what_it_holds():
    text = asides.folded(shown("worst"))
    assert text.startswith('<details class="paper-aside"><summary>Table 5.1: Measured ')
    assert text.endswith("</details>") and shown("worst") in text and "CSV</summary>" not in text


def test_what_is_no_aside_stays():
    for text in (shown("costs_fresh"), shown("nothing"), "<p>words</p>"):
        assert asides.folded(text) == text


def test_every_aside_is_a_table_of_its_chapter():
    known = compare.records(chapters.PUBLISHED)
    for name in asides.written():
        number, _, table = name.partition(".")
        assert (chapters.PUBLISHED / number / "figures" / f"{table}.csv").exists() or (
            chapters.PUBLISHED / number / "figures" / f"{table}.csv.xz"
        ).exists(), name
        assert number in known
