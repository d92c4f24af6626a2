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
        "changed_data",
        "versions",
        "run",
        "parameters",
        "given",
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
    assert files == ["f.csv", "f.svg"]


def test_claims_and_checks(chapter):
    chapter.value("x", 1.0, interval=(0.5, 1.5))
    chapter.value("y", float("nan"))
    for predicate, verdict in (
        ("x > 0", "supported"),
        ("x > 2", "not supported"),
        ("x > 1", "undecided"),
        ("x > 1 and y > 0", "not run"),
    ):
        chapter.claim(verdict, "It holds.", predicate)
        assert chapter.claims[verdict]["verdict"] == verdict
    with pytest.raises(RuntimeError, match="check failed: one is two"):
        chapter.check("one is two", 1 == 2)


def test_columns_of_a_table_are_published_with_units_and_intervals(chapter):
    table = pd.DataFrame(
        {
            "family": ["drop", "reroute"],
            "arm": ["with", "with"],
            "delta": [0.25, float("nan")],
            "delta_low": [0.2, float("nan")],
            "delta_high": [0.3, float("nan")],
            "value": [1, 2],
        }
    )
    chapter.values_of(table, by=("family", "arm"), delta=".3f", value="d")
    chapter.values_of(table.iloc[0], "one", kind="setting", delta=".1f")
    assert list(chapter.values) == [
        "delta_drop_with",
        "drop_with",
        "delta_reroute_with",
        "reroute_with",
        "delta_one",
    ]
    first = chapter.values["delta_drop_with"]
    assert first["interval"] == [0.2, 0.3] and first["unit"] == "nats/token"
    assert first["text"] == "0.250" and chapter.values["reroute_with"]["value"] == 2
    assert chapter.values["delta_reroute_with"]["value"] is None
    assert chapter.values["delta_reroute_with"]["interval"] is None
    assert chapter.values["delta_one"]["kind"] == "setting"
    with pytest.raises(ValueError, match="'delta_one': is published already"):
        chapter.values_of(table.iloc[0], "one", delta=".1f")


def test_formats_and_units_are_those_of_the_columns(chapter):
    table = pd.DataFrame(
        {
            "arm": ["with"],
            "accuracy": [0.5512],
            "delta": [0.25],
            "delta_low": [0.2],
            "delta_high": [0.3],
            "documents": [12345],
        }
    )
    chapter.values_of(table, by=["arm"])
    chapter.values_of(table.iloc[0], "one", of=["documents"])
    chapter.values_of(table, "other", of=["accuracy"], delta=".1f")
    texts = {name: known["text"] for name, known in chapter.values.items()}
    assert texts == dict(
        accuracy_with="55.1%",
        delta_with="0.250",
        documents_with="12,345",
        documents_one="12,345",
        accuracy_other="55.1%",
        delta_other="0.2",
    )
    assert chapter.values["delta_with"]["interval"] == [0.2, 0.3]
    named = pd.DataFrame({"name": ["delta"], "value": [0.25]})
    chapter.values_of(named, by=["name"])
    assert chapter.values["delta"]["unit"] == "nats/token"
    assert chapter.values["delta"]["text"] == "0.250"
    chapter.value("number", 7.6, fmt="d")  # shown as a whole number, kept as it is
    assert chapter.values["number"]["text"] == "8" and chapter.values["number"]["value"] == 7.6


def test_texts_state_values_and_figures_tell_their_data(chapter):
    chapter.value("x", 0.5, unit="s", interval=(0.25, 0.75), fmt=".2f")
    chapter.claim("c", "It takes {val}`07.x` and {val}`09.y`.", "x > 0")
    assert chapter.claims["c"]["text"] == "It takes 0.50 s [0.25, 0.75] and not available."
    data = pd.DataFrame({"arm": ["with"], "gini": [0.125]})
    fig, _ = plt.subplots()
    told = data.set_index("arm").gini
    chapter.figure("f", fig, data, caption="At {val}`07.x`.", alt="Bars.", reads=told)
    assert chapter.figures["f"]["caption"] == "At 0.50 s [0.25, 0.75]."
    assert chapter.figures["f"]["alt"] == "Bars. with balance loss: 0.125."


def test_a_file_that_the_notebook_does_not_declare_is_refused(tmp_path):
    chapter = values.Chapter("00_base_model", SimpleNamespace(run_dir=str(tmp_path)))
    chapter.uses(provenance.repository() / "data/corpus.csv.xz")
    with pytest.raises(
        ValueError, match="reads data/published/step.csv: must be named by the notebook"
    ):
        chapter.uses(provenance.repository() / "data/published/step.csv")
    own = chapter.path("own.txt")
    own.write_text("x")
    chapter.uses(own)
    assert list(chapter.files) == ["data/corpus.csv.xz", "00_base_model/own.txt"]


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
        "<svg ></svg>",
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
