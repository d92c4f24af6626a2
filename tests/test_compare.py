"""One table of values: claims judged on it, two runs compared, a run against the published one."""

import json
import lzma
import shutil

import numpy as np
import pandas as pd
import pytest
import typer

from lib import provenance
from lib.paper import chapters, claims, cli, compare, side


def known(value, interval=None, **more):
    return dict(
        value=value,
        interval=interval,
        unit="",
        kind="simulated",
        text=str(value),
        tolerance="0.02",
        cell=1,
        **more,
    )


def record(parameters=None, **of):
    facts = {"parameters": parameters or {"seeds": 3, "device": "cpu"}, "sources": {}, "files": {}}
    return {"chapter": "07_test", "values": of, "figures": {}, "claims": {}, "provenance": facts}


def test_a_claim_is_judged_on_the_whole_interval():
    made = {
        "a": known(1.0, [0.9, 1.1]),
        "b": known(2.0, [1.5, 2.5]),
        "c": known(1.05),
        "gone": known(None),
    }
    assert claims.judge("a < b", made) is True
    assert claims.judge("a > b", made) is False
    assert claims.judge("a < c", made) is None  # holds at one end only
    assert claims.judge("c < 1.06", made) is True
    assert claims.judge("gone < 1", made) is None
    assert claims.judge("not -a * 2 + c / 4 > b - 1 or 0 < a <= b", made) is not None
    for hidden in (
        "(lambda: gon)() < 1",
        "all(x < 1 for x in [a])",
        "[a for a in [1]]",
        "a.real < 1",
    ):
        with pytest.raises(ValueError, match=r"^claim .*must be arithmetic or a comparison of"):
            claims.judge(hidden, made)
    with pytest.raises(
        ValueError, match=r"claim 'gon < 1': gon: no such value \(did you mean gone\?\)"
    ):
        claims.judge("gon < 1", made)


def test_only_what_differs_is_compared_and_judged_by_its_intervals():
    a = {
        "07": record(
            same=known(1.0),
            sum=known(0.1 + 0.2),
            far=known(1.0, [0.9, 1.1]),
            near=known(1.0, [0.5, 1.5]),
            old=known(1),
        )
    }
    b = {
        "07": record(
            same=known(1.0),
            sum=known(0.3),
            far=known(2.0, [1.9, 2.1]),
            near=known(1.1, [0.6, 1.6]),
            new=known(1),
        )
    }
    found = compare.compare(a, b).set_index("value")
    assert set(found.index) == {"far", "near", "old", "new"}
    assert (
        found.significance["far"] == "significant"
        and found.significance["near"] == "not significant"
    )
    assert found.b["old"] == "not there" and found.a["new"] == "not there"
    assert found.change["far"] == "+1 (+100.0%)"


def test_intervals_that_overlap_can_still_differ():
    a, b = {"07": record(x=known(0.0, [-1, 1]))}, {"07": record(x=known(1.6, [0.6, 2.6]))}
    assert (
        compare.compare(a, b).significance.item() == "significant"
    )  # 1.6 > √2, though the intervals overlap


def test_parameters_that_differ_are_named_but_not_the_machine():
    a, b = (
        {"07": record({"seeds": 3, "device": "cpu"})},
        {"07": record({"seeds": 4, "device": "cuda"})},
    )
    assert compare.parameters(a, b).to_dict("records") == [
        dict(chapter="07", parameter="seeds", a=3, b=4)
    ]


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        (known(1.0), known(1.0), "reproduced"),
        (known(1.01), known(1.0), "reproduced"),
        (known(1.03), known(1.0), "differs"),
        (known(1.2), known(1.0, [0.7, 1.3]), "reproduced"),
        (known(9.0), known(1.0) | {"tolerance": "inf"}, "not judged"),
        (known("H100"), known("H200"), "differs"),
        (known(None), known(1.0), "differs"),
    ],
)
def test_check_judges_by_tolerance_and_interval(tmp_path, monkeypatch, here, there, verdict):
    publish(tmp_path, record(x=there), monkeypatch)
    assert compare.check({"07": record(x=here)}).verdict.tolist() == [verdict]


def publish(folder, made, monkeypatch, file="values.json"):
    (folder / "07").mkdir(exist_ok=True)
    content = json.dumps(made).encode()
    path = folder / "07" / file
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
    monkeypatch.setattr(chapters, "PUBLISHED", folder)


