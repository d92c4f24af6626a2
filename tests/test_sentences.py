"""Sentences without their numbers drop out; the published book lacks only another model's."""

import json

import pytest
from conftest import ROOT

from lib.paper import chapters, compare, prose
from lib.paper.markup import ROLE

PAGES = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]


def has(number, name):
    return name != "gone"


def test_a_sentence_goes_with_its_number():
    text = "**Answer.** It is {val}`01.here`. With it {val}`01.gone` is left. And more."
    assert prose.kept(text, has) == "**Answer.** It is {val}`01.here`. And more."


def test_a_paragraph_of_which_nothing_is_left_goes_whole():
    text = "# Title\n\n**Answer.** It is {val}`01.gone`.\n\nWords stay; {val}`01.here` too."
    assert prose.kept(text, has) == "# Title\n\nWords stay; {val}`01.here` too."


def test_items_go_one_by_one_and_tables_stay():
    text = "- one {val}`01.gone`.\n- two {val}`01.here`. Three {val}`01.gone`.\n- four"
    assert prose.kept(text, has) == "- two {val}`01.here`.\n- four"
    table = "| a | {val}`01.gone` |"
    assert prose.kept(table, has) == table
    assert prose.kept(":::{warning}\nOf {val}`01.gone`. Words.\n:::", has) == ""


def test_text_with_all_its_numbers_is_left_as_it_is():
    text = "One.  Two {val}`01.here`.\n$$x. Y$$"
    assert prose.kept(text, has) == text


def words(path):
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_published_book_lacks_only_numbers_of_another_model(path):
    known = compare.records(chapters.PUBLISHED)
    asked = ROLE.findall(words(path))
    assert {name for number, name in asked if name not in known[number]["values"]} <= {
        name for _, name in asked if "_model" in name or name in ("own_shape", "counts_file")
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_sentence_is_of_one_s_own_model_and_of_this_book_s_pair(path):
    """No run has the numbers of both, so that it would stand nowhere."""
    for sentence in (part for text in words(path).split("\n\n") for part in prose.ENDS.split(text)):
        names = {name for _, name in ROLE.findall(sentence)} - {"counts_model", "placed_model"}
        ends = {part for name in names for part in name.split("_")}
        assert not ("model" in ends and ends & {"with", "without"}), sentence
        assert not names >= {"own_shape", "published_shapes"}, sentence
