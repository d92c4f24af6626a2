"""The book has the parts of a paper, each with a page that is there."""

from pathlib import Path

import yaml

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
