"""No number in the book's prose is typed by hand."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
# Kinds of numbers that are definitions or names, not results.
ALLOWED = [
    r"```.*?```",
    r"`[^`]*`",
    r"\$\$.*?\$\$",
    r"\$[^$]*\$",
    r"\{[a-z:]+\}`[^`]*`",
    r"\]\([^)]*\)",
    r"https?://\S+",
    r'href="[^"]*"',
    r"\b5-gram\b",
    r"\barXiv[: ]\S+",
    r"\b(19|20)\d\d\b",
    r"\bPython 3\.\d+\b",
    r"\bSHA-256\b",
    r"\b\d+(th|st)\b",
    r"\bP(50|95|99)\b",
    r"\b(OLMoE|Mixtral|Qwen3|DeepSeek|gpt-oss)\S*",
    r"\bH\d[ab]?\b",
    r"\b95 %",
]
SAID = {"figure": ("caption", "alt"), "table": ("caption",), "claim": ("text",)}


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def words(node: ast.AST) -> list[str]:
    """The texts below a node, without what is computed into them."""
    if isinstance(node, ast.FormattedValue):
        return []
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [word for part in ast.iter_child_nodes(node) for word in words(part)]


def said(path: Path) -> list[str]:
    """Captions, alternative texts and claims of a notebook, as typed in its cells."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        for call in calls:
            method = getattr(call.func, "attr", "")
            if method not in SAID or ast.unparse(call.func) != f"chapter.{method}":
                continue
            parts = [word.value for word in call.keywords if word.arg in SAID[method]]
            parts += call.args[1:2] if method == "claim" else []
            found.append(" ".join(word for part in parts for word in words(part)))
        loops = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For)]
        for loop in loops:  # for claim in (("name", "text", "predicate"), …): chapter.claim(*claim)
            if ast.unparse(loop.body[0]).startswith("chapter.claim(*"):
                rows = getattr(loop.iter, "elts", [])
                found += [" ".join(words(row.elts[1])) for row in rows]
    return found


def typed(text: str) -> list[str]:
    """Lines with digits that are none of the allowed kinds."""
    for pattern in ALLOWED:
        text = re.sub(pattern, " ", text, flags=re.S)
    return [line.strip() for line in text.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_prose_has_no_typed_number(path):
    assert typed(prose(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_captions_and_claims_have_no_typed_number(path):
    texts = said(path)
    assert len(texts) > 3 and [line for text in texts for line in typed(text)] == []


def crowded(text: str, most: int = 3) -> list[str]:
    """Sentences of more than `most` computed values."""
    sentences = re.split(r"(?<=[.?!)])\s+(?=[A-Z*])|\n- |\n\n", text)
    return [part for part in sentences if len(re.findall(r"\{val\}`", part)) > most]


def test_a_sentence_of_the_introduction_has_at_most_three_numbers():
    assert crowded((ROOT / "book/intro.md").read_text()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_sentence_of_an_answer_has_at_most_three_numbers(path):
    first = "".join(json.loads(path.read_text())["cells"][0]["source"])
    assert "**Answer.**" in first and crowded(first) == []


def test_crowded_sentences_are_found():
    four = "From {val}`a` to {val}`b`, then {val}`c` and {val}`d`."
    assert crowded(f"Of {{val}}`x`. {four}\n- So {{val}}`y`.") == [four]


def test_claims_of_a_loop_are_found(tmp_path):
    code = 'for c in (("a", "It is 3.", "x > 0"), ("b", "So.", "y")):\n    chapter.claim(*c)'
    page = tmp_path / "x.ipynb"
    page.write_text(json.dumps(dict(cells=[dict(cell_type="code", source=[code])])))
    assert said(page) == ["", "It is 3.", "So."]


def test_the_finder_finds():
    text = (
        "Gini is 0.53 here.\n{val}`01.gini` and `x = 3` and $k=2$ and 2024.\nIt takes 17 % longer."
    )
    assert typed(text) == ["Gini is 0.53 here.", "It takes 17 % longer."]
