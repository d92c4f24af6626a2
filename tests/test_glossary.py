"""Words of the glossary: read from one place, explained where each first stands on a page."""

from docutils import nodes

from lib.paper import glossary


def page(*blocks):
    made = nodes.document(None, None)
    made.extend(blocks)
    return made


def links(made):
    return [(node.astext(), node["refuri"]) for node in made.findall(nodes.reference)]


def test_every_word_has_a_meaning():
    words = glossary.terms()
    for name in ("MaxVio", "Gini", "P95", "nominal load", "capacity factor", "ρ", "β", "nats"):
        assert len(words[name].split()) > 5, name
    assert "perplexity" in words["nats"] and words["nats"] == words["nats per token"]
    assert words["predecessor"].startswith("An earlier course project")


def test_the_first_place_explains_itself_and_no_other():
    text = nodes.paragraph("", "Gini and MaxVio; the Gini coefficient, again MaxVio.")
    made = page(nodes.title("", "MaxVio"), text, nodes.paragraph("", "MaxVio of P95."))
    glossary.explain(made, lambda word: f"notation.html#{word}")
    assert links(made) == [
        ("Gini", "notation.html#Gini"),
        ("MaxVio", "notation.html#MaxVio"),
        ("P95", "notation.html#P95"),
    ]
    assert text.astext() == "Gini and MaxVio; the Gini coefficient, again MaxVio."
    first = next(made.findall(nodes.reference))
    assert first["reftitle"].startswith("Gini: How uneven")


def test_code_links_and_parts_of_words_stay_and_a_symbol_is_a_word():
    code, link = nodes.literal("", "Gini"), nodes.reference("", "Gini", refuri="x")
    formula = nodes.math(r"\rho", r"\rho")
    made = page(nodes.paragraph("", "", code, link, nodes.Text(" GiniX, nats-like "), formula))
    glossary.explain(made, lambda word: word)
    assert links(made) == [("Gini", "x"), (r"\rho", "ρ")]
