"""``python -m lib.commands.bars FOLDER [CSV]``: the GPU memory that each chapter of a run took."""

from __future__ import annotations

import sys
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
    found = table(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        found.to_csv(sys.argv[2], index=False)
    print(found.drop(columns=[*SEEN]).to_string(index=False))
