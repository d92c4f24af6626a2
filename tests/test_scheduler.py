"""Chapters as jobs: what a profile must be, what a chapter asks for, and what is seen of a job.

A real scheduler is tried in `long_slurm.py`.
"""

import json
import signal

import psutil
import pytest
import slurm
import small
import yaml

from lib.paper import chapters, scheduler


def test_a_profile_is_a_folder_or_one_of_the_books():
    slurm = scheduler.PROFILES / "slurm"
    content = yaml.safe_load((slurm / "config.yaml").read_text())
    assert content["executor"] == "slurm" and "default-resources" not in content
    with pytest.raises(ValueError, match=r"--profile slrm: must be a folder .*\(did you mean slur"):
        scheduler.profile("slrm")
    with pytest.raises(ValueError, match="--profile '': must be a folder with a config.yaml"):
        scheduler.profile("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "executor: no-such",
            r"its executor, no-such, must be installed: .* pip install snakemake",
        ),
        ("executor: [", "config.yaml: must be YAML: "),
        ("- slurm", "config.yaml: must be options of Snakemake"),
    ],
)
def test_a_profile_that_cannot_work_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as refused:
        scheduler.profile(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_what_a_chapter_asks_for():
    """A GPU where its metadata say so and the CPU is not asked for; twenty budgets, at least an
    hour, and the time that its own work may take.
    """
    assert [scheduler.gpus(chapter, {}) for chapter in chapters.names()] == [0, 1, 1, 0, 0, 0, 0]
    assert scheduler.gpus("01_profile", {"device": "cpu"}) == 0
    assert scheduler.minutes("05_validation", {}) == scheduler.LEAST_MIN
    budget = chapters.budget_s("03_finetune") * scheduler.TIMES / 60
    assert scheduler.minutes("03_finetune", {}) == pytest.approx(budget, abs=1)
    more = scheduler.minutes("03_finetune", {"time_budget_s": 3000.0})
    assert more == pytest.approx(budget + 50, abs=1)
    assert scheduler.minutes("05_validation", {"time_budget_s": 3000.0}) == scheduler.LEAST_MIN


def test_of_a_bar_that_is_drawn_over_the_last_state_is_told(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    told, seen = scheduler.progress(tmp_path, "04_network"), {}
    told.write_text("== 04_network\nbar 1\rbar 2\rbar 3\rba")
    scheduler._tell(tmp_path, seen)
    assert capsys.readouterr().err == "04: == 04_network\n04: bar 3\n"
    with told.open("a") as file:
        file.write("r 4\nlast")
    scheduler._tell(tmp_path, seen)
    scheduler._tell(tmp_path, seen)
    assert capsys.readouterr().err == "04: bar 4\n"


@pytest.mark.parametrize("how", [None, signal.SIGTERM])
def test_jobs_tell_their_progress_and_end_with_the_command(tmp_path, how):
    """Under a profile of this machine itself."""
    repository = small.repository(tmp_path / "small")
    (tmp_path / "config.yaml").write_text("cores: 1\nset-resources: {chapter: {mem_mb: 123}}\n")
    code = small.COMPUTE.replace("held=held", f"held=held, profile=Path({str(tmp_path)!r})")
    given = json.dumps({"events": "waits" if how else "none"})
    whole = f"from pathlib import Path\n{code}"
    process = small.start(repository, "-c", whole, "run", given, "00_first")
    began = repository / "_build/runs/run/began"
    if how:
        slurm.wait_for(lambda: began.is_file() and began.read_text(), 120)
        process.send_signal(how)
    done = small.ended(process)
    told = done.stderr
    assert "00: == 00_first (1 of 1)" in told.splitlines()
    assert (done.returncode == 0) is (how is None)
    if how:
        assert "run: cancelling its jobs" in told
        kernel = int(began.read_text())  # which a busy machine ends a moment after the command
        slurm.wait_for(lambda: not psutil.pid_exists(kernel), 30)