def test_check_takes_the_published_run_of_the_same_parameters(tmp_path, monkeypatch):
    publish(tmp_path, record({"seeds": 9}, x=known(1.0)), monkeypatch)
    assert compare.check({"07": record({"seeds": 3}, x=known(5.0))}).empty
    publish(tmp_path, record({"seeds": 3}, x=known(5.0)), monkeypatch, compare.QUICK)
    assert compare.check({"07": record({"seeds": 3}, x=known(5.0))}).verdict.tolist() == [
        "reproduced"
    ]


def test_check_ends_with_an_error_that_names_what_differs(tiny_run, tmp_path, monkeypatch, capsys):
    for number, made in compare.records(tiny_run).items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "values.json").write_text(json.dumps(made))
    monkeypatch.setattr(chapters, "PUBLISHED", tmp_path)
    with pytest.raises(typer.Exit) as end:
        cli.check("tests")
    assert end.value.exit_code == 0 and "differs" not in capsys.readouterr().out
    path = tmp_path / "01/values.json"
    made = json.loads(path.read_text())
    made["values"]["gini_without"]["value"] *= 1.1
    path.write_text(json.dumps(made))
    with pytest.raises(typer.Exit) as end:
        cli.check("tests")
    out = capsys.readouterr().out
    assert end.value.exit_code == 1 and "gini_without" in out and "gini_with " not in out
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(typer.Exit) as end:
        cli.check("tests")
    assert (
        end.value.exit_code == 1
        and "nothing was published with these parameters" in capsys.readouterr().out
    )


def test_markup_in_a_table_is_text():
    a, b = {"07": record(x=known("<script>"))}, {"07": record(x=known("b"))}
    assert "<script>" not in compare.to_html(compare.compare(a, b), "<script>")


def stored(folder, **tables):
    """A run with one chapter that has these tables."""
    (folder / "07_test/figures").mkdir(parents=True)
    (folder / "07_test/values.json").write_text(json.dumps(record()))
    for name, text in tables.items():
        (folder / "07_test/figures" / f"{name}.csv").write_text(text)
    return folder


def test_tables_are_compared_cell_by_cell_with_rows_matched_by_their_labels(tmp_path):
    a = stored(tmp_path / "a", levels="kind,level,t\nx,0.1,2\nx,0.2,4\ny,0.1,8\n", same="t\n1\n")
    b = stored(tmp_path / "b", levels="kind,level,t\ny,0.1,10\nx,0.1,2\nz,0.1,9\n", same="t\n1\n")
    (row,) = side.tables(a, b).to_dict("records")
    assert (row["chapter"], row["table"]) == ("07", "figures/levels.csv")
    assert (row["only a"], row["only b"], row["cells"], row["differ"]) == (1, 1, 2, 1)
    assert (row["largest change"], row["at"]) == ("25.0%", "t at y, 0.1")


def test_a_packed_table_is_the_same_table_and_a_missing_one_is_told(tmp_path):
    a, b = (stored(tmp_path / name, big="t,u\n1,0.1\n2,\n") for name in "ab")
    plain = a / "07_test/figures/big.csv"
    plain.with_name("big.csv.xz").write_bytes(lzma.compress(plain.read_bytes()))
    plain.unlink()
    assert side.tables(a, b).empty
    (b / "07_test/figures/new.csv").write_text("t\n1\n")
    assert side.tables(a, b)["at"].tolist() == ["only in b"]


def test_rows_without_labels_are_compared_by_place_and_texts_have_no_size():
    a = pd.DataFrame({"t": [1.0, 1.0, np.nan], "word": ["p", "p", "q"]})
    b = a.assign(word=["p", "r", "q"])
    found = side.differing(a, b)
    assert (found["differ"], found["cells"], found["largest change"]) == (1, 6, "")
    assert found["at"] == "word at 1"
    assert side.differing(a, a)["differ"] == 0
    assert side.differing(a, a.assign(t=a.t * (1 + 1e-14)))["differ"] == 0


def test_the_published_run_is_whole():
    """Every chapter has its values, its executed copy without paths or outputs of a machine, and
    the same at the defaults.
    """
    for chapter in chapters.names():
        folder = chapters.PUBLISHED / chapter[:2]
        made = json.loads((folder / "values.json").read_text())
        quick = json.loads(provenance.text(folder / compare.QUICK))
        assert made["chapter"] == quick["chapter"] == chapter
        assert (
            quick["values"].keys() <= made["values"].keys()
        )  # the published run may study more checkpoints
        assert (
            "papermill"
            not in json.loads(provenance.text(folder / f"{chapter}.ipynb.xz"))["metadata"]
        )
        for figure in made["figures"].values():
            assert (folder / figure["file"]).is_file() and (folder / figure["data"]).is_file()
