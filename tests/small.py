"""A repository of two chapters that take a second each, to see how chapters are run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARAMETERS = """level = 1.0  # of what is published
events = "none"  # what happens: "none", "dies", "waits", "left", "named", "tells"
text = "held-out"  # what is read, a file or folder
device = "auto"  # where
seed = 0  # of nothing
run_dir = "."  # folder that receives the chapter
"""
CHECK = """from lib.paper import params, ranges, values

p = params.check("{name}", globals(), level=ranges.real(0, 9),
    events=ranges.choice("none", "dies", "waits", "left", "named", "tells"))
if p.level == 7:
    raise ValueError("level = 7: must be another one")
chapter = values.Chapter("{name}", p)"""
FIRST = """import os, time
from pathlib import Path
from lib import stats
Path("began").write_text(str(os.getpid()))
if p.events == "dies":
    os._exit(1)
if p.events == "tells":
    raise ValueError(f"text = {p.text}")
time.sleep(600 if p.events == "waits" else 0)
chapter.left = "3 of 9 runs left" if p.events == "left" else ""
chapter.path("table.csv").write_text(f"name,number\\na,{p.level}\\nb,2\\n")
chapter.value("level", p.level)
if p.events == "named":
    chapter.value("level of <b>", p.level)
read = Path(p.text)
chapter.value("letters", sum(len(f.read_text()) for f in (read, *read.glob("*")) if f.is_file()))"""
SECOND = """found = values.find(p.run_dir, "00_first", "table.csv")
chapter.uses(*found)
chapter.value("length", len(found[0].read_text()))"""

COMPUTE = """import json, sys
from lib.paper import chapters, runner, runs
run, given, only = runs.RUNS / sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
with runner.sole(run) as held:
    whole = runner.execute(run, given, only or chapters.names(), held=held)
for line in runs.verdicts(run, only or chapters.names(), run / "index.html"):
    print(line)
sys.exit(0 if whole else 1)"""


def cell(kind: str, source: str, *tags: str) -> dict:
    code = dict(outputs=[], execution_count=None) if kind == "code" else {}
    return dict(cell_type=kind, metadata=dict(tags=list(tags)), source=source, **code)


def notebook(name: str, parameters: str, body: str, **says) -> str:
    cells = [
        cell("markdown", f"# {name}\n\nSome prose."),
        cell("code", parameters, "parameters"),
        cell("code", CHECK.replace("{name}", name)),
        cell("code", body),
        cell("code", "chapter.close()"),
    ]
    kernel = dict(name="python3", display_name="Python 3", language="python")
    metadata = dict(kernelspec=kernel, paper=says)
    return json.dumps(dict(cells=cells, metadata=metadata, nbformat=4, nbformat_minor=4))


def repository(folder: Path) -> Path:
    """Make it in a folder that does not exist yet."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("lib", "book/_static", "book/slides"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "notebooks/params").mkdir(parents=True)
    for name in ("_config.yml", "book/references.bib", "notebooks/Snakefile"):
        shutil.copy(ROOT / name, folder / name)
    files = {
        "book/_toc.yml": "format: jb-book\nroot: book/intro\nchapters:\n"
        "  - file: notebooks/00_first\n  - file: notebooks/01_second\n",
        "book/slides/deck.md": "# Slides\n\n- The level is {val}`00.level`.\n",
        "book/intro.md": "# A book\n\nThe level is {val}`00.level`.\n",
        "notebooks/params/paper.yml": "level: 2.0\n",
        "notebooks/00_first.ipynb": notebook("00_first", PARAMETERS, FIRST),
        "notebooks/01_second.ipynb": notebook(
            "01_second",
            PARAMETERS.replace("level = 1.0", "level = 3.0"),
            SECOND,
            needs=["00_first"],
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def start(
    folder: Path, *arguments: str, group: bool = False, **environment: str
) -> subprocess.Popen:
    """Begin ``python`` in it with these arguments; with `group` in a process group of its own."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pipes |= dict(start_new_session=group)
    whole = {**os.environ, "PYTHONPATH": str(folder), **environment}
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=whole, **pipes)


def ended(process: subprocess.Popen) -> subprocess.CompletedProcess:
    out, told = process.communicate(timeout=180)
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """``python -m lib`` in it, to its end."""
    return ended(start(folder, "-m", "lib", *arguments, **environment))


def computing(
    folder: Path, name: str, *only: str, group: bool = False, **given
) -> subprocess.Popen:
    """Begin to compute a run in it, without its book."""
    return start(folder, "-c", COMPUTE, name, json.dumps(given), *only, group=group)


def ran(done: subprocess.CompletedProcess) -> list[str]:
    """What a command told of the chapters it computed or took over."""
    return [line.removeprefix("== ") for line in done.stderr.splitlines() if line[:2] == "=="]
