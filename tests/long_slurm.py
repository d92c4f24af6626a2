"""Chapters as jobs of a real Slurm of one node (`make test-long`; Debian: slurm-wlm and munge)."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import slurm
import small
import yaml
from conftest import ROOT, TINY

from lib.paper import scheduler

CHAPTERS = ("00_base_model", "05_validation")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]:
        pytest.fail(f"{', '.join(missing)}: not installed (apt-get install slurm-wlm munge)")
    with slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """The committed profile, for a node without accounts, GPUs and memory to spare."""
    folder = tmp_path_factory.mktemp("profile")
    content = yaml.safe_load((scheduler.PROFILES / "slurm/config.yaml").read_text())
    content |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 3}
    content |= {"set-resources": {"chapter": {"mem_mb": 1900}}, "set-threads": {"chapter": 1}}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


def begun(environment, profile, cwd, name, *options):
    """``python -m lib run`` on its way, what it tells in a file: (process, file)."""
    told = profile / f"{name}.told"
    line = [sys.executable, "-m", "lib", "run", "--name", name, "--profile", str(profile)]
    whole = {**environment, "PYTHONPATH": str(cwd)}
    with told.open("a") as out:
        return subprocess.Popen([*line, *options], cwd=cwd, env=whole, stdout=out, stderr=out), told


def values(run, chapter):
    path = run / chapter / "values.json"
    return json.loads(path.read_text()) if path.is_file() else None


def test_a_job_that_is_killed_fails_alone_and_the_next_run_goes_on(cluster, profile):
    """Two chapters of the book; nothing that is finished is computed again."""
    run = ROOT / "_build/runs/tests-slurm"
    shutil.rmtree(run, ignore_errors=True)
    given = [*TINY, "device=cpu", "seed=11"]  # of no other run, from which it could be taken over
    options = [part for item in given for part in ("-p", item)]
    options += ["--only", CHAPTERS[0][:2], "--only", CHAPTERS[1][:2]]
    first, told = begun(cluster, profile, ROOT, "tests-slurm", *options)
    job = slurm.wait_for(lambda: job_of(cluster, run, CHAPTERS[1]), 300)
    slurm.wait_for(lambda: "05: == 05_validation" in told.read_text(), 300)
    asked_for = slurm.asked(cluster, "scontrol", "show", "job", job)
    assert "TimeLimit=01:00:00" in asked_for and "MinMemoryNode=1900M" in asked_for
    slurm.asked(cluster, "scancel", "--signal=KILL", "--full", job)
    assert first.wait(900) == 1
    lines = told.read_text().splitlines()
    reason = "stopped: its job ended from outside (cancelled, out of time or memory?)"
    assert f"05_validation failed: {reason}" in lines
    assert any("00: Executing" in line for line in lines), "progress is seen while a job runs"
    assert values(run, CHAPTERS[1]) is None
    before = values(run, CHAPTERS[0])["provenance"]

    again, told = begun(cluster, profile, ROOT, "tests-slurm", *options)
    assert again.wait(900) == 0, told.read_text()[-3000:]
    assert values(run, CHAPTERS[0])["provenance"] == before
    assert values(run, CHAPTERS[1])["values"] and not slurm.jobs(cluster)
    logs = sorted(path.parent.name for path in run.rglob(".snakemake/slurm_logs/*/*/*.log"))
    assert set(logs) <= {CHAPTERS[1]}  # what ended well leaves no log
    shutil.rmtree(run)


def job_of(environment, run, chapter):
    """The number of the job of a chapter, once it runs; its log is called so."""
    logs = run.glob(f".snakemake/slurm_logs/rule_chapter/{chapter}/*.log")
    running = slurm.jobs(environment)
    return next((path.stem for path in logs if path.stem in running), None)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_jobs_end_with_the_command(cluster, profile, how, tmp_path):
    repository = small.repository(tmp_path / "small")
    options = ("--only", "00", "-p", "events=waits")
    process, told = begun(cluster, profile, repository, f"ends-{how.name}", *options)
    began = repository / f"_build/runs/ends-{how.name}/began"
    kernel = slurm.wait_for(lambda: began.is_file() and began.read_text(), 300)
    assert len(slurm.jobs(cluster)) == 1
    os.kill(process.pid, how)
    assert process.wait(180) != 0
    slurm.wait_for(lambda: not slurm.jobs(cluster), 60)
    slurm.wait_for(lambda: not os.path.exists(f"/proc/{kernel}"), 60)
    if how != signal.SIGKILL:
        assert "run: cancelling its jobs" in told.read_text()
