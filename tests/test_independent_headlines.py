"""Ten headline values, recomputed without the library: to the digits that the book prints."""

from pathlib import Path

import independent_headlines as own
import pytest

SCRIPTS = sorted(Path(own.__file__).parent.glob("independent_*.py"))


def test_ten_of_ten_to_the_printed_digits():
    found = own.headlines()
    assert len(found) == 10
    for name, value in found.items():
        told = own.published(name[:2])[name[3:]]
        assert f"{value:{told['fmt']}}" == told["text"], name


def test_their_intervals_cover_models_and_clusters_of_documents():
    for name, row in own.over_pairs().items():
        told = own.published("06")[name]
        assert row["value"] == pytest.approx(told["value"], abs=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(told["interval"], abs=1e-5)


@pytest.mark.parametrize("name", ["unpacked", "recomputed", *(path.stem for path in SCRIPTS)])
def test_what_recomputes_uses_nothing_of_the_library(name):
    text = (SCRIPTS[0].parent / f"{name}.py").read_text()
    assert "import lib" not in text and "from lib" not in text
