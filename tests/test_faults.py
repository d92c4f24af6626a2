"""Nothing is lost by a kill, nothing that was altered is taken for what it was."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import faults
import psutil
import pytest
import small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.engines import content
from lib.model import files
from lib.paper import claims, plain
from lib.paper import settings as parameters
from lib.routing import trace

ROOT = faults.ROOT
FUZZED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return small.repository(tmp_path_factory.mktemp("Räume mit Leerzeichen") / "small")


@pytest.mark.parametrize("seed", [1])
def test_killed_runs_end_with_the_values_of_an_undisturbed_one(tmp_path, seed):
    for row in faults.kills(tmp_path, 2, seed):
        assert row["values"] == "equal" and row["half_written"] == "none"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_ends_what_it_began_and_says_so_in_one_line(repository, number):
    line = ["-m", "lib", "run", "--name", "stopped", "--only", "00", "-p", "events=waits"]
    began = repository / "_build/runs/stopped/began"
    began.unlink(missing_ok=True)
    process = small.start(repository, *line)
    for _ in range(300):
        if began.is_file() and began.read_text():
            break
        time.sleep(0.2)
    kernel = int(began.read_text())
    own = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, number)
    done = small.ended(process)
    told = [one for one in done.stderr.splitlines() if one.startswith("lib: ")]
    assert done.returncode == 128 + number and len(told) == 1 and "Traceback" not in done.stderr
    assert told[0].endswith("the same command goes on")
    _, left = psutil.wait_procs([*own], timeout=10)
    assert not left and not psutil.pid_exists(kernel)


def test_a_locale_that_is_not_utf8_one_core_and_no_home_are_no_hindrance(repository):
    plain_c = dict(
        LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", HOME="/proc/nowhere"
    )
    done = small.command(repository, "run", "--name", "zwölf", "--only", "00", **plain_c)
    assert small.ran(done) == ["00_first (1 of 1)"] and "Traceback" not in done.stderr
    assert (repository / "_build/runs/zwölf/00_first/values.json").is_file()
    told = small.command(repository, "list", **plain_c)
    assert told.returncode == 0 and "zw" in told.stdout and "Traceback" not in told.stderr


def limited(repository, name, kilobytes):
    """``python -m lib run`` with a folder of runs on a disk of so many kilobytes."""
    runs = repository / "_build/runs"
    runs.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["unshare", "-mr", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    script = f'mount -t tmpfs -o size={kilobytes}k none "{runs}" && exec "$@"'
    if kilobytes == 0:
        script = f'mount --bind -o ro "{runs}" "{runs}" && exec "$@"'
    line = ["unshare", "-mr", "sh", "-c", script, "sh", sys.executable, "-m", "lib", "run"]
    return subprocess.run(
        [*line, "--name", name, "--only", "00"],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.mark.parametrize("kilobytes", [0, 4, 24])
def test_a_full_or_read_only_disk_is_told(repository, kilobytes):
    done = limited(repository, f"full{kilobytes}", kilobytes)
    told = done.stderr.splitlines()
    assert done.returncode in (1, 2) and "Traceback" not in told
    words = "Read-only file system" if kilobytes == 0 else "No space left on device"
    assert words in told[-1] or any(words in one for one in told[-3:]), done.stderr[-2000:]


def test_a_read_only_checkout_is_one_line(repository):
    """The whole of it, as in many containers; nothing can be kept there."""
    if subprocess.run(["unshare", "-mr", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    script = f'mount --bind -o ro "{repository}" "{repository}" && cd "{repository}" && exec "$@"'
    line = ["unshare", "-mr", "sh", "-c", script, "sh", sys.executable, "-m", "lib"]
    for rest, words in (
        (["run", "--name", "unwritten", "--only", "00"], "Read-only file system"),
        (["list"], ""),
    ):
        done = subprocess.run(
            [*line, *rest],
            env=os.environ | {"PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        told = done.stderr.splitlines()
        assert (done.returncode, len(told)) == ((2, 1) if words else (0, 0)), done.stderr[-2000:]
        assert words in "".join(told)


def test_a_limit_of_memory_is_told_in_one_line(repository):
    """`ulimit -v`, as batch systems set it: too little to begin."""
    line = f'ulimit -v {100 * 1024} && exec "$0" -m lib run --name small --only 00'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "memory" in done.stderr.splitlines()[-1], done.stderr[-2000:]


@FUZZED
@given(st.text(max_size=60))
def test_any_text_is_plain_yaml_or_one_line(text):
    try:
        plain.parsed(text)
    except ValueError as error:
        assert "\n" not in str(error)


@FUZZED
@given(st.text(max_size=40), st.sampled_from([0, 1.0, [1], {"a": [1]}, True]))
def test_any_typed_value_is_a_literal_or_one_line(text, default):
    try:
        parameters.read("name", text, default)
    except ValueError as error:
        assert "\n" not in str(error)


@FUZZED
@given(st.text(alphabet="ab<>=&|()[]{}.,:'\"+-*/ \n0123456789lambdforin_", max_size=40))
def test_any_predicate_is_arithmetic_or_refused(text):
    with suppress(ValueError, SyntaxError, ArithmeticError, TypeError):
        claims.judge(text, {"a": {"value": 1.0, "interval": None}})


@FUZZED
@given(data=st.binary(max_size=200), name=st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.gz"]))
def test_any_bytes_are_text_or_one_line(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    try:
        list(files.read(tmp_path / name, "text"))
    except ValueError as error:
        assert str(error).startswith("texts.read: ") and "\n" not in str(error)


@FUZZED
@given(
    data=st.binary(max_size=200), head=st.sampled_from([b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
)
def test_any_bytes_are_a_recording_or_one_line(tmp_path, data, head):
    for reads, where in ((content.load, "engines: "), (trace.load, "trace.load: ")):
        (tmp_path / "x.npz").write_bytes(head + data)
        try:
            reads(tmp_path / "x.npz")
        except ValueError as error:
            assert str(error).startswith(where) and "\n" not in str(error)


def test_no_chapter_and_no_library_draws_from_a_state_that_all_share():
    """numpy.random.seed, random.seed and their draws; a generator of one's own is seeded."""
    shared = ("np.random.seed", "np.random.rand", "np.random.normal", "np.random.choice(")
    shared += ("np.random.shuffle", "np.random.permutation", "random.random(", "random.shuffle(")
    sources = {path.name: path.read_text() for path in (ROOT / "lib").rglob("*.py")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        sources[path.name] = "".join("".join(cell["source"]) for cell in cells)
    assert not [(name, word) for name, text in sources.items() for word in shared if word in text]
