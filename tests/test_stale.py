"""A page tells when what it was computed from has changed since, in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TINY


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "copy"
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(".git", ".venv", "_build", ".whl", ".carry", "__pycache__"),
    )
    return folder


def run(copy, only="01"):
    flags = [part for item in TINY for part in ("-p", item)]
    command = [
        sys.executable,
        "-m",
        "lib",
        "run",
        "--name",
        "r",
        "--only",
        only,
        "--jobs",
        "64",
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


def page(copy, name="notebooks/01_profile"):
    return (copy / f"_build/runs/r/book/_build/html/{name}.html").read_text()


def html(copy):
    """Every page, without what differs between equal runs: the rows of when, how long and how much
    memory, and what chapter 01 measures as a time, the cost of recording.
    """
    timed = r"paper-when|<td>(?:record|router.logits|plain|cost_\w+)</td>"
    row = rf'<tr(?: class="paper-when")?>(?:(?!</tr>).)*?(?:{timed})(?:(?!</tr>).)*</tr>'
    times = re.compile(
        rf'<tr class="paper-when">.*?</tr>|{row}|<a [^>]*cost_\w+[^>]*>[^<]*</a>', re.S
    )
    return {
        path.name: times.sub("", path.read_text())
        for path in (copy / "_build/runs/r/book").rglob("*.html")
    }


def difference(one, other):
    """Where two texts part, for the message."""
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[place - 80 : place + 80]


def test_a_page_is_stale_renewed_failed_and_started_again(copy):
    first = run(copy)
    assert first.returncode == 0, first.stderr[-2000:]
    pages = html(copy)
    assert len(pages) > 8
    assert "This page is stale" not in page(copy)

    stats = copy / "lib/stats.py"
    stats.write_text(stats.read_text().replace('"""', '""" ', 1))
    book = run(copy, "book")
    assert book.returncode == 0 and "==" not in book.stderr
    assert "This page is stale" in page(copy) and "lib/stats.py" in page(copy)

    again = run(copy)
    assert again.returncode == 0 and "== 01_profile" in again.stderr
    assert [
        difference(text, pages[name]) for name, text in html(copy).items() if text != pages[name]
    ] == []

    source = copy / "notebooks/01_profile.ipynb"
    whole = source.read_text()
    notebook = json.loads(whole)
    notebook["cells"][-3]["source"] = ["raise ArithmeticError('on <b>purpose</b>')\n"]
    notebook["cells"][-3]["cell_type"] = "code"
    notebook["cells"][-3].update(outputs=[], execution_count=None)
    source.write_text(json.dumps(notebook))
    broken = run(copy)
    assert (
        broken.returncode == 1
        and "01_profile failed: ArithmeticError: on <b>purpose</b>" in broken.stderr
    )
    text = page(copy)
    assert (
        "Traceback" in text
        and "This chapter failed in this run" in text
        and "<b>purpose" not in text
    )
    assert "not available in this run" in page(copy, "book/intro")

    source.write_text(whole)
    mended = run(copy)
    assert (
        mended.returncode == 0 and "== 01_profile" in mended.stderr and "== 00" not in mended.stderr
    )
    assert "Traceback" not in page(copy)
