"""How far measurements reach: which term of a layer's time rests on what was measured here, on what
others published, and on neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

Tables = Mapping[str, pd.DataFrame]
TERMS = ("start", "wire", "arithmetic", "order")
HERE, PUBLISHED, BEYOND = "measured here", "published", "extrapolated"
ALLTOALL = Path(__file__).parents[2] / "data/published/alltoall.csv"


@dataclass(frozen=True)
class Reach:
    """The most that was measured: devices of an exchange, bytes that a device gets or sends in a
    layer, rows of its experts, all in bfloat16; and devices of others' published all-to-alls.

    calibrated: whether the constants are measured ones; if not, all are datasheets'.
    """

    devices: int
    layer_bytes: int
    rows: int
    published_devices: int
    calibrated: bool = True


def of(tables: Tables, kind: str) -> Reach:
    """How far the records of calibration reach, for constants of this kind ("measured" or
    "published").
    """
    others = int(pd.read_csv(ALLTOALL).devices.max())
    if kind != "measured" or not all(len(tables.get(name, ())) for name in ("exchange", "layer")):
        return Reach(0, 0, 0, others, calibrated=False)
    layer = tables["layer"]
    return Reach(
        devices=int(min(tables["exchange"].devices.max(), layer.devices.max())),
        layer_bytes=int(layer.own_bytes.max()),
        rows=int(max(layer.rank_rows.max(), tables["compute"].rows.max())),
        published_devices=others,
    )


def labels(cases: pd.DataFrame, known: Reach) -> pd.DataFrame:
    """Of each case what every one of TERMS rests on.

    cases: devices, own_bytes (the most that a device gets or sends), rows (of its experts),
    weight_bytes.  A term is "extrapolated" where a size lies beyond what was measured, and
    the start "published" as far as published exchanges go.  Datasheets alone are "published" where
    they are used as they stand, on one device.
    """
    far = cases.devices > known.devices
    large = cases.own_bytes > known.layer_bytes
    other = (cases.rows > known.rows) | (cases.weight_bytes != 2)
    found = pd.DataFrame(
        {
            "start": far.map({True: BEYOND, False: HERE}),
            "wire": (far | large).map({True: BEYOND, False: HERE}),
            "arithmetic": other.map({True: BEYOND, False: HERE}),
            "order": large.map({True: BEYOND, False: HERE}),
        }
    )
    near = far & (cases.devices <= known.published_devices)
    found.loc[near, "start"] = PUBLISHED
    if not known.calibrated:
        found.loc[:, ["start", "arithmetic", "order"]] = PUBLISHED
    return found


def beside(table: pd.DataFrame, cases: pd.DataFrame, known: Reach) -> pd.DataFrame:
    """A table with two columns more: which terms of each row are `published`, which
    `extrapolated`; "none" where none is.
    """
    found = labels(cases, known).to_dict("records")
    own = {
        name: [", ".join(t for t in TERMS if row[t] == name) or "none" for row in found]
        for name in (PUBLISHED, BEYOND)
    }
    return table.assign(**own)


def on(devices: int, known: Reach, terms: Sequence[str] = TERMS) -> str:
    """`told` of so many devices, whatever the sizes."""
    sizes = dict(own_bytes=0, rows=0, weight_bytes=2.0)
    return told(pd.DataFrame([sizes | dict(devices=devices)]), known, terms)


def told(cases: pd.DataFrame, known: Reach, terms: Sequence[str] = TERMS) -> str:
    """What the terms of all cases rest on, in words: "start: published; wire: extrapolated; …"."""
    found = labels(cases, known)
    parts = []
    for term in terms:
        seen = [name for name in (HERE, PUBLISHED, BEYOND) if (found[term] == name).any()]
        parts.append(f"{term}: {' or '.join(seen)}")
    return "; ".join(parts)


def table(known: Reach) -> pd.DataFrame:
    """How far each term is known, for readers: term, measured_here, published, in words; beyond
    them it is extrapolated.
    """
    none, size = "–", f"{known.layer_bytes / 2**20:.0f} MiB a device"
    if not known.calibrated:
        rows = [(term, none, "datasheet") for term in TERMS]
        return pd.DataFrame(rows, columns=["term", "measured_here", "published"])
    few, others = f"{known.devices} devices", f"{known.published_devices} devices of one node"
    rows = [
        ("start", few, others),
        ("wire inside a node", f"{few}, {size}", none),
        ("wire between nodes", none, "rate of a network card"),
        ("arithmetic", f"{known.rows} rows in bfloat16", none),
        ("order", size, none),
    ]
    return pd.DataFrame(rows, columns=["term", "measured_here", "published"])
