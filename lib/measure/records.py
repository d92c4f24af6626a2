"""What was measured, on disk: per device, number of devices and experiment one table, and its
provenance beside it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
OF_RANK = (
    "rank_rows",
    "rank_active",
    "rank_tile_rows",
)  # lists, a number per rank; see grid.described
PHASES = {
    "exchange": ["total"],
    "compute": ["total"],
    "layer": ["dispatch", "compute", "combine", "total"],
}


def table(configs: list[dict], found: list[list], phases: list[str]) -> pd.DataFrame:
    """One row per configuration, phase and rank; rank −1 is the slowest rank of each repetition.

    Phases last from the end of the one before; total from the barrier.  Times in µs: quantiles,
    ends and mean of all repetitions, none left out; between_visits: (highest − lowest median of a
    visit) / median.
    """
    rows = []
    for c, seen in zip(configs, found, strict=True):
        plain = {
            name: value for name, value in c.items() if name not in ("index", "home", *OF_RANK)
        }
        if not seen:
            continue
        ends = [1e6 * v for v in seen]
        parts = [
            np.concatenate([np.diff(v[..., :], axis=-1, prepend=0), v[..., -1:]], -1)
            if len(phases) > 1
            else v
            for v in ends
        ]
        parts = [np.concatenate([v, v.max(0, keepdims=True)]) for v in parts]
        whole = np.concatenate(parts, 1)  # [ranks + 1, repetitions, phases]
        for rank in range(len(whole)):
            last = rank == len(whole) - 1
            own = {n: (max if last else lambda v, r=rank: v[r])(c[n]) for n in OF_RANK if n in c}
            for number, phase in enumerate(phases):
                t = whole[rank, :, number]
                medians = [np.median(v[rank, :, number]) for v in parts]
                rows.append(
                    plain
                    | own
                    | dict(
                        rank=-1 if last else rank,
                        phase=phase,
                        visits=len(seen),
                        n=len(t),
                        mean_us=t.mean(),
                        min_us=t.min(),
                        **{f"p{round(100 * q)}_us": np.quantile(t, q) for q in QUANTILES},
                        max_us=t.max(),
                        between_visits=(max(medians) - min(medians)) / max(np.median(t), 1e-9),
                    )
                )
    return pd.DataFrame(rows)


def card() -> list[str]:
    """What nvidia-smi says of every GPU: name, driver, clocks, power and temperature; empty where
    there is none.
    """
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,power.limit,temperature.gpu"
    return said("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")


def said(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return (
            re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).strip().splitlines()
        )  # without a terminal's colours
    except (OSError, subprocess.SubprocessError):
        return []


def _place(path: Path, content: bytes) -> None:
    part = path.with_name(f".part-{path.name}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save(folder: Path, name: str, results: pd.DataFrame, facts: dict) -> None:
    """Write the provenance and then the table, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    _place(
        folder / f"{name}.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()
    )
    text = io.StringIO()
    results.to_csv(text, index=False, float_format="%.6g")
    _place(folder / f"{name}.csv.gz", gzip.compress(text.getvalue().encode(), mtime=0))


def _date(table: Path) -> tuple[str, Path]:
    source = table.with_name(table.name.replace(".csv.gz", ".json"))
    return json.loads(source.read_text())["date"] if source.is_file() else "", table


def load(*folders: Path) -> tuple[dict[str, pd.DataFrame], dict[str, dict], list[Path]]:
    """By experiment, all tables below the folders, with columns `machine` (their folder's name) and
    `devices`; by "machine/experiment" the provenance; and the files.  None at all gives empty
    results.  A machine that an earlier folder holds too is named so.  Within a folder the earliest
    measured stands first.  Refused: a table that is of no experiment or lacks its provenance.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    facts: dict[str, dict] = {}
    files = []
    found = [
        (i, path)
        for i, folder in enumerate(folders)
        for path in sorted(folder.glob("*/*.csv.gz"), key=_date)
    ]
    for i, path in found:
        again = any(j < i and other.parent.name == path.parent.name for j, other in found)
        name, machine = (
            path.name.removesuffix(".csv.gz"),
            path.parent.name + (", again" if again else ""),
        )
        source = path.with_name(f"{name}.json")
        if name not in PHASES or not source.is_file():
            raise ValueError(
                f"records.load: {machine}/{path.name}: must be one of {', '.join(PHASES)}, with its .json beside it"
            )
        known = facts[f"{machine}/{name}"] = json.loads(source.read_text())
        made = pd.read_csv(path, dtype={"skew": str, "routes": str})
        tables.setdefault(name, []).append(made.assign(machine=machine, devices=known["devices"]))
        files += [source, path]
    return (
        {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()},
        facts,
        files,
    )


def run(
    folder: Path,
    devices: int,
    budget_s: float,
    traces: list[Path],
    seed: int = 0,
    commit: str = "unknown",
) -> str:
    """Measure this machine's GPUs into `folder` with torchrun, and say so; with fewer than two, say
    that it cannot be.

    Refused: a measurement that fails, with its own line.
    """
    if devices < 2:
        return f"Not measured here: {devices} GPUs, where at least 2 are needed; recorded measurements are used."
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(devices),
        "-m",
        "lib.measure.collectives",
        str(folder),
        "--budget-s",
        str(budget_s),
        "--seed",
        str(seed),
        "--trace",
        *map(str, traces),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MOE_COMMIT": commit},
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("collectives:")]
        raise RuntimeError(
            lines[0] if lines else "records.run: torchrun failed: " + done.stderr[-500:]
        )
    return f"Measured here, on {devices} GPUs: " + "; ".join(done.stdout.splitlines())
