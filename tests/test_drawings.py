"""The drawings of ideas: nothing leaves their ground, words stay large, what they count is true."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import ROOT

from lib.paper import drawings, svg

WIDTH = 342  # pixels that a figure has on a screen of 390


def parsed(name):
    """The elements of a drawing by their tags."""
    text = drawings.figure(name)
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    found = {}
    for part in ElementTree.fromstring(svg).iter():
        found.setdefault(part.tag.rpartition("}")[2], []).append(part.attrib | {"words": part.text})
    return found


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_a_drawing_stays_on_its_ground_and_has_words(name):
    known = parsed(name)
    height = drawings.DRAWINGS[name].height
    for box in known["rect"]:
        x, y, wide, high = (float(box[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0 and x + wide <= drawings.WIDE and y >= 0 and y + high <= height
    for words in known["text"]:
        size = 7 * len(words["words"])  # at most, of letters that are 13 high
        start = {"start": 0, "middle": size / 2, "end": size}[words["text-anchor"]]
        left = float(words["x"]) - start
        assert left > -2 and left + size < drawings.WIDE + 2, words["words"]
        assert 10 < float(words["y"]) < height
    assert 13 * WIDTH / drawings.WIDE > 11  # pixels on a narrow screen
    colours = re.findall(r'(?:fill|stroke)="(#[^"]*)"', drawings.figure(name))
    assert not colours  # each follows the theme
    assert len(known["svg"][0]["aria-label"]) > 60 and "no measurement" in drawings.figure(name)


def test_what_is_received_is_what_was_sent():
    assert sum(drawings.RECEIVED) == 2 * len(parsed("router")["circle"])
    served = [word["words"] for word in parsed("router")["text"]]
    assert [str(load) for pair in drawings.LOADS for load in pair] == [
        word for word in served if word.isdigit()
    ]


def test_re_routing_keeps_every_token_and_no_expert_above_the_capacity():
    fills = [box["fill"] for box in parsed("capacity")["rect"]][:-4]  # without the legend
    over = sum(max(0, load - drawings.CAPACITY) for load in drawings.STACKS)
    assert fills.count(drawings.RED) == fills.count(drawings.GREEN) == over
    assert fills.count("none") == 2 * over
    assert fills.count(drawings.BLUE) == 3 * (sum(drawings.STACKS) - over)


def test_the_book_shows_each_drawing_once():
    pages = "".join(path.read_text() for path in (ROOT / "book").glob("*.md"))
    assert sorted(re.findall(r"\{drawing\} (\w+)", pages)) == sorted(drawings.DRAWINGS)
    with pytest.raises(ValueError, match="drawing: other: must be one of router, "):
        drawings.figure("other")


def test_what_is_too_dark_for_a_dark_page_has_a_lighter_colour_there():
    drawing = svg.told('<svg x="1"><path style="fill: #882255"/><path style="fill: #0072b2"/>', "a")
    assert "fill: var(--paper-plum, #882255)" in drawing and "fill: #0072b2" in drawing
    sheet = (ROOT / "book/_static/paper.css").read_text()
    assert all(f"--paper-{name}: #" in sheet for name in svg.DEEP.values())
