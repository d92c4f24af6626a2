"""Checks removed one at a time: each must be missed by a row of the table of bad input, or a test.

``python tests/mutants.py [NUMBER …]`` tries them in a copy of the repository, each in a process of
its own, and names those that nobody missed; exit code 1 if there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
# file below lib, what stands there, what stands there instead, the kind of row, or the test, that
# must miss it
MUTANTS = (
    ("paper/plain.py", "if name in seen:", "if False:", "params_files"),
    ("paper/plain.py", 'if tag is not None and tag != "!":', "if False:", "params_files"),
    (
        "paper/plain.py",
        "is not None:\n            raise",
        "is 0:\n            raise",
        "params_files",
    ),
    ("paper/plain.py", "if len(raw) > LONGEST:", "if False:", "params_files"),
    ("paper/plain.py", "if not isinstance(name, str):", "if False:", "params_files"),
    ("paper/plain.py", "except RecursionError:", "except ZeroDivisionError:", "params_files"),
    ("paper/settings.py", "if not isinstance(content, dict):", "if False:", "params_files"),
    ("paper/settings.py", "if not equals or not name:", "if not equals:", "parameters"),
    ("paper/settings.py", "if len(keys) > len(set(keys)):", "if False:", "parameters"),
    ("paper/ranges.py", "and len(set(value)) == len(value)", "", "parameters"),
    ("paper/ranges.py", "holds(v) and v % of == 0", "holds(v)", "parameters"),
    (
        "paper/ranges.py",
        "path is not None and (not holds",
        "path is None or (not holds",
        "parameters",
    ),
    ("paper/ranges.py", '"num_tokens": whole(16)', '"num_tokens": whole(1)', "parameters"),
    ("paper/ranges.py", "type(v) is int and _within(v, least, most)", "type(v) is int", "fabrics"),
    ("paper/runs.py", "if len(name.encode()) > LONGEST:", "if False:", "run_names"),
    ("paper/runs.py", "if not re.fullmatch(", "if False and not re.fullmatch(", "run_names"),
    (
        "paper/cli.py",
        "except TyperException as error:",
        "except ZeroDivisionError as error:",
        "flags",
    ),
    (
        "paper/cli.py",
        "if name == runs.PUBLISHED:\n        raise",
        "if False:\n        raise",
        "flags",
    ),
    ("commands/line.py", "def error(", "def other(", "flags"),
    ("network/layers.py", "if min(study.levels) >= most:", "if False:", "parameters"),
    ("network/fabric.py", "if name not in known or", "if False and", "fabrics"),
    ("model/filling.py", "and not 1 <= k <= experts:", "and False:", "models"),
    ("model/filling.py", "if parts:", "if False:", "models"),
    ("model/load.py", "if not hub and not", "if False and not", "models"),
    (
        "model/vocabulary.py",
        'raise TokenizerError(f"tokenizer.json: is no tokenizer: {error}") from None',
        "raise",
        "tokenizers",
    ),
    ("model/vocabulary.py", "if not isinstance(name, str | None):", "if False:", "tokenizers"),
    ("model/corpus.py", "if not code.ids:", "if False:", "tokenizers"),
    ("model/files.py", "if not isinstance(text, str):", "if False:", "text"),
    ("model/files.py", "if twice := ", "if False and ", "text"),
    ("model/files.py", "except (ValueError, RecursionError):\n                rule", None, "text"),
    ("model/texts.py", 'elif ":" in source:', "elif False:", "text"),
    ("model/texts.py", "if not shown:", "if False:", "text"),
    (
        "routing/trace.py",
        "int(index.max()) >= self.experts",
        "int(index.max()) > self.experts",
        "traces",
    ),
    ("routing/trace.py", "int(index.min()) < 0 or ", "", "traces"),
    (
        "routing/trace.py",
        "if (twice := order[:, :, 1:] == order[:, :, :-1]).any():",
        "if False:",
        "traces",
    ),
    ("routing/trace.py", '<= parts["experts"] <= MOST', '<= parts["experts"]', "traces"),
    ("routing/trace.py", "if most >= known:", "if False:", "traces"),
    ("routing/others.py", "| (numbers < 0)", "", "counts"),
    ("routing/others.py", "| (numbers > MOST)", "", "counts"),
    ("routing/recorded.py", "if heads.duplicated().any():", "if False:", "counts"),
    ("engines/recording.py", "if logical.max() >= MOST:", "if False:", "counts"),
    (
        "engines/content.py",
        "except (MemoryError, RecursionError):",
        "except ZeroDivisionError:",
        "counts",
    ),
    ("measure/sound.py", "if found.empty:", "if False:", "measured"),
    ("measure/sound.py", "if lacking := ", "if False and ", "measured"),
    ("measure/sound.py", "if bad.any():", "if False:", "measured"),
    ("measure/sound.py", "if not isinstance(found, dict):", "if False:", "measured"),
    ("measure/sound.py", "is not kind:", "is None:", "measured"),
    ("balance/checkpoint.py", "if facts.get(name) != value:", "if False:", "checkpoints"),
    ("balance/checkpoint.py", "(SafetensorError, OSError,", "(OSError,", "checkpoints"),
    (
        "network/filling.py",
        "flows.finish[flow] - shift",
        "flows.finish[flow] + shift",
        "test_fluid.py::test_what_a_link_gained_by_settling_together_is_given_back",
    ),
    (
        "paper/stale.py",
        "path is None or provenance.sha256(path) != sha",
        "path is None",
        "test_publish.py::test_a_changed_tag_or_file_is_staleness_and_prose_is_not",
    ),
    (
        "paper/cli.py",
        "with runner.sole(path):\n            shutil",
        "if path:\n            shutil",
        "test_runner.py::test_what_is_held_is_neither_published_to_nor_removed",
    ),
    (
        "paper/intact.py",
        "elif provenance.sha256(path) != digest:",
        "elif False:",
        "test_intact.py::test_damage_is_named_before_a_chapter_reads_it",
    ),
)
# what a process of its own says of one kind of row: whether some row is not refused as it must be
TRIED = """import sys
sys.path.insert(0, "tests")
import resource, tempfile, pathlib, bad_input
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for case in getattr(bad_input, sys.argv[1])():
    with tempfile.TemporaryDirectory() as folder:
        told = bad_input.said(case, pathlib.Path(folder))
    if case.words not in told or "Traceback" in told or len(told.splitlines()) != 1:
        if not (told.splitlines() and all(": must " in line for line in told.splitlines())):
            print(case.given.encode("ascii", "backslashreplace").decode())
            sys.exit(3)
        if case.words not in told:
            print(case.given.encode("ascii", "backslashreplace").decode())
            sys.exit(3)
