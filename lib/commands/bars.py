"""``python -m lib.commands.bars FOLDER [CSV]``: the GPU memory that each chapter of a run took."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from lib.paper import compare

# GB that a chapter may take with a model of 13 GB, of 80
MOST = {"01": 16, "02": 24, "03": 24}
SEEN = ("hardware", "commit", "date")


def table(folder: Path) -> pd.DataFrame:
    """By chapter: seconds, peak GB on one GPU, the bar and whether it is kept, and on what it was
    seen; NaN where a chapter did not end.
    """
    known, rows = compare.records(folder), []
    for chapter, most in MOST.items():
        facts = known.get(chapter, {}).get("provenance", {})
        peak = facts.get("peak_gpu_bytes", float("nan")) / 1e9
        rows.append(
            {
                "chapter": chapter,
                "seconds": facts.get("seconds", float("nan")),
                "peak_gb": round(peak, 2),
                "most_gb": most,
                "kept": peak <= most,
                **{name: facts.get(name) for name in SEEN},
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    line = argparse.ArgumentParser(prog="python -m lib.commands.bars", description=__doc__)
    line.add_argument("folder", type=Path)
    line.add_argument("csv", type=Path, nargs="?")
    asked = line.parse_args()
    found = table(asked.folder)
    if asked.csv:
        found.to_csv(asked.csv, index=False)
    print(found.drop(columns=[*SEEN]).to_string(index=False))
