"""Sentences without their numbers drop out; the published book lacks only another model's."""

import json

import pytest
from conftest import ROOT

from lib.paper import chapters, compare, markup, markup_prose

PAGES = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]


def has(number, name):
    return name != "gone"


def test_a_sentence_goes_with_its_number():
    text = "**Answer.** It is {val}`01.here`. With it {val}`01.gone` is left. And more."
    assert markup_prose.kept(text, has) == "**Answer.** It is {val}`01.here`. And more."


def test_a_paragraph_of_which_nothing_is_left_goes_whole():
    text = "# Title\n\n**Answer.** It is {val}`01.gone`.\n\nWords stay; {val}`01.here` too."
    assert markup_prose.kept(text, has) == "# Title\n\nWords stay; {val}`01.here` too."


def test_items_go_one_by_one_and_tables_stay():
    text = "- one {val}`01.gone`.\n- two {val}`01.here`. Three {val}`01.gone`.\n- four"
    assert markup_prose.kept(text, has) == "- two {val}`01.here`.\n- four"
    table = "| a | {val}`01.gone` |"
    assert markup_prose.kept(table, has) == table
    assert markup_prose.kept(":::{warning}\nOf {val}`01.gone`. Words.\n:::", has) == ""


def test_text_with_all_its_numbers_is_left_as_it_is():
    text = "One.  Two {val}`01.here`.\n$$x. Y$$"
    assert markup_prose.kept(text, has) == text


def test_a_word_follows_the_sign_of_its_value():
    choices = "more / less / as much"
    assert markup_prose.word("0.5 nats/token [0.1, 0.9]", choices) == "more"
    assert markup_prose.word("−5.8% [-8.9%, -2.8%]", choices) == "less"
    assert markup_prose.word("-0.1 [-0.4, 0.2]", choices) == "as much"
    assert markup_prose.word("+0.0032", choices) == "more"
    with pytest.raises(ValueError, match="must be three words"):
        markup_prose.word("0.5", "more / less")
    with pytest.raises(ValueError, match="'not available': must be a number"):
        markup_prose.word("not available", choices)


def test_a_sentence_goes_with_the_value_of_its_word():
    text = "It costs {word}`01.gone more / less / as much`. It is {word}`01.here up / down / flat`."
    assert markup_prose.kept(text, has) == "It is {word}`01.here up / down / flat`."


def test_a_notebook_leaves_out_sentences_without_their_numbers():
    cells = [{"cell_type": "markdown", "source": "Of {val}`01.gone`. It is {val}`01.x`."}]
    told = {("01", "x"): "0.5"}
    shown = markup.sentences(cells, lambda *name: told.get(name, markup.MISSING))
    assert shown == "It is 0.5."


def words(path):
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_published_book_lacks_only_numbers_of_another_model(path):
    known = compare.records(chapters.PUBLISHED)
    asked = markup_prose.asked(words(path))
    assert {name for number, name in asked if name not in known[number]["values"]} <= {
        name for _, name in asked if "_model" in name or name in ("own_shape", "counts_file")
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_sentence_is_of_one_s_own_model_and_of_this_book_s_pair(path):
    """No run has the numbers of both, so that it would stand nowhere."""
    blocks = words(path).split("\n\n")
    for sentence in (part for text in blocks for part in markup_prose.ENDS.split(text)):
        names = {name for _, name in markup_prose.asked(sentence)}
        names -= {"counts_model", "placed_model"}
        ends = {part for name in names for part in name.split("_")}
        assert not ("model" in ends and ends & {"with", "without"}), sentence
        assert not names >= {"own_shape", "published_shapes"}, sentence


def test_a_span_of_equal_ends_is_one_number():
    def told(_, name):
        return {"a": "7%", "b": "7%", "c": "9%"}[name]

    same, other = "{val}`04.a` to {val}`04.b`", "{val}`04.a` to\n{val}`04.c`"
    assert markup_prose.once(f"It takes {same} longer.", told) == "It takes {val}`04.a` longer."
    assert markup_prose.once(f"It takes {other} longer.", told) == f"It takes {other} longer."
    assert markup_prose.once(f"It goes from {same}.", told) == f"It goes from {same}."
