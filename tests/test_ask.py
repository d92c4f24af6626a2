"""The box "What about my model?": in a browser what the library says, with keyboard and without a
script.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from conftest import violations

from lib.commands import advice, advise, deciding, level
from lib.network import step, synthetic
from lib.paper import markup

STATIC = Path(__file__).parents[1] / "book/_static"
MACHINES = {card: advise.machine(card) for card in advise.CARDS}
RULES, PRICES, SHAPES = deciding.Rules(), advice.prices(), step.models()
TYPED = {"experts": 64, "k": 8, "level": 0.25, "devices": 16, "tokens": 512, "spare": 1}


def case(shape, experts, k, level_, devices, tokens, card, spare, family="power"):
    model = replace(SHAPES[shape], shape=replace(SHAPES[shape].shape, experts=experts, k=k))
    net = advise.cluster(devices, MACHINES[card])
    return level.Case(experts, k, tokens, level_, family, net, MACHINES[card], model, spare)


EXAMPLE = case("Qwen3-30B-A3B", 128, 8, 0.3, 32, 2048, "h200", 1)


def points(number, rng):
    """Arguments of `case` that the library takes, of all families, cards and shapes."""
    found = []
    while len(found) < number:
        devices = rng.choice([2, 3, 4, 8, 16, 32])
        experts = devices * rng.randint(1, 128 // devices)
        family = rng.choice(synthetic.FAMILIES)
        k = rng.randint(1, min(8, experts - 1))
        most = synthetic.highest_level(experts, k, family)
        if most > 0:
            gini, tokens = rng.uniform(0, 0.999 * most), round(2 ** rng.uniform(0, 13))
            gini = rng.choice([0.0, gini, min(round(gini, 2), 0.999 * most)])
            spare = rng.randint(0, min(2, experts - experts // devices))
            about = rng.choice(list(SHAPES)), experts, k, gini, devices, tokens
            found.append((*about, rng.choice(list(MACHINES)), spare, family))
    return found


def asked(shape, experts, k, level_, devices, tokens, card, spare, *_):
    names = "shape", "experts", "k", "level", "devices", "tokens", "card", "spare"
    return dict(zip(names, (shape, experts, k, level_, devices, tokens, card, spare), strict=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The box on a page of its own."""
    constants = level.as_json(level.constants(MACHINES, RULES, PRICES, advise.PER_NODE, EXAMPLE))
    rows = level.families(EXAMPLE, RULES, PRICES)
    box = markup.ask(constants, level.example(EXAMPLE, rows)).data
    page = tmp_path_factory.mktemp("ask") / "page.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>box</title>'
        '<meta name="viewport" content="width=device-width">'
        f'<link rel="stylesheet" href="{(STATIC / "paper.css").as_uri()}"></head><body>'
        f'<main><h1>box</h1>{box}</main><script src="{(STATIC / "advice.js").as_uri()}"></script>'
        "</body></html>"
    )
    return page.as_uri()


@pytest.mark.browser
def test_two_hundred_answers_are_those_of_the_library(browser, place):
    page = browser.new_page()
    page.goto(place)
    drawn = points(200, random.Random(0))
    found = page.evaluate(
        """drawn => {
            const known = JSON.parse(document.querySelector(".paper-advice").dataset.known);
            return drawn.map(([asked, family]) => paperAdvice.answer(known, asked, family));
        }""",
        [[asked(*point), point[-1]] for point in drawn],
    )
    for point, row in zip(drawn, found, strict=True):
        wanted = level.answer(case(*point), RULES, PRICES)
        for name, value in wanted.items():
            if isinstance(value, str):
                assert row[name] == value, (point, name)
            elif value == value:  # without spare slots there are no copies
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-11), (point, name)
    page.close()


