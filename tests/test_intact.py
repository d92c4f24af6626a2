"""Data that differ from their inventory are named before anything is computed."""

import hashlib
from types import SimpleNamespace

import pytest
from conftest import ROOT

from lib.paper import chapters, intact, values


@pytest.fixture
def home(tmp_path):
    """A repository of three data files."""
    lines = ["file,sha256,origin,licence"]
    for name in ("a/x.csv", "a/y.csv", "b.csv"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        lines.append(f"{name},{hashlib.sha256(name.encode()).hexdigest()},here,MIT")
    (tmp_path / "data/manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_every_kind_of_difference_is_named(home):
    assert intact.changed(["data/a", "data/b.csv"], home) == []
    (home / "data/a/x.csv").write_text("one digit")
    (home / "data/a/y.csv").unlink()
    (home / "data/a/z.csv").write_text("new")
    assert intact.changed(["data/a"], home) == [
        "data/a/x.csv (changed)",
        "data/a/y.csv (missing)",
        "data/a/z.csv (not listed)",
    ]
    assert intact.changed(["data/b.csv"], home) == []


def test_what_differs_is_refused_unless_it_is_on_purpose(home, monkeypatch):
    monkeypatch.setattr(intact.provenance, "repository", lambda: home)
    (home / "data/b.csv").write_text("changed")
    with pytest.raises(ValueError, match=r"data: data/b.csv \(changed\): must be as data/manifest"):
        intact.check(["data/b.csv"])
    monkeypatch.setenv(intact.ON_PURPOSE, "1")
    assert intact.check(["data/b.csv"]) == ["data/b.csv (changed)"]


def test_a_chapter_does_not_begin_with_changed_data(tmp_path, monkeypatch):
    monkeypatch.setattr(intact, "changed", lambda names: list(names)[:1])
    with pytest.raises(ValueError, match="must be as data/manifest.csv lists it"):
        values.Chapter("04_network", SimpleNamespace(run_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chapter", chapters.names())
def test_what_chapters_read_is_as_listed(chapter):
    assert intact.places(chapter) and intact.changed(intact.places(chapter)) == []


def test_all_data_are_as_listed():
    names = [path.name for path in (ROOT / "data").iterdir() if path.suffix != ".py"]
    assert intact.changed(f"data/{name}" for name in names if name != "manifest.csv") == []
