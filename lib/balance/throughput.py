"""How fast the training loop is beside the Trainer of transformers: what `tests/bench_training.py`
measured and left in a folder.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.balance import runs

RACE, PROFILE = "throughput.csv", "profile.csv"
LEAST = 1.3  # times the Trainer's speed, for which a loop of one's own is worth its code


def files(folder: Path) -> list[Path]:
    """The files that were measured; none where nothing was."""
    return [folder / name for name in (RACE, PROFILE) if (folder / name).is_file()]


def raced(folder: Path) -> pd.Series:
    """trainer_ratio, the speed of this book's loop over that of the Trainer, mean over rounds with
    its 95 % interval; rate_book and rate_trainer, thousand tokens per second.  NaN where nothing
    was measured.
    """
    rows = _race(folder)
    speed = rows.pivot(index="round", columns="path", values="tokens_per_s")
    own, other = (speed.get(name, pd.Series(dtype=float)) for name in ("this book", "Trainer"))
    return pd.Series(
        runs.mean(own / other, "trainer_ratio")
        | {"rate_book": own.mean() / 1e3, "rate_trainer": other.mean() / 1e3}
    )


def device(folder: Path) -> str:
    """Where the race was run."""
    return " and ".join(dict.fromkeys(_race(folder).device)) or "no device yet"


def _race(folder: Path) -> pd.DataFrame:
    blank = pd.DataFrame({"round": [], "path": [], "tokens_per_s": [], "device": []})
    return pd.read_csv(folder / RACE) if (folder / RACE).is_file() else blank


def profile(folder: Path) -> pd.DataFrame:
    """The share of a training step by kind of kernel; no rows where nothing was measured."""
    path = folder / PROFILE
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame({"kind": [], "share": []})
    return rows[["kind", "share"]]
