"""A page tells when what it was computed from has changed since, and a failed one why it failed."""

import json
import re

import pytest
import small


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return small.repository(tmp_path_factory.mktemp("stale") / "small")


def built(repository, name="r"):
    return repository / "_build/runs" / name / "book/_build/html"


def page(repository, name="notebooks/00_first"):
    return (built(repository) / f"{name}.html").read_text()


def html(repository):
    """Every page, without what differs between equal runs: when, how long, how much memory."""
    when = re.compile(r'<tr class="paper-when">.*?</tr>', re.S)
    return {path.name: when.sub("", path.read_text()) for path in built(repository).rglob("*.html")}


def difference(one, other):
    """Where two texts part, for the message."""
    place = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[place - 80 : place + 80]


def run(repository, *more):
    return small.command(repository, "run", "--name", "r", *more)


def test_a_page_is_stale_renewed_failed_and_started_again(repository):
    first = run(repository)
    assert first.returncode == 0, first.stderr[-2000:]
    pages = html(repository)
    assert len(pages) > 5 and "This page is stale" not in page(repository)
    assert "The level is" in page(repository, "book/intro")

    stats = repository / "lib/stats.py"
    stats.write_text(stats.read_text().replace('"""', '""" ', 1))
    book = run(repository, "--only", "book")
    assert book.returncode == 0 and "==" not in book.stderr
    assert "This page is stale" in page(repository) and "lib/stats.py" in page(repository)

    again = run(repository)
    assert again.returncode == 0 and "== 00_first (1 of 2)" in again.stderr
    assert [
        difference(text, pages[name])
        for name, text in html(repository).items()
        if text != pages[name]
    ] == []

    source = repository / "notebooks/00_first.ipynb"
    whole = source.read_text()
    notebook = json.loads(whole)
    notebook["cells"][3]["source"] = "raise ArithmeticError('on <b>purpose</b>')\n"
    source.write_text(json.dumps(notebook))
    broken = run(repository)
    assert (
        broken.returncode == 1
        and "00_first failed: ArithmeticError: on <b>purpose</b>" in broken.stderr
    )
    text = page(repository)
    assert (
        "Traceback" in text
        and "This chapter failed in this run" in text
        and "<b>purpose" not in text
    )
    assert "The level is" not in page(repository, "book/intro")  # nor a sentence about it

    source.write_text(whole)
    mended = run(repository)
    assert mended.returncode == 0 and small.ran(mended)[0] == "00_first (1 of 2)"
    assert "Traceback" not in page(repository)


def test_a_failure_ends_the_command_with_one_line_and_a_page_that_says_it(repository):
    """Markup in the name of the run and in what failed is text on every page."""
    name, text = "<script>alert(1)<!--", repository / "<script>alert(2)"
    text.write_text("abc")
    given = ("-p", "events=tells", "-p", f"text={text}")
    done = small.command(repository, "run", "--name", name, *given)
    lines = done.stderr.splitlines()
    (at,) = [i for i, line in enumerate(lines) if "00_first failed: ValueError: text = " in line]
    assert done.returncode == 1 and lines[at].endswith("<script>alert(2)")
    assert not list((repository / "_build/runs" / name / "00_first").glob("*.*"))
    where = lines[at + 1].removeprefix("  its page: ")
    told = (built(repository, name) / "notebooks/00_first.html").read_text()
    assert where.endswith("notebooks/00_first.html") and "This chapter failed in this run" in told
    assert "&lt;script&gt;alert(2)" in told
    pages = list(built(repository, name).rglob("*.html"))
    assert len(pages) > 5
    assert [found for found in pages if "<script>alert(" in found.read_text()] == []
