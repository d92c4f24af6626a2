"""What is published of a run: pictures once, and when a later library counts as having changed
nothing.
"""

import base64
import json
import shutil

import numpy as np
import pytest
from conftest import ROOT

from lib.paper import chapters, publish, stale


def test_a_picture_lies_once_and_comes_back(tmp_path):
    (tmp_path / "figures").mkdir()
    content = bytes(range(256))
    (tmp_path / "figures/load.png").write_bytes(content)
    copy = json.dumps(
        {
            "html": f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}" alt="figures/load.png">'
        }
    )
    figures = {"load": {"file": "figures/load.png"}}
    thin = publish.pictures(copy, tmp_path, figures, inside=False)
    assert (
        "base64" not in thin
        and json.loads(thin)["html"] == '<img src="figures/load.png" alt="figures/load.png">'
    )
    assert publish.pictures(thin, tmp_path, figures, inside=True) == copy


def test_a_published_picture_is_small_and_looks_the_same(tmp_path):
    from PIL import Image

    from lib.paper import plots

    fig, axes = plots.figure()
    for i in range(8):
        axes[0][0].plot(range(50), [(x * (i + 1)) % 17 for x in range(50)], "o-")
    fig.savefig(tmp_path / "a.png", dpi=160)
    before, size = (
        Image.open(tmp_path / "a.png").convert("RGB"),
        (tmp_path / "a.png").stat().st_size,
    )
    publish.shrink(tmp_path / "a.png")
    after = Image.open(tmp_path / "a.png").convert("RGB")
    far = np.abs(np.asarray(before, int) - np.asarray(after, int))
    assert (
        (tmp_path / "a.png").stat().st_size < 0.6 * size
        and far.mean() < 1
        and [path.name for path in tmp_path.iterdir()] == ["a.png"]
    )


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A copy of the published profile whose library has changed since: its folder, and its run at
    the defaults.
    """
    shutil.copytree(
        ROOT / "data/reference/01", tmp_path / "01", ignore=shutil.ignore_patterns("*.npz", "*.xz")
    )
    (tmp_path / "01" / stale.CONFIRMED).unlink(missing_ok=True)
    monkeypatch.setattr(chapters, "PUBLISHED", tmp_path)
    record = json.loads((tmp_path / "01/quick.json").read_text())
    record["provenance"]["sources"]["lib/stats.py"] = "changed"
    monkeypatch.setattr(chapters, "sources", lambda chapter: record["provenance"]["sources"])
    return tmp_path, record


def changed(run) -> list[str]:
    return [
        name
        for name in stale.since(run, json.loads((run / "01/values.json").read_text()))
        if "." in name and "/" in name
    ]


def test_a_change_that_leaves_every_value_is_no_staleness(published):
    run, record = published
    before = (run / "01/quick.json").read_bytes()
    assert "lib/stats.py" in changed(run)
    assert publish.publish(run, record).name == stale.CONFIRMED
    assert "lib/stats.py" not in changed(run) and (run / "01/quick.json").read_bytes() == before
    record["provenance"]["sources"]["lib/stats.py"] = "changed again"
    assert "lib/stats.py" in changed(run)


def test_a_change_of_one_value_is_staleness(published):
    run, record = published
    publish.publish(run, record)
    record["values"]["gini_without"]["value"] *= 1.1
    record["values"]["gini_without"]["interval"] = None
    assert publish.publish(run, record).name == "quick.json"
    assert "lib/stats.py" in changed(run) and not (run / "01" / stale.CONFIRMED).exists()
