"""The drawing of the rooms follows the imports."""

import xml.etree.ElementTree as tree

import pytest

from lib.paper import architecture


def test_a_small_house_by_hand(tmp_path):
    files = {
        "leaf.py": "import os",
        "low/a.py": "from lib import leaf",
        "high/b.py": "import lib.low.a\nfrom lib.high import c\nfrom lib import leaf",
        "high/c.py": "",
        "__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    known = architecture.arrows(tmp_path)
    assert known == {"leaf": set(), "low": {"leaf"}, "high": {"low", "leaf"}}
    assert architecture.levels(known) == [["leaf"], ["low"], ["high"]]
    assert architecture.direct(known) == {"leaf": set(), "low": {"leaf"}, "high": {"low"}}
    drawn = tree.fromstring(architecture.drawing(known))
    assert [text.text for text in drawn.iter("text")] == ["high", "low", "leaf"]
    assert len(list(drawn.iter("line"))) == 2
    assert "low imports leaf" in drawn.attrib["aria-label"]


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="a circle among a, b"):
        architecture.levels({"a": {"b"}, "b": {"a"}, "c": set()})


def test_every_room_of_lib_is_drawn():
    known = architecture.arrows()
    assert {"paper", "network", "stats", "commands"} <= known.keys()
    assert known["stats"] == set() and "paper" not in known["network"]
    assert architecture.levels(known)[-1] == ["commands"]
