"""Data that differ from their inventory are named before anything is computed."""

import gzip
import hashlib
import json
import lzma
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
from conftest import ROOT

from lib.paper import chapters, intact, stale, values


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


PACKERS = {".xz": lzma, ".gz": gzip}


def rewritten(path, change):
    """A table or JSON file, packed or not, with its text changed and well packed again."""
    packer = PACKERS.get(path.suffix)
    content = packer.decompress(path.read_bytes()) if packer else path.read_bytes()
    changed = change(content.decode())
    assert changed != content.decode()
    path.write_bytes(packer.compress(changed.encode()) if packer else changed.encode())


def rows_lost(path):
    rewritten(path, lambda text: "".join(text.splitlines(keepends=True)[:-3]))


def digit_changed(path):
    """The last digit of the file becomes another one."""
    rewritten(path, lambda text: _with_digit(text, max(map(text.rfind, "123456789"))))


def _with_digit(text, at):
    return text[:at] + str(int(text[at]) % 9 + 1) + text[at + 1 :]


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-9])


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("corpus.csv.xz", rows_lost),
        ("model/held_out_with.csv.xz", rows_lost),
        ("measured/nvidia-h200-x2/exchange.csv.xz", rows_lost),
        ("measured/nvidia-h200-x2/layer.csv.xz", digit_changed),
        ("measured/nvidia-h200-x2/compute.json", digit_changed),
        ("published/shapes.csv", digit_changed),
        ("model/bars.csv", digit_changed),
        ("model/with/config.json", digit_changed),
        ("model/with/model.safetensors.packed", one_bit),
        ("model/tokenizer.json.xz", cut_off),
        ("measured/nvidia-h200-x2/native.csv.xz", cut_off),
        ("published/step.csv", emptied),
        ("reference/01/trace_with.npz", one_bit),
        ("reference/03/values.json", digit_changed),
        ("reference/ladder/pairs.packed", Path.unlink),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_damage_is_named_before_a_chapter_reads_it(file, damage, tmp_path):
    """What went silently into the values, or ended in the words of gzip, pandas or json."""
    name, copy = f"data/{file}", tmp_path / "data" / file
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / name, copy)
    shutil.copy(ROOT / "data/manifest.csv", tmp_path / "data")
    assert intact.changed([name], tmp_path) == []
    damage(copy)
    why = "changed" if copy.exists() else "missing"
    assert intact.changed([name], tmp_path) == [f"{name} ({why})"]
    read = [place for chapter in chapters.names() for place in intact.places(chapter)]
    assert any(name == place or name.startswith(f"{place}/") for place in read)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A small one whose first chapter reads a file below data."""
    folder = small.repository(tmp_path_factory.mktemp("changed") / "small")
    (folder / "data").mkdir()
    (folder / "data/bars.csv").write_text("bar,level\na,1\n")
    digest = hashlib.sha256((folder / "data/bars.csv").read_bytes()).hexdigest()
    listed = f"file,sha256,origin,licence\nbars.csv,{digest},here,MIT\n"
    (folder / "data/manifest.csv").write_text(listed)
    source = folder / "notebooks/00_first.ipynb"
    notebook = json.loads(source.read_text())
    notebook["metadata"]["paper"]["reads"] = ["data/bars.csv"]
    source.write_text(json.dumps(notebook))
    return folder


def test_a_command_refuses_changed_data_and_tells_those_changed_on_purpose(repository):
    (repository / "data/bars.csv").write_text("bar,level\na,2\n")
    refused = small.command(repository, "run", "--name", "changed", "--only", "00")
    rule = "must be as data/manifest.csv lists it; restore it, or say --changed-data\n"
    assert refused.returncode == 2 and refused.stderr == f"data: data/bars.csv (changed): {rule}"
    run = repository / "_build/runs/changed"
    assert not run.exists()
    small.command(repository, "run", "--name", "changed", "--only", "00", "--changed-data")
    facts = json.loads((run / "00_first/values.json").read_text())["provenance"]
    assert facts["changed_data"] == ["data/bars.csv (changed)"]


def test_the_published_run_is_not_shown_where_it_was_altered(repository):
    (repository / "data/reference/00").mkdir(parents=True)
    (repository / "data/reference/00/values.json").write_text("{}")
    refused = small.command(repository, "run", "--name", "reference")
    told = "data: data/reference/00/values.json (not listed): must be as data/manifest.csv lists"
    assert refused.returncode == 2 and refused.stderr.startswith(told)
    shutil.rmtree(repository / "data/reference")


def test_what_a_run_left_is_named_where_it_was_altered(tmp_path):
    """Before another chapter, a page or the published run takes it."""
    (tmp_path / "01_profile").mkdir()
    trace = tmp_path / "01_profile/trace_with.npz"
    trace.write_bytes(b"routes of a run")
    stale.note(tmp_path, "01_profile")
    assert stale.altered(tmp_path, "01_profile") == []
    one_bit(trace)
    assert stale.altered(tmp_path, "01_profile") == ["01_profile/trace_with.npz"]
