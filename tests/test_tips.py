"""What a value's tip says: its meaning, how its interval was made, where it was measured."""

import pytest
from conftest import ROOT

from lib.model import rows
from lib.paper import chapters, citing, columns_about, compare, roles

RECORDS = compare.records(chapters.PUBLISHED)


@pytest.mark.parametrize("number", RECORDS)
def test_of_every_published_interval_it_is_known_how_it_was_made(number):
    values = RECORDS[number]["values"]
    lacking = [name for name in values if values[name]["interval"]]
    assert not [name for name in lacking if not columns_about.interval(number, name)]


@pytest.mark.parametrize("number", RECORDS)
def test_a_machine_that_a_tip_names_is_one_that_the_chapter_published(number):
    for name in RECORDS[number]["values"]:
        words = columns_about.machine(RECORDS[number], name)
        assert "{" not in words and (not words or words.strip())


def test_the_models_were_trained_where_their_values_say():
    packs = (ROOT / "data/reference/ladder").glob("*.packed")
    found = {
        one["provenance"]["device"] for path in packs for one in rows.unpack(path.read_bytes())
    }
    assert {columns_about.machine(RECORDS["06"], "gain_switch").split(",")[0]} == found


def test_where_it_was_measured_stands_apart_from_where_it_was_computed():
    tip = roles.value_html(RECORDS["05"], "slowdown_most", "x.html")
    assert f"measured on {RECORDS['05']['values']['machines']['text']}" in tip
    assert f"computed on {RECORDS['05']['provenance']['hardware']}" in tip
    assert "bootstrap over draws of routes" in tip
    assert "measured on" not in roles.value_html(RECORDS["04"], "slowdown_trace", "x.html")


def test_meanings_and_digits():
    assert columns_about.meaning("gini_without") == "Gini: without balance loss"
    assert columns_about.meaning("bits_per_byte_with") == "bits per byte: with balance loss"
    assert columns_about.meaning("no_such_column_x") == "no such column x"
    shown = [columns_about.digits(value) for value in (0.123456, 272768, 5.0, "text", None)]
    assert shown == ["0.1235", "272,768", "5", "text", "not available"]


def test_how_the_book_is_cited():
    facts = citing.known()
    entry = citing.bibtex(facts | {"repository-code": "https://example.org/x"})
    assert facts["title"] in entry and "url = {https://example.org/x}" in entry
    assert facts["license"] in citing.page() and "@software{" in citing.page()


@pytest.mark.parametrize("number", RECORDS)
def test_published_pages_come_from_clean_commits(number):
    assert len(RECORDS[number]["provenance"]["commit"]) == 40  # "+changes" would follow
