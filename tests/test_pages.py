"""What the book makes of an executed notebook, and of texts in which roles stand for values."""

import json

import pytest

from lib.paper import columns, markup, pages, sphinxext

SOURCE = [
    {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# New title"},
    {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "source": "n = 1"},
    {"cell_type": "markdown", "id": "c", "metadata": {}, "source": "Added prose."},
    {"cell_type": "code", "id": "d", "metadata": {}, "source": "n + 1"},
]


def code(name, tags=(), outputs=()):
    metadata = {"tags": list(tags)}
    return dict(
        cell_type="code", id=name, metadata=metadata, source=name, outputs=list(outputs)
    ) | dict(execution_count=1)


def copy(*cells):
    return json.dumps({"cells": list(cells), "metadata": {}})


def test_prose_is_that_of_the_source_and_outputs_are_those_of_the_run():
    old = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Old title"}
    injected = code("x", ["injected-parameters"])
    made = copy(old, code("b", ["parameters"]), injected, code("d", outputs=[{"name": "stdout"}]))
    cells = json.loads(pages.fresh(made, SOURCE))["cells"]
    assert [cell["id"] for cell in cells] == ["a", "b", "x", "c", "d"]
    assert cells[0]["source"] == "# New title" and cells[-1]["outputs"] == [{"name": "stdout"}]


def test_a_copy_of_other_code_keeps_the_prose_that_it_was_computed_with():
    made = copy(code("b", ["parameters"]), code("other"))
    assert pages.fresh(made, SOURCE) == made


def test_the_page_leaves_out_progress_and_the_prose_that_it_shows_itself():
    outputs = [
        {"name": "stderr"},
        {"metadata": {"paper": "sentences"}, "data": {"text/markdown": "0.5"}},
        {"data": {"application/vnd.jupyter.widget-view+json": {}}},
        {"data": {"text/html": "kept"}},
    ]
    shown = json.loads(pages.page(copy(code("d", outputs=outputs)), lambda *_: True))["cells"]
    assert shown[1]["outputs"] == [outputs[-1]]
    assert shown[0]["source"] == '<div id="cell-1" class="paper-anchor"></div>'


def test_parameters_are_one_folded_table_with_what_they_mean():
    plain = code("n = 1  # how many\nrun_dir = '.'  # where", ["parameters"])
    injected = code("n = 2\nrun_dir = '/x'", ["injected-parameters"])
    shown = json.loads(pages.page(copy(plain, injected, code("d")), lambda *_: True, "07_x"))
    table = shown["cells"][0]["source"]
    assert [cell["cell_type"] for cell in shown["cells"]] == ["markdown", "markdown", "code"]
    for part in ("<details", "<td>n</td>", "<td>2</td>", "<td>1</td>", "<td>how many</td>"):
        assert part in table, part
    assert "run_dir" not in table and 'href="07_x.ipynb" download' in table


def test_sentences_are_the_paragraphs_that_state_values():
    cells = [
        {
            "cell_type": "markdown",
            "source": "## Answer\n\nIt is {val}`01.x`, by {cite}`key`.\n\nNo.",
        },
        {"cell_type": "code", "source": "{val}`01.x`"},
        {"cell_type": "markdown", "source": "## Nothing here\n\nPlain."},
    ]
    told = {("01", "x"): "0.50"}
    shown = markup.sentences(cells, lambda number, name: told[number, name])
    assert shown == "**Answer**\n\nIt is 0.50, by [key]."


def test_a_heading_stands_above_the_paragraph_that_follows_it():
    cells = [
        {"cell_type": "markdown", "source": "# Title\n\nFirst {val}`01.x`.\n\n## Two\n\nNo."},
        {"cell_type": "markdown", "source": "Then {val}`01.x`.\n\nAgain {val}`01.x`."},
        {"cell_type": "markdown", "source": "## Unused\n### Three\nLast {val}`01.x`."},
    ]
    shown = markup.sentences(cells, lambda number, name: "0.5")
    wanted = ["First 0.5.", "**Two**", "Then 0.5.", "Again 0.5.", "**Three**", "Last 0.5."]
    assert shown.split("\n\n") == wanted


def test_a_box_is_told_by_its_title():
    box = "```{admonition} Takeaway\n:class: tip\nIt is {val}`01.x`.\n```"
    cells = [{"cell_type": "markdown", "source": f"# Title\n\n{box}"}]
    assert markup.sentences(cells, lambda *_: "0.5") == "*Takeaway.* It is 0.5."


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("<p>{val}`01.gini`</p>", ["{val}`01.gini`"]),
        ("<p>{fig}`01.load` and {cite:t}`key`</p>", ["{fig}`01.load`", "{cite:t}`key`"]),
        ("<pre><span>{val}`01.gini`</span></pre> <code>{val}`a`</code> fine", []),
    ],
)
def test_a_role_that_is_left_ends_the_build(body, left, monkeypatch):
    warned = []
    monkeypatch.setattr(sphinxext.logger, "warning", lambda text, *words: warned.append(words))
    sphinxext._no_role_is_left(None, "page", "", {"body": body}, None)
    assert warned == [("page", role) for role in left]


def test_a_table_for_readers_has_words_for_heads_and_the_interval_beside_the_value():
    import pandas as pd

    table = pd.DataFrame(
        {
            "arm": ["with", "without"],
            "gini": [0.21, float("nan")],
            "gini_low": [0.19, float("nan")],
            "gini_high": [0.24, float("nan")],
            "some_count": [3, 12],
            "causal": [True, False],
        }
    )
    shown = columns.readable(table)
    assert shown.columns.tolist() == ["checkpoint", "Gini", "some count", "causal"]
    assert shown.iloc[0].tolist() == ["with balance loss", "0.210 [0.190, 0.240]", "3", "yes"]
    assert shown.iloc[1].tolist() == ["without balance loss", "–", "12", "no"]


def test_numbers_are_told_with_the_labels_of_the_index():
    import pandas as pd

    index = pd.MultiIndex.from_tuples([("re-route", 1.25), ("drop", 1.0)])
    assert columns.told(pd.Series([0.5, 0.25], index, name="gini")) == (
        "re-route, 1.25: 0.500; drop, 1: 0.250"
    )
    table = pd.DataFrame({"gini": [0.5], "p95": [2.0]}, index=["with"])
    assert columns.told(table) == "with: Gini 0.500, busiest over nominal, P95 2.00"


def test_a_loss_is_told_by_its_words():
    import pandas as pd

    table = pd.DataFrame({"loss": ["switch", "bias"], "coefficient": [0.1, 1.0], "nats": [2.0, 3]})
    assert columns.readable(table).loss.tolist() == ["Switch, per layer", "loss-free bias"]
    both = table.set_index(["loss", "coefficient"])
    assert columns.told(both) == "Switch, per layer, 0.1: 2.000; loss-free bias, 1: 3.000"
    assert columns.listed(["max", "gini", "max"]) == "maximum, Gini"
    assert columns.listed([]) == "none"
