"""Two readers of packed results, written apart, read the same."""

import subprocess
import sys

import pytest
import unpacked
from conftest import ROOT

from lib.model import rows

FILES = sorted((ROOT / "data/reference").rglob("*.packed"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_results_are_read_alike(path):
    assert unpacked.read(path) == rows.read(path)


def test_the_independent_reader_needs_no_lib():
    script = ROOT / "tests/unpacked.py"
    code = f"import sys; sys.modules['lib'] = None; exec(open({str(script)!r}).read())"
    done = subprocess.run([sys.executable, "-c", code, str(FILES[0])], check=True, text=True)
    assert done.returncode == 0
