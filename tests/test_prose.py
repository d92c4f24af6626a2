"""No number in the book's prose is typed by hand."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    r"\b5-gram\b",
    r"\barXiv[: ]\S+",
    r"\b(19|20)\d\d\b",
    r"\bPython 3\.\d+\b",
    r"\bSHA-256\b",
    r"\b\d+(th|st) percentile\b",
    r"\bP(50|95|99)\b",
    r"\bH\d[ab]?\b",
]


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def typed(text: str) -> list[str]:
    """Lines with digits that are none of the allowed kinds."""
    for pattern in ALLOWED:
        text = re.sub(pattern, " ", text, flags=re.S)
    return [line.strip() for line in text.splitlines() if re.search(r"\d", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_prose_has_no_typed_number(path):
    assert typed(prose(path)) == []


def test_the_finder_finds():
    text = (
        "Gini is 0.53 here.\n{val}`01.gini` and `x = 3` and $k=2$ and 2024.\nIt takes 17 % longer."
    )
    assert typed(text) == ["Gini is 0.53 here.", "It takes 17 % longer."]
