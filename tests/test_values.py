"""What a chapter publishes, and that nothing is ever half-written."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib import provenance
from lib.paper import markup, values


@pytest.fixture
def chapter(tmp_path):
    return values.Chapter(
        "07_test", SimpleNamespace(run_dir=str(tmp_path), corpus="/some/where/file.xz")
    )


def read(chapter):
    return json.loads(chapter.path("values.json").read_text())


def test_a_value_is_published_once_with_all_that_is_known(chapter):
    chapter.value("a", 0.123456, unit="s", kind="simulated", interval=(0.1, 0.2), fmt=".2f")
    chapter.value("n", 3, fmt="d")
    chapter.value("nothing", float("nan"))
    with pytest.raises(ValueError, match="'a': is published already"):
        chapter.value("a", 1)
    with pytest.raises(ValueError, match="kind = 'guessed'"):
        chapter.value("b", 1, kind="guessed")
    chapter.close()
    found = read(chapter)["values"]
    assert found["a"] == dict(
        value=0.123456,
        unit="s",
        kind="simulated",
        interval=[0.1, 0.2],
        fmt=".2f",
        text="0.12",
        tolerance="0.02",
        cell=None,
    )
    assert (
        found["n"]["text"] == "3"
        and found["nothing"]["text"] == "not available"
        and found["nothing"]["value"] is None
    )


def test_provenance_names_commit_hardware_files_and_no_folder_of_this_machine(chapter):
    chapter.uses(provenance.repository() / "pyproject.toml")
    chapter.close()
    facts = read(chapter)["provenance"]
    assert set(facts) == {
        "commit",
        "date",
        "hardware",
        "versions",
        "run",
        "parameters",
        "files",
        "sources",
        "seconds",
        "peak_memory_bytes",
    }
    assert (
        len(facts["files"]["pyproject.toml"]) == 64 and facts["parameters"]["corpus"] == "file.xz"
    )
    assert facts["peak_memory_bytes"] > 1e7 and "torch" in facts["versions"]


def test_a_figure_needs_caption_and_alternative_text(chapter):
    fig, _ = plt.subplots()
    data = pd.DataFrame({"x": [1]})
    with pytest.raises(ValueError, match="must have a caption and an alternative text"):
        chapter.figure("f", fig, caption="c", alt=" ", data=data)
    chapter.figure("f", fig, caption="c", alt="a", data=data)
    files = sorted(f.name for f in (chapter.folder / "figures").iterdir())
    assert files == ["f.csv", "f.png"]


def test_claims_and_checks(chapter):
    chapter.value("x", 1.0, interval=(0.5, 1.5))
    for predicate, verdict in (
        ("x > 0", "supported"),
        ("x > 2", "not supported"),
        ("x > 1", "undecided"),
    ):
        chapter.claim(verdict, "It holds.", predicate)
        assert chapter.claims[verdict]["verdict"] == verdict
    with pytest.raises(RuntimeError, match="check failed: one is two"):
        chapter.check("one is two", 1 == 2)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "x.json"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), provenance.writing(target) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["x.json"]


def test_markup_in_texts_is_shown_as_text(chapter, capsys):
    shown = markup.figure(
        "<script>",
        "s",
        dict(alt="<script>", caption="a *b* <script>", interactive={"x": "<script>"}),
    )
    assert "<script>" not in shown and "<em>b</em>" in shown


def test_missing_results_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebooks/09_none.ipynb"):
        values.find(str(tmp_path), "09_none", "x.npz")
    published = values.find(str(tmp_path), "01_profile", "trace_*.npz")
    assert [path.name for path in published] == ["trace_with.npz", "trace_without.npz"]
    (tmp_path / "01_profile").mkdir()
    (tmp_path / "01_profile/trace_model.npz").touch()
    assert values.find(str(tmp_path), "01_profile", "trace_*.npz") == [
        tmp_path / "01_profile/trace_model.npz"
    ]
