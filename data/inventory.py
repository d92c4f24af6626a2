"""The inventory of this folder: `manifest.csv` lists every file of data with its SHA-256, its
origin and its licence.

``python data/inventory.py`` renews it.  Origin and licence of a listed file are kept; of a new one
they are those of what this project computes, until its line says otherwise.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib import provenance

DATA = Path(__file__).parent
OWN = {"origin": "computed by this project", "licence": "MIT"}


def files(folder: Path) -> list[Path]:
    """The files below a folder that are listed: all but scripts, hidden ones, the list itself."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    data = (path for path in found if path.suffix not in (".py", ".pyc"))
    return sorted(path for path in data if path != folder / "manifest.csv")


def listed(folder: Path) -> pd.DataFrame:
    """The list of a folder as it stands: file (below the folder), sha256, origin, licence."""
    return pd.read_csv(folder / "manifest.csv")


def renewed(folder: Path) -> pd.DataFrame:
    """The list of a folder as it should be."""
    known = {}
    if (folder / "manifest.csv").is_file():
        known = listed(folder).set_index("file")[["origin", "licence"]].to_dict("index")
    names = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    return pd.DataFrame(
        [
            {"file": name, "sha256": provenance.sha256(path)} | known.get(name, OWN)
            for name, path in names.items()
        ]
    )


def write(folder: Path) -> None:
    """Renew the list of a folder, whole or not at all."""
    table = renewed(folder)
    with provenance.writing(folder / "manifest.csv") as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    write(DATA)
