"""What is published of a run: pictures once, and when a later library counts as having changed
nothing.
"""

import json
import os
import shutil
import signal
import sys

import pytest
from conftest import ROOT

from lib import provenance
from lib.paper import chapters, markup, publish, stale


def test_a_picture_lies_once_and_comes_back(tmp_path):
    (tmp_path / "figures").mkdir()
    drawing = '<svg viewBox="0 0 1 1"><path d="M 0 0"/></svg>'
    (tmp_path / "figures/load.svg").write_text(drawing)
    known = {"caption": "Load.", "alt": 'ρ of "with"', "file": "figures/load.svg"}
    copy = json.dumps({"html": markup.figure("load", drawing, known)})
    thin = publish.pictures(copy, tmp_path, {"load": known}, inside=False)
    assert "path" not in thin and '<svg data-figure="load"></svg>' in json.loads(thin)["html"]
    assert publish.pictures(thin, tmp_path, {"load": known}, inside=True) == copy


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A copy of the published profile whose library has changed since: its folder, and its run at
    the defaults.
    """
    shutil.copytree(
        ROOT / "data/reference/01",
        tmp_path / "01",
        ignore=shutil.ignore_patterns("*.npz", "*.csv.xz"),
    )
    (tmp_path / "01" / stale.CONFIRMED).unlink(missing_ok=True)
    monkeypatch.setattr(chapters, "PUBLISHED", tmp_path)
    record = json.loads(provenance.text(tmp_path / "01/quick.json.xz"))
    record["provenance"]["sources"]["lib/stats.py"] = "changed"
    monkeypatch.setattr(chapters, "sources", lambda chapter: record["provenance"]["sources"])
    return tmp_path, record


def changed(run) -> list[str]:
    return [
        name
        for name in stale.since(run, json.loads((run / "01/values.json").read_text()))
        if "." in name and "/" in name
    ]


def test_a_change_that_leaves_every_value_is_no_staleness(published):
    run, record = published
    before = (run / "01/quick.json.xz").read_bytes()
    assert "lib/stats.py" in changed(run)
    assert publish.publish(run / "mine", record).name == stale.CONFIRMED
    assert "lib/stats.py" not in changed(run) and (run / "01/quick.json.xz").read_bytes() == before
    record["provenance"]["sources"]["lib/stats.py"] = "changed again"
    assert "lib/stats.py" in changed(run)


def test_a_change_of_one_value_is_staleness(published):
    run, record = published
    publish.publish(run / "mine", record)
    record["values"]["gini_without"]["value"] *= 1.1
    record["values"]["gini_without"]["interval"] = None
    assert publish.publish(run / "mine", record).name == "quick.json.xz"
    assert "lib/stats.py" in changed(run) and not (run / "01" / stale.CONFIRMED).exists()


def test_a_changed_tag_or_file_is_staleness_and_prose_is_not(published, monkeypatch):
    run, _ = published
    record = json.loads((run / "01/values.json").read_text())
    record["provenance"]["files"] = {"data/corpus.csv.xz": "0" * 64}
    assert "data/corpus.csv.xz" in stale.since(run, record)
    record["provenance"]["sources"]["lib/paper/plots.py"] = "0" * 64  # as an older run noted it
    assert "lib/paper/plots.py" not in stale.since(run, record)
    monkeypatch.undo()
    notebook = json.loads(json.dumps(chapters._notebook("01_profile")))
    monkeypatch.setattr(chapters, "_notebook", lambda chapter: notebook)
    before = chapters.fingerprint("01_profile")
    prose = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    chapters.sources.cache_clear()
    prose["source"] = ["# Another question?\n"]
    assert chapters.fingerprint("01_profile") == before
    chapters.sources.cache_clear()
    code[-1]["metadata"]["tags"] = ["remove-cell"]
    tagged = chapters.fingerprint("01_profile")
    chapters.sources.cache_clear()
    code[-1]["source"] = [*code[-1]["source"], "\n1\n"]
    assert len({before, tagged, chapters.fingerprint("01_profile")}) == 3
    chapters.sources.cache_clear()


def test_a_run_at_the_papers_own_parameters_confirms_it(published):
    run, quick = published
    record = json.loads((run / "01/values.json").read_text())
    record["provenance"]["sources"] = quick["provenance"]["sources"]
    before = (run / "01/quick.json.xz").read_bytes()
    assert publish.confirm(record).empty and "lib/stats.py" not in changed(run)
    note = json.loads((run / "01" / stale.CONFIRMED).read_text())
    assert note["at"] == "the paper's parameters" and note["sources"]["lib/stats.py"] == "changed"
    record["values"]["gini_without"] |= {"value": 9.0, "interval": None}
    (run / "01" / stale.CONFIRMED).unlink()
    bad = publish.confirm(record)
    assert bad[["value", "verdict"]].to_numpy().tolist() == [["gini_without", "differs"]]
    assert not (run / "01" / stale.CONFIRMED).exists()
    assert (run / "01/quick.json.xz").read_bytes() == before
    del record["values"]["gini_with"]
    assert set(publish.confirm(record).verdict) == {"differs", "not there"}
    record["provenance"]["parameters"]["batches"] = 77
    assert publish.confirm(record).verdict.tolist() == ["not published so"]


@pytest.fixture
def run(published, tmp_path):
    """A run whose profile differs from the published one: its folder and record."""
    home, _ = published
    folder = tmp_path / "mine"
    shutil.copytree(home / "01", folder / "01_profile")
    (folder / "01_profile/quick.json.xz").unlink()
    packed = folder / "01_profile/01_profile.ipynb.xz"
    (folder / "01_profile.ipynb").write_text(provenance.text(packed))
    packed.unlink()
    record = json.loads((folder / "01_profile/values.json").read_text())
    record["values"]["gini_without"]["value"] = 9.0
    (folder / "01_profile/new.csv").write_text("a,b\n" + "1,2\n" * 40_000)
    return folder, record


def test_publishing_replaces_the_whole_chapter_and_keeps_its_quick_run(published, run):
    home, (folder, record) = published[0], run
    quick = (home / "01/quick.json.xz").read_bytes()
    (home / "01/gone.csv").write_text("of an older library")
    target = publish.publish(folder, record)
    made = json.loads((target / "values.json").read_text())
    assert made["values"]["gini_without"]["value"] == 9
    assert (target / "quick.json.xz").read_bytes() == quick
    assert (target / "new.csv.xz").is_file() and not (target / "gone.csv").exists()
    assert (target / "01_profile.ipynb.xz").is_file()
    assert {path.name for path in home.iterdir()} == {"01", "mine"}


def test_what_cannot_be_published_leaves_the_published_as_it_is(published, run):
    home, (folder, record) = published[0], run
    before = {path: path.read_bytes() for path in (home / "01").rglob("*") if path.is_file()}
    for refused in (home, home / "."):
        with pytest.raises(ValueError, match="is the published run"):
            publish.publish(refused, record)
    with pytest.raises(ValueError, match="01_profile: 2 runs left: must have nothing left"):
        publish.publish(folder, record | {"left": "2 runs left"})
    (folder / "01_profile.ipynb").unlink()
    with pytest.raises(FileNotFoundError):
        publish.publish(folder, record)
    after = {path: path.read_bytes() for path in (home / "01").rglob("*") if path.is_file()}
    assert after == before


def killed_before(step, folders, action):
    """Do something in a process of its own that is killed before its `step`-th renaming or removal
    of one of these folders; whether it ended before that.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def watch(event, arguments):
            if event in ("os.rename", "shutil.rmtree") and str(arguments[0]) in folders:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        action()
        os._exit(0)
    return os.WIFEXITED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_step_of_publishing_leaves_the_old_or_the_new_chapter_whole(published, run):
    home, (folder, record) = published[0], run
    names = ("01", ".old-01", ".part-01")

    def whole(name):
        files = sorted(path for path in (home / name).rglob("*") if path.is_file())
        return {str(path.relative_to(home / name)): path.read_bytes() for path in files}

    def publishing():
        publish.publish(folder, json.loads(json.dumps(record)))

    shutil.copytree(home / "01", home / "kept")
    old = whole("01")
    publishing()
    new = whole("01")
    assert new != old
    for step in range(9):
        shutil.rmtree(home / "01")
        shutil.copytree(home / "kept", home / "01")
        if killed_before(step, {str(home / name) for name in names}, publishing):
            break
        assert whole("01" if (home / "01").is_dir() else ".old-01") in (old, new)
        publishing()
        assert whole("01") == new
        assert {path.name for path in home.iterdir()} == {"01", "kept", "mine"}
    assert 4 <= step < 9


def test_what_an_explorer_draws_is_one_line_of_a_record():
    figure = {"alt": "a", "interactive": {"data": [1, 2], "of": "@other"}}
    record = {"figures": {"one": figure, "other": figure, "plain": {"alt": "b"}}, "values": {}}
    text = publish.written(record)
    assert json.loads(text) == record and text.count('{"data": [1, 2]') == 2
