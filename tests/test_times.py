"""What chapters and test files took, beside what they may take."""

import json

from conftest import ROOT

from lib.paper import chapters, times


def test_what_took_longer_than_it_may_is_marked(tmp_path, monkeypatch):
    folder = tmp_path / "run/04_network"
    folder.mkdir(parents=True)
    record = {"chapter": "04_network", "provenance": {"seconds": 1e4}}
    (folder / "values.json").write_text(json.dumps(record))
    took = tmp_path / "times.json"
    took.write_text(json.dumps({"test_times.py": 1.5, "test_stats.py": 1e5}))
    monkeypatch.setattr(times, "TESTS", took)
    frame = times.table(tmp_path / "run").set_index("what")
    assert set(chapters.names()) < set(frame.index)
    assert frame[frame.over == "over"].index.tolist() == ["04_network", "test_stats.py"]
    assert frame.seconds["test_times.py"] == 1.5 and frame.seconds.isna()["00_base_model"]
    assert (frame.budget > 0).all()


def test_every_budget_is_of_a_test_file_there_is():
    import tomllib

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["budgets"]
    assert all((ROOT / f"tests/{name}.py").is_file() for name in told.keys() - {"default"})
