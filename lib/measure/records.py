"""What was measured, on disk: per device, number of devices and experiment one table, and its
provenance beside it.
"""

from __future__ import annotations

import json
import lzma
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import provenance
from lib.measure import grid, sound

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# lists, a number per rank; see grid.described
OF_RANK = ("rank_rows", "rank_active", "rank_tile_rows")


def _back(rows: pd.DataFrame) -> pd.Series:
    """cost.features' back_bytes of exchanges and layers of two devices, each of which sends
    source_bytes; of a pair only one sends.
    """
    back = rows.wire_bytes - (rows.own_bytes - rows.source_bytes)
    return back.where(rows["skew"] != "pair", 0) if "skew" in rows else back


def _source(rows: pd.DataFrame) -> np.ndarray:
    """Bytes that a device sends of its own tokens, its copy to itself included."""
    shapes = [grid.SHAPES[name] for name in rows["shape"]]
    return rows.tokens.to_numpy() * np.array([2 * shape.k * shape.hidden for shape in shapes])


# columns that earlier tables lack, from their other columns
UNTOLD: dict[str, dict[str, Callable[[pd.DataFrame], object]]] = {
    "exchange": {
        "launch": lambda rows: "queued",
        "source_bytes": lambda rows: rows.size_bytes,
        "back_bytes": _back,
    },
    "layer": {
        "placement": lambda rows: np.where(rows.routes == "level", "aimed", "in order"),
        "source_bytes": _source,
        "back_bytes": _back,
    },
}
PHASES = {
    "exchange": ["total"],
    "compute": ["total"],
    "layer": ["dispatch", "compute", "combine", "total"],
    "native": ["total"],
}


def table(configs: list[dict], found: list[list], phases: list[str]) -> pd.DataFrame:
    """One row per configuration, phase and rank; rank −1 is the slowest rank of each repetition.

    found: per configuration its visits, each [ranks, repetitions, phases] in seconds; one that was
    not visited has no row.  Phases last from the end of the one before; total from the barrier.
    Times in µs: quantiles, ends and mean of all repetitions, none left out; between_visits:
    (highest − lowest median of a visit) / median.
    """
    rows = []
    for c, seen in zip(configs, found, strict=True):
        plain = {name: v for name, v in c.items() if name not in ("index", "home", *OF_RANK)}
        visits = [_phases(1e6 * ends, len(phases)) for ends in seen]
        for rank in range(len(visits[0]) if visits else 0):
            last = rank == len(visits[0]) - 1
            own = {n: max(c[n]) if last else c[n][rank] for n in OF_RANK if n in c}
            for number, phase in enumerate(phases):
                times = _times([visit[rank, :, number] for visit in visits])
                rows.append(plain | own | dict(rank=-1 if last else rank, phase=phase) | times)
    return pd.DataFrame(rows)


def _phases(ends: np.ndarray, count: int) -> np.ndarray:
    """What each phase took, and the whole where there are several, of the moments [ranks, n, …] at
    which they ended; and as one more rank the slowest of each repetition.
    """
    if count > 1:
        ends = np.concatenate([np.diff(ends, axis=-1, prepend=0), ends[..., -1:]], -1)
    return np.concatenate([ends, ends.max(0, keepdims=True)])


def _times(visits: list[np.ndarray]) -> dict[str, float]:
    """How one rank's times of one phase, in µs, are described; see `table`."""
    t, medians = np.concatenate(visits), [np.median(visit) for visit in visits]
    return dict(
        visits=len(visits),
        n=len(t),
        mean_us=t.mean(),
        min_us=t.min(),
        **{f"p{round(100 * q)}_us": np.quantile(t, q) for q in QUANTILES},
        max_us=t.max(),
        between_visits=(max(medians) - min(medians)) / max(np.median(t), 1e-9),
    )


