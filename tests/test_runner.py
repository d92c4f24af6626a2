"""What is computed, what is not, and what is left where something ends early."""

import json
import os
import shutil
import signal
import time

import psutil
import pytest
import small

from lib.paper import chapters, compare, order, runner, runs, settings

CHAPTERS = ("00_first", "01_second")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return small.repository(tmp_path_factory.mktemp("a repository") / "small")


@pytest.fixture(scope="module")
def default(repository):
    """Its default run, computed."""
    done = small.ended(small.computing(repository, "default"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert small.ran(done) == ["00_first (1 of 2)", "01_second (2 of 2)"]
    return repository / "_build/runs/default"


def compute(repository, name, *only, **given):
    return small.ended(small.computing(repository, name, *only, **given))


def record(folder, chapter="00_first"):
    return json.loads((folder / chapter / "values.json").read_text())


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_finished_is_not_computed_again_nor_by_a_comma(repository, default):
    source = repository / "notebooks/00_first.ipynb"
    edited(source, "Some prose.", "Some, other prose.")
    assert small.ran(compute(repository, "default")) == []
    edited(source, "Some, other prose.", "Some prose.")


def test_what_another_run_has_is_taken_over_and_marked(repository, default):
    done = compute(repository, "other", seed=0)  # a default, spelt out
    assert done.returncode == 0
    assert small.ran(done) == [f"{name}: taken over from default" for name in CHAPTERS]
    other = repository / "_build/runs/other"
    assert record(other)["provenance"]["taken_from"] == "default"
    assert record(other)["values"] == record(default)["values"]
    assert (other / "00_first/table.csv").read_bytes() == (
        default / "00_first/table.csv"
    ).read_bytes()
    assert small.ran(compute(repository, "other")) == []
    shutil.rmtree(other)


def test_only_what_differs_is_computed(repository, default):
    """`--only 01` takes 00 from the default run; with another seed both are computed."""
    edited(repository / "notebooks/01_second.ipynb", "seed = 0", "shift = 0  # b\\nseed = 0")
    edited(
        repository / "notebooks/01_second.ipynb",
        "level=ranges",
        "shift=ranges.whole(0), level=ranges",
    )
    done = compute(repository, "shifted", "01_second", shift=2)
    assert small.ran(done) == ["00_first: taken over from default", "01_second (1 of 1)"]
    done = compute(repository, "seeded", "01_second", seed=1)
    assert small.ran(done) == ["00_first (1 of 2)", "01_second (2 of 2)"]
    edited(repository / "notebooks/01_second.ipynb", "shift = 0  # b\\nseed = 0", "seed = 0")
    edited(
        repository / "notebooks/01_second.ipynb",
        "shift=ranges.whole(0), level=ranges",
        "level=ranges",
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_parameter_names_counts_by_its_content(repository, tmp_path, kind):
    text = tmp_path / "text"
    file = text / "a" if kind == "folder" else text
    file.parent.mkdir(exist_ok=True)
    file.write_text("abc")
    name, copied = f"text {kind}", tmp_path / "elsewhere"
    done = compute(repository, name, "00_first", text=str(text))
    assert small.ran(done) == ["00_first (1 of 1)"] and done.returncode == 0
    assert record(repository / "_build/runs" / name)["values"]["letters"]["value"] == 3
    listed = small.command(repository, "list").stdout
    assert f"{name}: 00\n" in listed  # made with an absolute path, and not stale
    assert small.ran(compute(repository, name, "00_first", text=str(text))) == []

    (shutil.copytree if kind == "folder" else shutil.copy)(text, copied)
    assert small.ran(compute(repository, name, "00_first", text=str(copied))) == []
    done = compute(repository, f"{name} copied", "00_first", text=str(copied))
    assert small.ran(done) == [f"00_first: taken over from {name}"]

    (copied / "a" if kind == "folder" else copied).write_text("abcd")
    listed = small.command(repository, "list").stdout
    assert f"{name}: 00 (stale)\n" in listed and f"{name} copied: 00 (stale)\n" in listed
    assert small.ran(compute(repository, name, "00_first", text=str(text))) == []
    done = compute(repository, f"{name} copied", "00_first", text=str(copied))
    assert small.ran(done) == ["00_first (1 of 1)"]
    one, other = (record(repository / "_build/runs" / f"{name}{end}") for end in ("", " copied"))
    assert other["values"]["letters"]["value"] == 4
    told = compare.parameters({"00": one}, {"00": other})
    assert told.parameter.tolist() == ["text"] and told.a[0] != told.b[0]


def test_a_relative_path_is_the_callers(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "held-out").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yml").write_text("text: mine\nfamily: mine\n")
    given = settings.asked("p.yml", ["model=mine", "remote_code=./mine", "trace=no/such.npz"])
    place = str(tmp_path / "mine")
    assert given == dict(
        text=place, family="mine", model=place, remote_code=place, trace="no/such.npz"
    )
    assert settings.parse(["text=held-out"]) == {"text": "held-out"}  # the word, not the folder


def test_a_changed_library_is_taken_from_no_run(repository, default):
    edited(repository / "lib/stats.py", '"""', '""" ')
    done = compute(repository, "later", "00_first")
    assert small.ran(done) == ["00_first (1 of 1)"]
    edited(repository / "lib/stats.py", '""" ', '"""')
    shutil.rmtree(repository / "_build/runs/later")


def test_a_chapter_with_work_left_is_not_finished(repository, default):
    for _ in range(2):  # the same command goes on, and is not taken for done
        done = compute(repository, "left", "00_first", events="left")
        assert small.ran(done) == ["00_first (1 of 1)"]
        assert done.stdout == "00_first unfinished: 3 of 9 runs left: the same command goes on\n"
    assert "left: 00 (unfinished: 3 of 9 runs left)" in small.command(repository, "list").stdout
    refused = small.command(repository, "publish", "left")
    assert refused.stderr == "publish: 00_first: 3 of 9 runs left: must have nothing left\n"
    again = compute(repository, "again", "00_first", events="left")
    assert small.ran(again) == ["00_first (1 of 1)"]  # not taken over either


def test_runs_of_two_names_at_once_both_finish_beside_a_comparison(repository, default):
    both = [small.computing(repository, f"twin {n}", "00_first", seed=n) for n in (11, 12)]
    told = small.command(repository, "compare", "default", "default")
    assert told.returncode == 0 and told.stdout.startswith("parameters: no difference\n")
    done = [small.ended(one) for one in both]
    assert [one.returncode for one in done] == [0, 0], [one.stderr[-500:] for one in done]
    for n in (11, 12):
        assert record(repository / f"_build/runs/twin {n}")["values"]["level"]["value"] == 1
        shutil.rmtree(repository / f"_build/runs/twin {n}")


def test_a_name_that_is_no_plain_word_fails_the_chapter_that_gave_it(repository, default):
    done = compute(repository, "named", events="named")
    said = "the name 'level of <b>': must be of letters, digits, _ . -"
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"00_first failed: stopped: {said}"
    assert not (repository / "_build/runs/named/00_first/values.json").exists()
    assert small.ran(compute(repository, "named", "00_first")) == [
        "00_first: taken over from default"
    ]
    shutil.rmtree(repository / "_build/runs/named")


def test_why_the_workflow_itself_failed_is_told(tmp_path):
    """The last error of its log, not where to look for it."""
    assert runner._cause(tmp_path, 3) == "exit code 3, no log"
    log = tmp_path / ".snakemake/log/one.log"
    log.parent.mkdir(parents=True)
    lines = ["Building DAG", "WorkflowError:", "No rule makes 00.ipynb.", "Exiting because a job"]
    log.write_text("\n".join([*lines, "Complete log(s): one.log"]))
    assert runner._cause(tmp_path, 1) == "WorkflowError: No rule makes 00.ipynb. (exit code 1)"


def test_a_kernel_that_dies_is_told_and_a_torn_log_is_mended(repository, monkeypatch):
    done = compute(repository, "dead", events="dies")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "00_first failed: stopped: its kernel died (memory?)"
    assert done.stdout.splitlines()[2] == "01_second not run: it needs 00_first"
    log = repository / "_build/runs/dead/logs/00_first.ipynb"
    assert "its kernel died" in log.read_text()
    log.write_text(log.read_text()[:100])  # as a full disk leaves it
    monkeypatch.setattr(chapters, "ROOT", repository)
    runner.mend(repository / "_build/runs/dead")
    told = runner.failure(repository / "_build/runs/dead", "00_first")
    assert told == "stopped: its executed copy is cut off (disk full?)"


def test_what_is_held_is_neither_published_to_nor_removed(repository, default):
    with runner.sole(repository / "_build/runs/reference"):
        refused = small.command(repository, "publish", "default")
        assert refused.stderr == "run: reference: is being computed by another process\n"
    with runner.sole(default):
        for line in (["publish", "default"], ["clean", "default"], ["confirm", "default"]):
            refused = small.command(repository, *line)
            assert refused.stderr == "run: default: is being computed by another process\n"
            assert refused.returncode == 2 and default.is_dir()


@pytest.mark.parametrize("content", ["[]", "{}", '{"chapter": 7', '{"chapter": "00_first"}'])
def test_a_damaged_run_is_one_line_and_hides_no_other(repository, content):
    damaged = repository / "_build/runs/damaged/00_first"
    damaged.mkdir(parents=True)
    (damaged / "values.json").write_text(content)
    (damaged.parent / "run.json").write_text('{"name": "da')
    told = small.command(repository, "list")
    shown = small.command(repository, "show", "damaged")
    shutil.rmtree(damaged.parent)
    assert told.returncode == 0 and "damaged: unreadable: " in told.stdout
    assert told.stdout.splitlines()[-1].startswith("reference:")
    assert shown.returncode == 2 and len(shown.stderr.splitlines()) == 1


def test_what_cannot_be_written_is_one_line(repository):
    (repository / "_build/runs/file").touch()
    refused = small.command(repository, "run", "--name", "file")
    place = repository / "_build/runs/file"
    assert refused.returncode == 2 and refused.stderr == f"lib: {place}: File exists\n"
    place.unlink()


def test_work_ends_with_its_leader_and_holds_the_lock_until_then(repository):
    leader = small.computing(repository, "waits", "00_first", events="waits")
    began = repository / "_build/runs/waits/began"
    kernel = waited(lambda: began.is_file() and began.read_text())
    os.kill(leader.pid, signal.SIGKILL)
    refused = compute(repository, "waits", "00_first")
    assert refused.returncode == 0 or "computed by another process" in refused.stderr
    waited(lambda: not psutil.pid_exists(int(kernel)))
    leader.communicate(timeout=60)
    began.unlink()
    with_lock = waited(lambda: compute(repository, "waits", "00_first").returncode == 0)
    assert with_lock and record(began.parent)["values"]["level"]["value"] == 1
    shutil.rmtree(began.parent)


def waited(happened, seconds=60):
    """What `happened` gives as soon as it gives something."""
    for _ in range(seconds * 5):
        if found := happened():
            return found
        time.sleep(0.2)
    raise AssertionError("did not happen")


def test_a_half_written_run_file_stops_no_list(repository, default):
    whole = (default / "run.json").read_text()
    (default / "run.json").write_text(whole[:20])
    assert "default: 00, 01" in small.command(repository, "list").stdout
    (default / "run.json").write_text(whole)
    values = default / "01_second/values.json"
    kept = values.read_text()
    values.write_text(kept[:20])
    listed = small.command(repository, "list").stdout
    assert "default: unreadable: default/01_second/values.json: must be JSON" in listed
    assert "reference: " in listed
    values.write_text(kept)


def test_all_parameters_are_refused_before_anything_runs(repository):
    refused = small.command(repository, "run", "--name", "bad", "-p", "level=7")
    assert refused.returncode == 2 and refused.stderr.splitlines() == [
        f"run: {name}: level = 7: must be another one" for name in CHAPTERS
    ]
    assert not (repository / "_build/runs/bad").exists()


def test_a_home_that_cannot_be_written_is_no_hindrance(repository):
    code = "from lib import provenance; print(provenance.environment(A='b')['HOME'])"
    told = small.ended(small.start(repository, "-c", code, HOME="/proc/nowhere"))
    assert told.stdout.strip() == str(repository / "_build/home")
    shutil.rmtree(repository / "_build/runs/homeless", ignore_errors=True)
    process = small.start(
        repository, "-c", small.COMPUTE, "homeless", '{"seed": 3}', "00_first", HOME="/proc/nowhere"
    )
    assert small.ended(process).returncode == 0


def test_a_changed_statement_and_a_changed_file_are_computed_again(repository, default):
    """Last, since they leave the default run as it was not, and no other to take it over from."""
    for run in (repository / "_build/runs").iterdir():
        if run.is_dir() and run != default:
            shutil.rmtree(run)
    edited(repository / "notebooks/01_second.ipynb", "chapter.uses", "chapter  .uses")
    assert small.ran(compute(repository, "default")) == ["01_second (1 of 1)"]
    values = default / "00_first/values.json"
    values.write_text(values.read_text().replace('"value": 1', '"value": 4', 1))
    assert "default: 00 (stale)" in small.command(repository, "list").stdout
    refused = small.command(repository, "publish", "default")
    said = "publish: 00_first/values.json: must be as the run left it: run it again\n"
    assert refused.returncode == 2 and refused.stderr == said
    assert small.ran(compute(repository, "default"))[0] == "00_first (1 of 2)"
    table = default / "00_first/table.csv"
    table.write_text(table.read_text() + "c,3\n")
    again = compute(repository, "default")
    assert small.ran(again) == ["00_first (1 of 2)", "01_second (2 of 2)"]
    assert small.ran(compute(repository, "default")) == []


@pytest.mark.parametrize("wanted, cores", [(["05"], 2), (["02", "05"], 1)])
def test_a_chapter_alone_has_all_cores(tmp_path, monkeypatch, wanted, cores):
    started: list[list[str]] = []
    monkeypatch.setattr(runner, "_cores", lambda: 2)
    monkeypatch.setattr(runner, "_at_once", lambda: 2)
    monkeypatch.setattr(runner.reuse, "due", lambda *_: True)
    monkeypatch.setattr(runner.reuse, "take", lambda *_: "")
    monkeypatch.setattr(runner, "_alone", lambda command, *_: started.append(command) or 0)
    monkeypatch.setattr(runner, "_ended", lambda *_: True)
    assert runner.execute(tmp_path / "run", {}, runs.chosen(wanted))
    assert f"threads={cores}" in started[0]


def test_chapters_are_begun_so_that_the_last_ends_soonest(monkeypatch):
    """Of two places one goes on with what the shortest makes possible; the plain order and the
    longest first both leave a place idle at the end.
    """
    seconds = dict(read=1, short=2, long=8, longer=9, after=6)
    needs = {"after": ["short"]}
    monkeypatch.setattr(chapters, "budget_s", seconds.get)
    monkeypatch.setattr(chapters, "before", lambda chapter: needs.get(chapter, []))
    found = order.soonest([*seconds], 2)
    assert found[0] == "read" and order.end(found, 2) == 14
    assert order.end(["read", "longer", "long", "short", "after"], 2) == 17
    assert order.end([*seconds], 1) == sum(seconds.values())
    assert order.soonest(["read"], 2) == ["read"]
