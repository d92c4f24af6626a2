"""The page of claims: totals first, words, links, no code."""

import re

from conftest import ROOT

from lib.commands import declared, hypotheses
from lib.paper import chapters, compare, roles, verdicts


def value(record, name):
    return roles.value_html(record, name, f"../notebooks/{record['chapter']}.html")


def test_every_published_claim_is_told_in_words_with_its_values():
    run = compare.records(chapters.PUBLISHED)
    page = verdicts.page(run, run, value)
    count = sum(len(record["claims"]) for record in run.values())
    assert verdicts.totals(run).startswith(f"{count} claims: ") and page.count("<li ") == count
    told = verdicts.totals(run).partition(": ")[2]
    assert sum(map(int, re.findall(r"\d+", told))) == count
    assert "published run:" not in re.sub(r'title="[^"]*"', "", page)
    seen = re.sub(r"<[^>]*>", "", page)
    assert "_" not in seen and "paper-scroll" not in page  # no names of values, no box that scrolls
    for number, record in run.items():
        assert (f"{record['chapter']}.html#cell-" in page) == bool(record["claims"]), number


def test_a_predicate_is_told_with_values_and_signs():
    record = {"values": {"a": {}, "b_c": {}}}
    told = verdicts.decided(record, "not (a <= 2 * b_c) and -a > 1e-3", lambda _, n: f"[{n}]")
    assert told == "not ([a] ≤ 2 × [b_c]) and − [a] &gt; 1·10⁻³"


def test_what_values_in_per_cent_are_compared_with_is_told_so():
    record = {"values": {"a": {"fmt": ".0%"}, "b": {"fmt": "+.1%"}, "c": {"fmt": ".2f"}}}
    for predicate, wanted in {
        "a >= 0.5 and b > 0": "[a] ≥ 50% and [b] &gt; 0",
        "b <= 0.055": "[b] ≤ 5.5%",
        "a < 2 * b": "[a] &lt; 2 × [b]",
        "a > b / 2": "[a] &gt; [b] / 2",
        "a > 0.5 and c > 0.5": "[a] &gt; 0.5 and [c] &gt; 0.5",
    }.items():
        assert verdicts.decided(record, predicate, lambda _, n: f"[{n}]") == wanted


def test_where_the_published_run_decided_otherwise_it_is_said():
    def run(verdict):
        claim = {"text": "It *holds*.", "predicate": "1 < 2", "verdict": verdict}
        return {"00": {"chapter": "00_base_model", "values": {}, "claims": {"x": claim}}}

    page = verdicts.page(run("supported"), run("undecided"), value)
    assert "<em>The published run: undecided.</em>" in page and "<em>holds</em>" in page
    assert verdicts.totals(run("not run")) == "1 claims: 1 not run."


def test_the_declared_hypotheses_are_said_alike_everywhere():
    page = (ROOT / "book/claims.md").read_text()
    assert list(hypotheses.SAYS) == list(declared.FAMILY)
    for name, words in hypotheses.SAYS.items():
        assert f"| {name} | {words} |" in page


def test_a_claim_in_a_chapter_has_the_colour_of_its_verdict():
    text = '<p class="paper-claim"><strong>Not supported:</strong> that it is <em>so</em>.</p>'
    wanted = text.replace('"paper-claim"', '"paper-claim paper-verdict-not-supported"')
    assert verdicts.marked(text) == wanted and verdicts.marked("<p>Supported:</p>") == (
        "<p>Supported:</p>"
    )
