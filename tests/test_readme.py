"""What the README tells of the paper is what was published."""

import math
import re

from conftest import ROOT

from lib.paper import chapters, compare, markup

README = " ".join((ROOT / "README.md").read_text().split())
FOUND = ("gain_switch", "perplexity_by_switch", "over_start_switch", "estimate_price")


def test_its_finding_is_the_published_one():
    values = compare.records(chapters.PUBLISHED)["06"]["values"]
    for name in FOUND:
        assert markup.value(values[name]) in README, name
    assert f"over {values['checkpoints_price']['text']} pairs" in README


def test_its_duration_is_the_budget_of_all_chapters():
    minutes = math.ceil(sum(map(chapters.budget_s, chapters.names())) / 60)
    assert int(re.search(r"at most (\d+) minutes", README)[1]) == minutes


def test_the_pages_that_it_names_are_there():
    titles = {path.read_text().split("\n")[0].lstrip("# ") for path in (ROOT / "book").glob("*.md")}
    for title in ("Your model", "Your cluster", "Claims", "What was declared beforehand", "Inside"):
        assert f"*{title}*" in README and title in titles
