"""Which terms rest on measurements: by hand, and from the records."""

import pandas as pd
from conftest import ROOT

from lib.measure import reach, records

KNOWN = reach.Reach(devices=2, layer_bytes=1000, rows=50, published_devices=8)
COLUMNS = ["devices", "own_bytes", "rows", "weight_bytes"]
CASES = pd.DataFrame(
    [(2, 1000, 50, 2.0), (8, 10, 10, 2.0), (16, 2000, 51, 2.0), (2, 10, 10, 1.0)], columns=COLUMNS
)


def test_labels_by_hand():
    found = reach.labels(CASES, KNOWN)
    here, known, beyond = reach.HERE, reach.PUBLISHED, reach.BEYOND
    assert found.start.tolist() == [here, known, beyond, here]
    assert found.wire.tolist() == [here, beyond, beyond, here]
    assert found.arithmetic.tolist() == [here, here, beyond, beyond]
    assert found.order.tolist() == [here, here, beyond, here]
    table = reach.beside(CASES, CASES, KNOWN)
    assert table.extrapolated.tolist() == [
        *("none", "wire", "start, wire, arithmetic, order", "arithmetic")
    ]
    assert table.published.tolist() == ["none", "start", "none", "none"]


def test_words():
    assert reach.on(8, KNOWN, ["start", "wire"]) == "start: published; wire: extrapolated"
    told = reach.told(CASES[:2], KNOWN)
    assert told.startswith("start: measured here or published; wire: measured here or extrapolated")


def test_the_records_say_how_far_they_go():
    tables, _, _ = records.load(ROOT / "data/measured")
    known = reach.of(tables, "measured")
    assert (known.devices, known.published_devices) == (2, 8) and known.calibrated
    assert known.layer_bytes == tables["layer"].own_bytes.max()
    assert reach.table(known).measured_here[0] == "2 devices"
    bare = reach.of(tables, "published")
    assert reach.on(8, bare).startswith("start: published; wire: extrapolated; arithmetic: pub")
    assert set(reach.table(bare).published) == {"datasheet"}
