"""The book has the parts of a paper, each with a page that is there."""

import json
from pathlib import Path

import yaml

from lib.paper import chapters, claimed, claims

ROOT = Path(__file__).parents[1]
PARTS = ["Problem", "Proposed solutions", "Implementation", "Evaluation", "Future work"]


def test_the_outline():
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    assert toc["root"] == "book/intro"
    assert [part["caption"] for part in toc["parts"]][: len(PARTS)] == PARTS
    for part in toc["parts"]:
        assert part["chapters"], part["caption"]
        for page in part["chapters"]:
            found = [(ROOT / page["file"]).with_suffix(end).is_file() for end in (".md", ".ipynb")]
            assert any(found), page["file"]


def test_every_page_is_in_it():
    toc = (ROOT / "book/_toc.yml").read_text()
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert not [page.name for page in pages if f"{page.parent.name}/{page.stem}" not in toc]


def test_each_claim_of_the_predecessor_has_a_row():
    record = json.loads((chapters.PUBLISHED / "04/values.json").read_text())
    found = claimed.table(record)
    assert [
        words
        for words in ("104%", "103%", "P99", "40%")
        if not found.claimed.str.contains(words).any()
    ] == [] and len(found) == 4
    for (_, _, name), verdict in zip(claimed.CLAIMS, found.verdict, strict=True):
        if name:  # judged anew, by its predicate
            own = claims.verdict(record["claims"][name]["predicate"], record["values"])
            assert verdict == claimed.HOLDS[own]
        else:
            assert verdict.startswith("cannot be known")
    record["values"]["gain_balanced"]["value"] = None
    assert claimed.table({**record, "claims": {}}).here.iloc[-1] == claimed.NOT_YET
    assert "{claimed}" in (ROOT / "book/claims.md").read_text()
