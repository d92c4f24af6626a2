"""What each figure shows, in the first words of its caption."""

import json

import pytest
from conftest import ROOT

from lib.paper import leads, markup, markup_prose

NAMES = {"01.gini_without": "0.51 [0.50, 0.52]", "01.gini_with": "0.21"}
FIGURE = (
    '<figure><figcaption><a class="paper-number" href="#fig-load">Figure 1.1</a> '
    "Load & more.</figcaption></figure>"
)


def told(number, name):
    return NAMES.get(f"{number}.{name}", markup.MISSING)


def test_a_caption_begins_with_what_the_figure_shows():
    assert leads.led(FIGURE, told) == FIGURE.replace(
        " Load &",
        " <strong>Gini is 0.51 [0.50, 0.52] without the balance loss and 0.21 with it.</strong> "
        "Load &",
    )


def test_without_its_numbers_it_begins_as_it_is(monkeypatch):
    monkeypatch.delitem(NAMES, "01.gini_with")
    assert leads.led(FIGURE, told) == FIGURE
    other = FIGURE.replace("fig-load", "fig-unknown")
    assert leads.led(other, told) == other


def test_of_several_sentences_the_first_whose_numbers_are_there(monkeypatch):
    several = ["{val}`01.absent` is one.", "{val}`01.gini_with` is there."]
    monkeypatch.setattr(leads, "written", lambda: {"01.load": several})
    assert "<strong>0.21 is there.</strong>" in leads.led(FIGURE, told)


@pytest.mark.parametrize("name", list(leads.written()))
def test_every_sentence_is_of_a_figure_and_of_published_values(name):
    number, _, figure = name.partition(".")
    record = json.loads((ROOT / "data" / "reference" / number / "values.json").read_text())
    assert figure in record["figures"]
    for sentence in leads.written()[name]:
        asked = markup_prose.asked(sentence)
        assert {one for one, _ in asked} <= {number}
        own = {value for _, value in asked if "_model" not in value}  # of a user's model
        assert own <= {*record["values"], "together_without", "together_with"}
        assert markup_prose.ROLE.sub("x", sentence).strip().endswith(".")
        assert sum(role.startswith("{val}") for role in sentence.split()) <= 5
