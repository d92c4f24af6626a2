"""The built book in a real browser, offline."""

import json
import re

import pytest
from conftest import ROOT

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
PAGES = ["book/intro", "book/notation", "book/rerun", "book/families", "book/references", "notebooks/00_base_model",
         "notebooks/01_profile", "notebooks/04_network"]  # fmt: skip


@pytest.fixture(scope="module")
def html(tiny_run):
    return tiny_run / "book/_build/html"


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_offline(browser, html, name, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    remote, errors = [], []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else remote.append(r.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((html / f"{name}.html").as_uri())
    page.wait_for_timeout(400)
    assert remote == [] and errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt !== null)")
    if name in ("book/notation", "notebooks/04_network"):
        assert page.locator("mjx-container svg").count() > 2
    assert page.locator("text=(not available in this run)").count() == 0
    page.close()


@pytest.mark.browser
def test_every_internal_link_leads_somewhere(browser, html):
    page = browser.new_page()
    for name in PAGES:
        page.goto((html / f"{name}.html").as_uri())
        for link in page.evaluate("[...document.querySelectorAll('article a')].map(a => a.href)"):
            if link.startswith("file:"):
                target = link.partition("#")[0].removeprefix("file://")
                assert target == "" or (html / target).is_file() or target.endswith("/"), f"{name}: {link}"
    page.close()


def test_values_in_prose_are_those_of_the_run(tiny_run, html):
    made = json.loads((tiny_run / "01_profile/values.json").read_text())
    page = (html / "book/intro.html").read_text()
    shown = re.search(r'title="01_profile: gini_without = ([\d.]+)[^"]*measured[^"]*">([^<]+)</a>', page)
    assert (
        float(shown[1]) == made["values"]["gini_without"]["value"]
        and shown[2] == made["values"]["gini_without"]["text"]
    )
    assert "not available in this run" not in page


def test_figures_have_captions_and_alternative_texts(html):
    for name in (name for name in PAGES if name.startswith("notebooks")):
        page = (html / f"{name}.html").read_text()
        figures = re.findall(r'<figure class="paper-figure".*?</figure>', page, flags=re.S)
        assert figures
        for figure in figures:
            assert re.search(r'alt="[^"]{40,}"', figure) and re.search(r"<figcaption>.{30,}", figure, flags=re.S)


def test_the_page_shows_the_executed_copy(html):
    page = (html / "notebooks/04_network.html").read_text()
    assert "peak memory" in page and "Supported:" in page and "communication" in page


def test_markup_in_a_value_is_text():
    from lib.paper import sphinxext

    chapter = {"chapter": "07_x", "provenance": {"commit": "c", "hardware": "<script>", "date": "d"},
               "values": {"a": dict(value="<script>", unit="", kind="measured", interval=None, text="<script>")}}  # fmt: skip
    assert "<script>" not in sphinxext.value_html(chapter, "a", "x.html")


def test_mathematics_is_vendored_with_its_licence():
    static = ROOT / "book/_static"
    assert (static / "tex-svg.js").stat().st_size > 2e6 and "Apache" in (static / "tex-svg.LICENSE.txt").read_text()
