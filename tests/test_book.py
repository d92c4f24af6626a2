"""The built book in a real browser, offline."""

import json
import re
from html.parser import HTMLParser

import pytest
from conftest import violations

from lib.paper import columns_about, pdf, roles

PAGES = [
    "book/intro",
    "book/claims",
    "book/declared",
    "book/compare",
    "book/notation",
    "book/rerun",
    "book/your-model",
    "book/cluster",
    "book/inside",
    "book/future",
    "book/references",
    "notebooks/00_base_model",
    "notebooks/01_profile",
    "notebooks/02_assignment",
    "notebooks/03_finetune",
    "notebooks/04_network",
    "notebooks/05_validation",
    "notebooks/06_synthesis",
]
CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]


@pytest.fixture(scope="module")
def html(tiny_run):
    return tiny_run / "book/_build/html"


CUT = """[...document.querySelectorAll('.paper-scroll, .pst-scrollable-table-container')]
  .filter(box => box.scrollWidth > box.clientWidth + 1)"""
SAID = "box => getComputedStyle(box, '::before').content.includes('to the right')"


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_offline_on_a_phone_a_desktop_and_paper(browser, html, name):
    """Nothing is fetched, nothing sticks out; a table that is cut off says so, in print none is."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    remote, errors = [], []
    page.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else remote.append(r.url)
    )
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((html / f"{name}.html").as_uri())
    page.wait_for_timeout(400)
    assert remote == [] and errors == []
    assert page.evaluate(
        "[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt !== null)"
    )
    if name in ("book/notation", "notebooks/04_network"):
        assert page.locator("mjx-container svg").count() > 2
    assert page.locator("text=(not available in this run)").count() == 0
    assert page.evaluate(f"{CUT}.every({SAID})")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page.wait_for_timeout(100)
    assert page.evaluate(f"{CUT}.every({SAID})")
    page.set_viewport_size({"width": 680, "height": 900})  # of A4 without its margins
    page.emulate_media(media="print")
    page.wait_for_timeout(200)
    assert page.evaluate(f"{CUT}.map(box => box.textContent.slice(0, 60))") == []
    page.close()


class Links(HTMLParser):
    """What a page links to, and which of its places can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])


def test_every_link_and_anchor_leads_somewhere(html):
    pages = {path.resolve(): Links(path) for path in html.rglob("*.html")}
    assert len(pages) > len(PAGES) and sum(len(page.links) for page in pages.values()) > 300
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(("https://", "javascript:")):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file() or target == html.resolve(), f"{path.name}: {link}"
            assert not anchor or anchor in pages[target].anchors, f"{path.name}: {link}"


@pytest.mark.browser
def test_a_value_leads_to_the_cell_that_made_it(browser, html):
    page = browser.new_page()
    page.goto((html / "book/intro.html").as_uri())
    page.locator("a.paper-value[data-tip*='01.gini_without ']").first.click()
    page.wait_for_url("**/notebooks/01_profile.html#cell-*")
    cell = page.locator(f"#{page.url.partition('#')[2]} ~ .cell").first
    assert "chapter.values_of(summary" in cell.inner_text()  # the code is unfolded
    assert cell.evaluate("e => e.getBoundingClientRect().top < innerHeight")
    page.close()


@pytest.mark.browser
def test_a_value_explains_itself_by_keyboard_pointer_and_touch(browser, html, tiny_run):
    made = json.loads((tiny_run / "01_profile/values.json").read_text())
    page = browser.new_page()
    page.goto((html / "book/intro.html").as_uri())
    tip, link = (
        page.locator("[role=tooltip]"),
        page.locator("a.paper-value[data-tip*='gini_without ']").first,
    )
    assert tip.is_hidden()
    link.focus()
    for part in (
        "Gini: without balance loss",
        columns_about.digits(made["values"]["gini_without"]["value"]),
        "measured and computed on",
        "run: tests",
        "parameters: ",
        "published run: ",
        made["provenance"]["commit"][:12],
        made["provenance"]["hardware"],
    ):
        assert part in tip.inner_text()
    assert link.get_attribute("aria-describedby") == tip.get_attribute("id")
    page.keyboard.press("Tab")
    assert "01.gini_without" not in tip.inner_text() and tip.is_visible()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    link.hover()
    assert tip.is_visible()
    page.mouse.move(1, 1)
    assert tip.is_hidden()
    page.close()
    touch = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844}).new_page()
    touch.goto((html / "book/intro.html").as_uri())
    link = touch.locator("a.paper-value[data-tip*='00.parameters_m ']").first
    link.tap()
    box = touch.locator("[role=tooltip]").bounding_box()
    assert touch.url.endswith("intro.html") and box["x"] >= 0 and box["x"] + box["width"] <= 390
    link.tap()
    touch.wait_for_url("**/notebooks/00_base_model.html#cell-*")
    touch.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_prints_on_twelve_pages(html, name, chromium, tmp_path):
    assert 1 < pdf.printed(html, [name], tmp_path / "chapter.pdf") <= 12


@pytest.mark.browser
def test_a_word_explains_itself_and_leads_to_the_glossary(browser, html):
    page = browser.new_page()
    page.goto((html / "notebooks/01_profile.html").as_uri())
    word = page.locator("a.paper-term", has_text="Gini").first
    word.focus()
    assert "How uneven" in page.locator("[role=tooltip]").inner_text()
    word.click()
    page.wait_for_url("**/book/notation.html#term-*")
    page.close()


def test_every_chapter_can_be_downloaded_as_it_was_executed(html):
    for name in CHAPTERS:
        stem = name.split("/")[1]
        assert f'href="{stem}.ipynb" download' in (html / f"{name}.html").read_text()
        cells = json.loads((html / f"{name}.ipynb").read_text())["cells"]
        assert any(cell.get("outputs") for cell in cells)


