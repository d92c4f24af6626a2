"""The published run after a change of the library: recomputed, confirmed, or named."""

import json

import small


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_needs_no_gpu_is_renewed_and_the_rest_is_named(tmp_path):
    repository = small.repository(tmp_path / "small")
    first, second = (repository / f"notebooks/{name}.ipynb" for name in ("00_first", "01_second"))
    edited(first, '"paper": {}', '"paper": {"gpu": true}')
    done = small.ended(small.computing(repository, "mine", level=2.0))
    assert done.returncode == 0, done.stderr[-2000:]
    published = small.command(repository, "publish", "mine")
    assert len(published.stdout.splitlines()) == 2, published.stderr
    assert small.command(repository, "renew").stdout.splitlines() == [
        "00_first: up to date",
        "01_second: up to date",
    ]

    edited(repository / "lib/paper/columns.py", '"""How', '"""Just how')  # how a result looks
    edited(repository / "lib/paper/ranges.py", '"""What', '"""Just what')
    assert small.command(repository, "list").stdout.count("stale") == 0
    edited(repository / "lib/paper/params.py", '"""Parameters', '"""The parameters')
    told = small.command(repository, "renew")
    assert told.returncode == 1 and told.stdout.splitlines()[:3] == [
        "01_second: recomputed, every value unchanged: confirmed",
        "00_first: at the paper's parameters on a GPU:",
        "  CHAPTERS='00_first' notebooks/gpu.sh execute OUT",
    ]
    assert small.ran(told) == ["01_second (1 of 1)"]
    listed = small.command(repository, "list").stdout
    assert "reference: 00 (stale), 01\n" in listed
    read = json.loads((repository / "_build/runs/renewed/01_second/values.json").read_text())
    assert list(read["provenance"]["files"]) == ["data/reference/00/table.csv"]

    edited(second, "len(found[0].read_text())", "1 + len(found[0].read_text())")
    told = small.command(repository, "renew")
    assert told.returncode == 1
    assert told.stdout.startswith("01_second: recomputed, differs in length; see ")
    before = (repository / "data/reference/01/values.json").read_bytes()
    refused = small.command(repository, "confirm", "renewed")
    assert refused.returncode == 1 and "01_second: not confirmed" in refused.stdout
    assert (repository / "data/reference/01/values.json").read_bytes() == before
    small.command(repository, "publish", "renewed", "--only", "01")
    assert (repository / "data/reference/01/values.json").read_bytes() != before
    assert small.command(repository, "confirm", "renewed").stdout == "01_second: confirmed\n"
