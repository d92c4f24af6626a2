"""The book on paper: pages in order, each on a new sheet, links within it, nothing cut off."""

import re

import pytest
from conftest import ROOT

from lib.paper import pdf

TABLE = "".join(f"<th>a column of words {i}</th>" for i in range(14))
CELLS = "".join(
    "<td>0.123 <span class='paper-limits'>[0.100, 0.150]</span></td>" for _ in range(14)
)
ROWS = (
    '<div class="paper-scroll"><table class="paper-table paper-wide"><thead><tr>'
    f"{TABLE}</tr></thead><tbody>{f'<tr>{CELLS}</tr>' * 3}</tbody></table></div>"
)


@pytest.fixture
def html(tmp_path):
    """A built book of two pages that link each other, with the styles of this one."""
    style = (ROOT / "book/_static/paper.css").read_text()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static/paper.css").write_text(style)
    bodies = {
        "book/intro": '<h1 id="top">One</h1><a href="../notebooks/01_x.html#cell-2">to two</a>'
        '<a href="#top">up</a><a href="https://example.org/a#b">out</a>',
        "notebooks/01_x": '<h1>Two</h1><div id="cell-2"></div>'
        '<a href="../book/intro.html">back</a>'
        f'<img src="../_images/a.png" alt=""><svg><use xlink:href="#m"/></svg>{ROWS}',
    }
    for name, body in bodies.items():
        path = tmp_path / f"{name}.html"
        path.parent.mkdir()
        head = '<link rel="stylesheet" href="../_static/paper.css" />'
        article = f'<article class="bd-article">{body}</article>'
        path.write_text(f"<html><head><title>T</title>{head}</head><body>{article}</body></html>")
    return tmp_path


PAGES = ["book/intro", "notebooks/01_x"]


def test_links_lead_within_the_file(html):
    text = pdf.joined(html, PAGES)
    assert text.index("One") < text.index("Two")
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert links == [
        "_static/paper.css",
        "#page-1-cell-2",
        "#page-0-top",
        "https://example.org/a#b",
        "#page-0",
        "_images/a.png",
        "#page-1-m",
    ]
    known = set(re.findall(r' id="([^"]*)"', text))
    assert {"page-0", "page-0-top", "page-1", "page-1-cell-2"} == known


def test_every_page_of_the_book_is_printed():
    pages = pdf.toc()
    assert pages[0] == "book/intro" and len(set(pages)) == len(pages)
    for folder, kind in (("book", "md"), ("notebooks", "ipynb")):
        for path in (ROOT / folder).glob(f"*.{kind}"):
            assert f"{folder}/{path.stem}" in pages


@pytest.mark.browser
def test_a_book_is_printed_and_no_column_is_lost(html, browser, tmp_path):
    target = tmp_path / "book.pdf"
    assert pdf.printed(html, PAGES, target) == 2 and pdf.sheets(target) == 2
    assert not (html / "print.html").exists()
    (html / "joined.html").write_text(pdf.joined(html, PAGES))
    page = browser.new_page(viewport={"width": 680, "height": 900})  # of A4 without its margins
    page.emulate_media(media="print")
    page.goto((html / "joined.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_without_chromium_it_is_said(html, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="pdf: chromium: must be installed"):
        pdf.printed(html, PAGES, tmp_path / "book.pdf")
