"""`make` sets up: whatever was interrupted, below whatever path, twice at once; and what is pinned
where.
"""

import importlib.util
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def pins(file: str) -> dict[str, str]:
    """Package and version of every pin, names as the index writes them."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(), re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_what_only_tests_need_is_pinned_beside_them():
    ours, tests = pins("requirements.txt"), pins("tests/requirements.txt")
    assert {"ruff", "hypothesis", "playwright", "pytest-benchmark"} <= tests.keys()
    assert not ours.keys() & tests.keys()
    used = {
        name
        for path in (ROOT / "lib").rglob("*.py")
        for name in re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M)
    }
    assert not used & {name.replace("-", "_") for name in tests}


def test_every_package_of_the_corpus_is_pinned_for_the_book():
    with lzma.open(ROOT / "data/corpus.csv.xz") as file:
        rows = pd.read_csv(file)[["package", "version"]].drop_duplicates()
    ours = pins("requirements.txt")
    for package, version in rows.itertuples(index=False):
        assert ours[re.sub(r"[-_.]+", "-", package).lower()] == version


@pytest.fixture
def checkout(tmp_path):
    """A checkout below a path with a space, that pins nothing: its folder."""
    folder = tmp_path / "a b" / "check out"
    (folder / "tests").mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    (folder / "requirements.txt").touch()
    (folder / "tests/requirements.txt").touch()
    return folder


def make(folder: Path, target: str = ".venv/.ready") -> subprocess.Popen:
    line = ["make", "--no-print-directory", f"PYTHON={sys.executable}", target]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(line, cwd=folder, start_new_session=True, **pipes)


def works(folder: Path) -> bool:
    done = subprocess.run([folder / ".venv/bin/python", "-m", "pip", "--version"], check=False)
    return done.returncode == 0


def test_a_half_made_environment_is_made_anew_below_a_path_with_a_space(checkout):
    killed = make(checkout)
    for _ in range(200):
        time.sleep(0.02)
        if (checkout / ".venv/bin/python").exists():
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert (checkout / ".venv/bin/python").exists() and not works(checkout)
    again = make(checkout, ".venv/.tested")
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and works(checkout), out
    assert (checkout / ".venv/.ready").is_file() and (checkout / ".venv/.tested").is_file()


@pytest.mark.parametrize("kept", [True, False])
def test_where_no_import_keeps_bytecode_all_is_compiled_at_once(checkout, monkeypatch, kept):
    """Else every process would compile PyTorch anew: ten seconds each."""
    source = importlib.util.spec_from_file_location("made", checkout / ".ci/environment.py")
    environment = importlib.util.module_from_spec(source)
    source.loader.exec_module(environment)
    home = checkout.rename(checkout.with_name("test")) / ".venv"
    site = "lib/python3/site-packages/own"
    for name in (f"{site}/a.py", f"{site}/tests/b.py", ".ready", "bin/python"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    (home / "bin/python").unlink()
    (home / "bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(environment, "pip", lambda *_: 0)
    monkeypatch.setattr(sys, "dont_write_bytecode", not kept)
    monkeypatch.chdir(home.parent)
    assert environment.install(home / ".tested", []) == 0 and (home / ".tested").is_file()
    compiled = [path.name.split(".")[0] for path in home.rglob("*.pyc")]
    assert compiled == ([] if kept else ["a"])


def test_of_two_at_once_one_waits_and_nothing_is_installed_twice(checkout):
    both = [make(checkout), make(checkout)]
    outs = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0] and works(checkout)
    assert sum("installing" in out for out in outs) == 1
    assert sum("waiting for another installation" in out for out in outs) == 1


def test_where_nothing_can_be_written_one_line_says_so(checkout):
    (checkout / ".venv.lock").mkdir()
    done = make(checkout)
    first = done.communicate(timeout=60)[0].splitlines()[0]
    assert done.returncode and first == "make: .venv.lock: Is a directory"


def test_the_book_installs_nothing_that_only_tests_need(checkout):
    line = ["make", "-n", "book"]
    done = subprocess.run(line, cwd=checkout, capture_output=True, text=True, check=False)
    assert "requirements.txt" in done.stdout and "tests/requirements.txt" not in done.stdout


def test_it_is_installed_from_a_checkout_alone(tmp_path):
    """As a wheel its `lib` would lie among the packages of others, without notebooks and data."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    shutil.copytree(ROOT / "lib", copy / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    quick = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    line = [sys.executable, "-m", "pip", "install", *quick, "--target", tmp_path / "into", copy]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode and "moe-imbalance runs from a checkout" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "into").exists()
    code = "import checkout; print(checkout.build_editable('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": ".ci"},
        capture_output=True,
        text=True,
        check=True,
    )
    with zipfile.ZipFile(copy / done.stdout.split()[-1]) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        assert wheel.read(path).decode().strip() == str(copy)
        assert not [name for name in wheel.namelist() if name.startswith("lib/")]