@pytest.mark.browser
def test_search_finds_a_word(browser, html):
    page = browser.new_page()
    page.goto((html / "search.html").as_uri() + "?q=predecessor")
    page.wait_for_selector("#search-results li a")
    assert "wire" in page.locator("#search-results").inner_text()
    page.close()


STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible(browser, html, name):
    """axe-core finds nothing serious: contrast, labels, order, names of regions that scroll; and in
    the dark, where only colours differ, of contrast.

    Transitions are off: a colour on its way from one scheme to the other is nobody's contrast.
    """
    context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto((html / f"{name}.html").as_uri())
    page.add_style_tag(content=STILL)
    for scheme, rules in (("light", ""), ("dark", "color-contrast")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)
        assert violations(page, rules) == []
    context.close()


@pytest.mark.browser
def test_an_interactive_figure_has_a_static_twin(browser, html):
    address = (html / "notebooks/01_profile.html").as_uri()
    page = browser.new_page()
    page.goto(address)
    figure = page.locator("figure:has(.paper-explore)").first
    figure.locator("summary").click()
    page.wait_for_selector(".paper-explore .plot-container")
    assert figure.locator("> svg").is_visible()
    assert figure.locator(".paper-plot .heatmaplayer image").count() == 1
    before = figure.locator(".heatmaplayer image").get_attribute("href")
    figure.get_by_label("what the figure shows").select_option(index=3)
    page.wait_for_function(
        "b => document.querySelector('.heatmaplayer image').getAttribute('href') !== b", arg=before
    )
    page.emulate_media(media="print")
    assert figure.locator("> svg").is_visible() and figure.locator(".paper-plot").is_hidden()
    assert not page.locator(".bd-sidebar-primary").is_visible()
    page.close()
    without = browser.new_context(java_script_enabled=False).new_page()
    without.goto(address)
    assert (
        without.locator("#fig-load > svg").is_visible()
        and without.locator("#fig-load .paper-plot").is_hidden()
    )
    assert "gini_without" in without.locator("a.paper-value").first.get_attribute("title")
    without.context.close()


BARE = """[...document.querySelectorAll('.bd-article div.cell')].filter(cell =>
  !cell.querySelector('.cell_output') && cell.nextElementSibling?.matches('.paper-anchor')
  && cell.nextElementSibling.nextElementSibling?.matches('div.cell:has(> details.hide)')).length"""


@pytest.mark.browser
def test_on_a_phone_a_touch_enlarges_a_figure_and_code_alone_joins_the_next_cell(browser, html):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((html / "notebooks/04_network.html").as_uri())
    assert page.evaluate(BARE) == 0
    figure = page.locator(".paper-figure > svg:not(.paper-drawing)").first
    small = figure.bounding_box()["width"]
    figure.click(position={"x": 20, "y": 20})
    assert small <= 390 and figure.bounding_box()["width"] > 1.5 * small
    figure.click(position={"x": 20, "y": 20})
    assert figure.bounding_box()["width"] == small
    page.close()


def test_values_in_prose_are_those_of_the_run(tiny_run, html):
    made = json.loads((tiny_run / "01_profile/values.json").read_text())
    page = (html / "book/intro.html").read_text()
    shown = re.search(
        r'#cell-\d+" title="[^"]*01\.gini_without = ([\d.]+), measured[^"]*">([^<]+)</a>',
        page,
    )
    assert (
        shown[1] == columns_about.digits(made["values"]["gini_without"]["value"])
        and shown[2] == made["values"]["gini_without"]["text"]
    )
    assert "not available in this run" not in page


def test_figures_have_captions_and_alternative_texts(html):
    for name in CHAPTERS:
        page = (html / f"{name}.html").read_text()
        figures = re.findall(r'<figure class="paper-figure".*?</figure>', page, flags=re.S)
        assert figures
        for figure in figures:
            assert re.search(r'role="img" aria-label="[^"]{30,}"', figure) and re.search(
                r"<figcaption>.{30,}", figure, flags=re.S
            )


def test_the_page_shows_the_executed_copy(html):
    page = (html / "notebooks/04_network.html").read_text()
    assert "peak memory" in page and "Supported:" in page and "communication" in page


def test_markup_in_a_value_is_text():
    chapter = {
        "chapter": "07_x",
        "provenance": {
            "commit": "c",
            "hardware": "<script>",
            "run": dict(name="<script>", parameters_file="<script>"),
        },
        "values": {
            "a": dict(
                value="<script>",
                unit="",
                kind="measured",
                interval=None,
                text="<script>",
                fmt="",
                cell=3,
            ),
            "b": dict(
                value=1.0,
                unit="s",
                kind="measured",
                interval=[0.5, 1.5],
                text="1.0",
                fmt=".1f",
                cell=3,
            ),
        },
    }
    assert "<script>" not in roles.value_html(chapter, "a", "x.html")
    assert ">1.0 s [0.5, 1.5]</a>" in roles.value_html(chapter, "b", "x.html")
    chapter["values"]["b"] |= dict(value=None, interval=None, text="not available")
    assert ">not available</a>" in roles.value_html(chapter, "b", "x.html")
    chapter["values"]["a"] |= dict(text="03_x/runs/1d/model")
    assert "><code>03_x/runs/1d/model</code></a>" in roles.value_html(chapter, "a", "x.html")


def test_scripts_stand_in_the_book_with_their_licences(html):
    static = html / "_static"
    for name, size, licence in (("plotly-cartesian.min", 1e6, "MIT"), ("tex-svg", 2e6, "Apache")):
        assert (static / f"{name}.js").stat().st_size > size
        assert licence in (static / f"{name.removesuffix('.min')}.LICENSE.txt").read_text()
