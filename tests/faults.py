"""What a run survives, tried: killed at seeded random moments, and every bad input of the table.

``python tests/faults.py`` tries all of it and writes data/faults: kills.csv, cases.csv, facts.json.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import small

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data" / "faults"
KILLS = 20


def values(run: Path) -> dict:
    """All values of a run's chapters."""
    made = sorted(run.glob("*/values.json"))
    return {path.parent.name: json.loads(path.read_text())["values"] for path in made}


def finished(repository: Path, name: str) -> tuple[float, list[str]]:
    """Compute a run to its end, waiting for whoever holds it; (seconds, chapters computed)."""
    began = time.monotonic()
    while time.monotonic() - began < 120:
        done = small.ended(small.computing(repository, name, seed=7))
        if "computed by another process" not in done.stderr:
            if done.returncode:
                raise RuntimeError(done.stderr[-500:])
            return time.monotonic() - began, small.ran(done)
        time.sleep(0.2)
    raise RuntimeError("the lock of a killed run is still held")


def killed(repository: Path, name: str, after: float) -> dict:
    """Kill the process group of a run with SIGKILL `after` seconds, and let the same command go on:
    what was left, what was computed again, seconds of that.
    """
    process = small.computing(repository, name, group=True, seed=7)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder = repository / "_build/runs" / name
    left = [path.parent.name for path in sorted(folder.glob("*/values.json"))]
    seconds, again = finished(repository, name)
    stray = [path.name for path in folder.rglob(".part-*")]
    return dict(
        killed_after_s=round(after, 2),
        finished_before=" ".join(left) or "none",
        computed_again=" ".join(line.split()[0] for line in again) or "none",
        went_on_s=round(seconds, 1),
        half_written=" ".join(stray) or "none",
    )


def kills(folder: Path, count: int, seed: int = 0) -> Iterator[dict]:
    """`count` runs killed at moments drawn from the time that an undisturbed one takes, each of
    which must end with its values.
    """
    repository = small.repository(folder / "small")
    whole, _ = finished(repository, "whole")
    expected = values(repository / "_build/runs/whole")
    shutil.move(repository / "_build/runs/whole", folder / "whole")  # nothing is taken over from it
    drawn = random.Random(seed)
    for number in range(count):
        row = killed(repository, "killed", drawn.uniform(0, whole))
        run = repository / "_build/runs/killed"
        row["values"] = "equal" if values(run) == expected else "differ"
        shutil.rmtree(run)
        yield {"kill": number + 1, **row}


def cases() -> list[dict]:
    """The table of bad inputs: kind, given, what it said, whether that is as it must be."""
    import bad_input

    rows = []
    for case in bad_input.cases():
        with TemporaryDirectory() as folder:
            told = (
                bad_input.said(case, Path(folder))
                .replace(f"{folder}/", "")
                .replace(folder, "FOLDER")
            )
        fine = case.words in told and "Traceback" not in told
        first = told.splitlines()[0] if told else ""
        shown = first if len(first) <= 160 else f"{first[:160]}…"
        given = case.given.encode("ascii", "backslashreplace").decode()
        rows.append(dict(kind=case.kind, given=given, said=shown, refused="yes" if fine else "NO"))
    return rows


def write(name: str, rows: list[dict]) -> None:
    """A table below data/faults, whole or not at all."""
    FOLDER.mkdir(exist_ok=True)
    with provenance.writing(FOLDER / name) as part, part.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> int:
    """Write both tables and when and from what they were made; 1 if one row is not as it must."""
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    commit = provenance.commit()
    rows, lines = cases(), []
    write("cases.csv", rows)
    with TemporaryDirectory() as folder:
        for row in kills(Path(folder), KILLS):
            lines.append(row)
            write("kills.csv", lines)
            told(commit, rows, lines)
    return 1 if told(commit, rows, lines) else 0


def told(commit: str, rows: list[dict], lines: list[dict]) -> int:
    """Write when and from what both tables were made; how many rows are not as they must be."""
    bad = sum(row["refused"] == "NO" for row in rows) + sum(r["values"] != "equal" for r in lines)
    facts = dict(commit=commit, date=datetime.now(UTC).strftime("%Y-%m-%d"), cases=len(rows))
    facts |= dict(kills=len(lines), bad=bad, machine=provenance.hardware())
    with provenance.writing(FOLDER / "facts.json") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")

    return bad


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from lib import provenance  # noqa: E402 (the repository is on the path only now)

if __name__ == "__main__":
    sys.exit(main())