def card() -> list[str]:
    """What nvidia-smi says of every GPU: name, driver, clocks, power and temperature; empty where
    there is none.
    """
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
    query += ",power.draw,power.limit,temperature.gpu"
    return said("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")


def said(*command: str) -> list[str]:
    """The lines that a command prints, without a terminal's colours; none where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).strip().splitlines()


def save(folder: Path, name: str, results: pd.DataFrame, facts: dict) -> None:
    """Write the provenance and then the table, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with provenance.writing(folder / f"{name}.json") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    text = results.to_csv(index=False, float_format="%.6g")
    with provenance.writing(folder / f"{name}.csv.xz") as part:
        part.write_bytes(lzma.compress(text.encode(), preset=9))


def _date(table: Path) -> tuple[str, Path]:
    source = table.with_name(table.name.replace(".csv.xz", ".json"))
    return sound.facts(source)["date"] if source.is_file() else "", table


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
        for path in sorted(folder.glob("*/*.csv.xz"), key=_date)
    ]
    for i, path in found:
        again = any(j < i and other.parent.name == path.parent.name for j, other in found)
        machine = path.parent.name + (", again" if again else "")
        name = path.name.removesuffix(".csv.xz")
        source = path.with_name(f"{name}.json")
        if name not in PHASES or not source.is_file():
            names = ", ".join(PHASES)
            raise ValueError(
                f"records.load: {machine}/{path.name}: must be one of {names}, with its .json "
                "beside it"
            )
        known = facts[f"{machine}/{name}"] = sound.facts(source)
        made = sound.table(path, name)
        for column, value in UNTOLD.get(name, {}).items():
            made[column] = made[column] if column in made else value(made)
        tables.setdefault(name, []).append(made.assign(machine=machine, devices=known["devices"]))
        files += [source, path]
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return joined, facts, files


def described(facts: dict[str, dict]) -> pd.DataFrame:
    """The provenance of measured tables for readers, a row each; of configurations how many of the
    declared ones were measured; visits: the fewest that one of them got.
    """
    rows = [
        dict(
            machine=name.split("/")[0],
            experiment=name.split("/")[1],
            configurations=f"{own['measured']} of {own['declared']}",
            devices=own["devices"],
            torch=own["versions"]["torch"],
            nccl=own["versions"]["nccl"],
            seconds=own["seconds"],
            commit=own["commit"][:7],
            experts=own["experts_path"],
            visits=own["fewest_visits"],
            date=own["date"][:10],
        )
        for name, own in facts.items()
    ]
    return pd.DataFrame(rows or [dict(machine=None, experiment=None, configurations=None)])


def fresh(facts: dict[str, dict]) -> str:
    """The machine that was measured last among those with a grid of their own (a seed that is not
    0): a test of what others were fitted on; "" if there is none.
    """
    own = {known["date"]: name.split("/")[0] for name, known in facts.items() if known["seed"]}
    return own[max(own)] if own else ""


def machines(facts: dict[str, dict], without: str = "") -> str:
    """The names of the machines that were measured, as words, `without` one of them."""
    names = {name.split("/")[0] for name in facts} - {without}
    return ", ".join(sorted(names)) or "no machine yet"


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
        lack = f"{devices} GPUs, where at least 2 are needed"
        return f"Not measured here: {lack}; recorded measurements are used."
    program = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
    own = ["lib.measure.collectives", str(folder), "--budget-s", str(budget_s)]
    own += ["--seed", str(seed), "--trace", *map(str, traces)]
    done = subprocess.run(
        [sys.executable, "-m", *program, str(devices), "-m", *own],
        capture_output=True,
        text=True,
        check=False,
        env=provenance.environment(OMP_NUM_THREADS="1", MOE_COMMIT=commit),
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("collectives:")]
        raise RuntimeError(
            lines[0] if lines else f"records.run: torchrun failed: {done.stderr[-500:]}"
        )
    return f"Measured here, on {devices} GPUs: " + "; ".join(done.stdout.splitlines())