"""


def missed(home: Path, file: str, old: str, new: str | None, kind: str) -> str:
    """The row that a mutant lets in, or the test that fails by it; "" if none does."""
    path = home / "lib" / file
    whole = path.read_text()
    if old not in whole:
        raise ValueError(f"mutants: lib/{file}: {old!r}: must stand there")
    first = old.replace("(ValueError, RecursionError)", "ValueError") if new is None else new
    path.write_text(whole.replace(old, first))
    by_test = "::" in kind
    line = ["-m", "pytest", "-q", "-x", f"tests/{kind}"] if by_test else ["-c", TRIED, kind]
    try:
        environment = {**os.environ, "PYTHONPATH": str(home), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, *line],
            cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "a row that never ends"
    finally:
        path.write_text(whole)
    if by_test and done.returncode not in (0, 1):
        raise RuntimeError(f"mutants: tests/{kind}: no test was run: {done.stdout[-500:]}")
    if by_test:
        return kind if done.returncode else ""
    return done.stdout.strip() or ("an error of its own" if done.returncode else "")


def main(numbers: list[str]) -> int:
    """Try the mutants, or those of these numbers, and say what missed each."""
    chosen = [int(number) for number in numbers] or range(len(MUTANTS))
    alive = 0
    with TemporaryDirectory() as folder:
        home = Path(folder) / "copy"
        ignored = shutil.ignore_patterns("_build", ".git", ".venv", "__pycache__")
        shutil.copytree(ROOT, home, ignore=ignored)
        for number in chosen:
            found = missed(home, *MUTANTS[number])
            alive += not found
            told = json.dumps(dict(mutant=number, file=MUTANTS[number][0], row=found or "NONE"))
            print(told, flush=True)
    print(f"{len(chosen)} mutants, {alive} that nobody missed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
