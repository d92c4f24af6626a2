"""Counts of other routers: every recorder's file, and the metrics of what was read."""

import numpy as np
import pandas as pd
import pytest
import torch
import traces

from lib import stats
from lib.routing import others


def test_counts_are_read_from_every_recorder(tmp_path):
    load = np.arange(1, 13).reshape(3, 4)
    torch.save(
        {"rank": 0, "logical_count": torch.from_numpy(np.stack([load, load]))},
        tmp_path / "sglang.pt",
    )
    np.save(tmp_path / "vllm.npy", load[None])
    chosen = torch.tensor([[[0, 1], [0, 2], [-1, -1]]])
    torch.save({"records": [{"topk_ids_of_layer": chosen}]}, tmp_path / "tokens.pt")
    (tmp_path / "list.json").write_text(str(load.tolist()))
    for name, expected in (
        ("sglang.pt", 2 * load),
        ("vllm.npy", load),
        ("list.json", load),
        ("tokens.pt", [[2, 1, 1]]),
    ):
        table = others.read(tmp_path / name)
        found = table.pivot(index="layer", columns="expert", values="count")
        np.testing.assert_array_equal(found, expected)
    assert others.read(tmp_path / "tokens.pt").top_k.iloc[0] == 2
    others.read(tmp_path / "vllm.npy").to_csv(tmp_path / "again.csv")
    assert others.known(str(tmp_path / "again.csv")).gini.tolist() == pytest.approx(
        stats.gini(load).tolist()
    )


def test_a_file_that_holds_no_counts_is_one_line(tmp_path):
    (tmp_path / "bad.json").write_text("[1, 2]")
    message = r"bad.json: cannot be read as counts: shape \(2,\): must end in"
    with pytest.raises(ValueError, match=message):
        others.read(tmp_path / "bad.json")
    (tmp_path / "minus.json").write_text("[[1, -2]]")
    with pytest.raises(ValueError, match="minus.json: counts must be ≥ 0"):
        others.read(tmp_path / "minus.json")
    with pytest.raises(ValueError, match="cannot be read as counts"):
        others.known(str(tmp_path / "nowhere.npy"))


COUNTS = pd.DataFrame(
    [
        dict(model="m-1B", experts=4, top_k=2, domain=d, layer=0, tokens=50, expert=e, count=c)
        for d, row in (("a", (80, 10, 5, 5)), ("b", (10, 80, 5, 5)))
        for e, c in enumerate(row)
    ]
)


def test_metrics_of_counts_are_those_of_the_library():
    found = others.judged(COUNTS).set_index("domain")
    assert found.gini["a"] == pytest.approx(stats.gini([80, 10, 5, 5]))
    assert found.gini_share["a"] == pytest.approx(found.gini["a"] / 0.5)
    pooled, single = stats.cv([90, 90, 10, 10]) ** 2, stats.cv([80, 10, 5, 5]) ** 2
    assert found.locality["pooled"] == pytest.approx(1 - pooled / single)
    assert found.tokens.to_dict() == {"a": 50, "b": 50, "pooled": 100}


def test_a_trace_stands_beside_others_with_its_own_counts():
    t = traces.made([[[0, 1], [0, 1], [2, 3]]], [0, 0, 1], domain=[0, 1])
    table = others.beside({"model": t}, others.judged(COUNTS), {"model": "mine"})
    assert table.model.tolist() == ["mine"] * 3 + ["m-1B"] * 3
    mine = table[table.model == "mine"].set_index("domain")
    assert mine.gini.to_dict() == {"d0": 0.5, "d1": 0.5, "pooled": pytest.approx(1 / 6)}
    assert mine.tokens.to_dict() == {"d0": 2, "d1": 1, "pooled": 3}


def test_means_over_layers_by_hand():
    two = pd.concat([COUNTS, COUNTS.assign(layer=1, count=[30, 20, 25, 25] * 2)])
    judged = others.judged(two)
    means = others.means(judged).set_index("text")
    single = (stats.gini([80, 10, 5, 5]) + stats.gini([30, 20, 25, 25])) / 2
    assert means.gini["one domain"] == pytest.approx(single)
    assert others.whole(others.means(judged)).to_dict() == {"m-1B": means.gini_share["all"]}
    pooled = others.pooled(judged).iloc[0]
    whole = (stats.gini([90, 90, 10, 10]) + stats.gini([30, 20, 25, 25])) / 2 / 0.5
    assert pooled.router == "m" and pooled.real_gini == pytest.approx(whole)
    assert pooled.real_gini == means.gini_share["all"]
    assert pooled.real_locality == means.locality["all"]


def test_published_routers_are_those_of_the_literature():
    """Gini of OLMoE's counts as its authors' tables give them, to three digits."""
    own = others.known("published").query("model == 'OLMoE-1B-7B'")
    table = own.pivot(index="domain", columns="layer", values="gini")
    assert table.loc["c4"].round(3).tolist() == [0.137, 0.212, 0.288]
    assert table.loc["github"].round(3).tolist() == [0.291, 0.584, 0.589]
    assert table.loc["pooled"].round(3).tolist() == [0.169, 0.246, 0.269]