@pytest.mark.browser
def test_sentences_and_refusals_are_those_of_the_library(browser, place):
    page = browser.new_page()
    page.goto(place)
    rng = random.Random(1)
    for point in points(20, rng):
        own = case(*point)
        rows = level.families(own, RULES, PRICES)
        told = page.evaluate(
            """asked => {
                const known = JSON.parse(document.querySelector(".paper-advice").dataset.known);
                const rows = paperAdvice.families(known, asked);
                return [paperAdvice.refused(known, asked), paperAdvice.advised(known, rows),
                  paperAdvice.rests(known, asked)];
            }""",
            asked(*point),
        )
        assert told == ["", level.advised(rows), level.rests(own)]
    wrong = [dict(devices=12), dict(devices=1), dict(k=128), dict(level=0.95), dict(spare=125)]
    for change in [*wrong, dict(tokens=0), dict(experts=2.5), dict(level=float("nan"))]:
        known = asked("Qwen3-30B-A3B", 128, 8, 0.3, 32, 2048, "h200", 1) | change
        refused = "asked => paperAdvice.refused(JSON.parse(\
            document.querySelector('.paper-advice').dataset.known), asked)"
        assert page.evaluate(refused, known) != "", change
        if not any(value != value or value == 2.5 for value in change.values()):
            flags = [f"--gini={known['level']}", f"--experts={known['experts']}"]
            flags += [f"--devices={known['devices']}", f"--tokens={known['tokens']}"]
            flags += [f"--top-k={known['k']}", f"--slots={4 + known['spare']}"]
            with pytest.raises(ValueError, match="advise: --"):
                advise.of_gini(advise.parsed(flags))
    page.close()


@pytest.mark.browser
def test_it_is_typed_kept_in_the_address_and_shown_again(browser, place):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{place}#my-model")
    output = page.locator(".paper-advice [aria-live]")
    first = output.inner_text()
    page.keyboard.press("Tab")
    for name in ["shape", *TYPED]:
        page.locator(f"#my-model-{name}").focus()
        if name in TYPED:
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(str(TYPED[name]))
    shown = output.inner_text()
    own = case("Qwen3-30B-A3B", 64, 8, 0.25, 16, 512, "h200", 1)
    rows = level.families(own, RULES, PRICES)
    assert shown != first and all(line in shown for line in level.advised(rows))
    state = parse_qs(page.url.partition("?")[2])
    assert {name: state[name] for name in TYPED} == {n: [str(v)] for n, v in TYPED.items()}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    again = browser.new_page()
    again.goto(page.url)
    assert again.locator(".paper-advice [aria-live]").inner_text() == shown
    page.locator("#my-model-devices").fill("7")
    assert output.inner_text() == "devices: must be 2 or more and divide 64 experts"
    page.goto(f"{place}#my-model?devices=x&shape=no&experts=")
    assert "must be" in output.inner_text() and errors == []
    again.close()
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(browser, place, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(place)
    page.evaluate("scheme => document.documentElement.dataset.theme = scheme", scheme)
    assert violations(page) == []
    context.close()


@pytest.mark.browser
def test_on_paper_and_without_a_script_an_answer_stands(browser, place):
    page = browser.new_page()
    page.goto(place)
    page.emulate_media(media="print")
    assert not page.locator(".paper-advice form").is_visible()
    assert "Qwen3-30B-A3B" in page.locator(".paper-advice").inner_text()
    page.close()
    without = browser.new_context(java_script_enabled=False).new_page()
    without.goto(place)
    text = without.locator(".paper-advice").inner_text()
    rows = level.families(EXAMPLE, RULES, PRICES)
    assert level.advised(rows)[0] in text and "32 devices" in text
    without.context.close()


def test_constants_are_json():
    known = level.constants(MACHINES, RULES, PRICES, advise.PER_NODE, EXAMPLE)
    again = json.loads(level.as_json(known))
    assert again["example"] == asked("Qwen3-30B-A3B", 128, 8, 0.3, 32, 2048, "h200", 1)
    assert again["families"].keys() == set(synthetic.FAMILIES)
