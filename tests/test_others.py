"""Counts of other routers: every recorder's file, and the metrics of what was read."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import traces
from safetensors.numpy import save_file

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
    for name, expected, experts in (
        ("sglang.pt", 2 * load, 0),
        ("vllm.npy", load, 4),
        ("list.json", load, 0),
        ("tokens.pt", [[2, 1, 1, 0]], 4),
    ):
        table = others.read(tmp_path / name, experts)
        found = table.pivot(index="layer", columns="expert", values="count")
        np.testing.assert_array_equal(found, expected)
    assert others.read(tmp_path / "tokens.pt", 3).top_k.iloc[0] == 2
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
    with pytest.raises(ValueError, match="minus.json.* row 2: count = -2: must be whole, and ≥ 0"):
        others.read(tmp_path / "minus.json")
    with pytest.raises(ValueError, match="cannot be read as counts"):
        others.known(str(tmp_path / "nowhere.npy"))


LOAD = np.array([[9, 6, 3, 0], [5, 5, 8, 0]])  # of 9 tokens, top-2; the last expert is dead
MAP = torch.tensor([[0, 1, 2, 3, 0], [3, 2, 1, 0, 2]])  # one redundant slot in each layer


def physical(part):
    """LOAD on the slots of MAP, the second replica of an expert with `part` of its load."""
    rows = [LOAD[layer][MAP[layer]] for layer in (0, 1)]
    for row, again in zip(rows, (0, 1), strict=True):
        row[4], row[again] = part, row[again] - part
    return np.stack(rows)


def chosen(load):
    """[layers, tokens, slots] a list of slots of a layer's load, two a token and two unused."""
    used = [np.repeat(np.arange(len(row)), row).reshape(2, -1).T for row in load]
    return torch.tensor(np.pad(np.stack(used), ((0, 0), (0, 0), (0, 2)), constant_values=-1))


def made(folder, kind):
    """A file of LOAD as a recorder of this kind writes it."""
    rows = [(layer, e, LOAD[layer, e]) for layer in (0, 1) for e in range(4) if LOAD[layer, e]]
    if kind == "columns, two ranks, dead experts absent":
        own = [f"m,4,2,all,{a},{t},{b},{c}" for t, s in ((3, 1), (6, 2)) for a, b, c in
               ((a, b, c // 3 * s + (c % 3) * (s - 1)) for a, b, c in rows)]  # fmt: skip
        text = "\n".join(["model,experts,top_k,domain,layer,tokens,expert,count", *own])
    elif kind == "SGLang, old":
        text = "\n".join(["layer_id,expert_id,count", *(f"{a},{b},{c}" for a, b, c in rows)])
    elif kind == "llama.cpp":
        text = "\n".join(["layer,expert", *(f"{a},{b}" for a, b, c in rows for _ in range(c))])
    elif kind == "Megatron":
        parts = [{"block": "decoder", "layer": n, "tpe": [row.tolist(), (2 * row).tolist()]}
                 for n, row in enumerate(LOAD)]  # fmt: skip
        (folder / "x.jsonl").write_text("\n".join(map(json.dumps, parts)))
        return folder / "x.jsonl"
    elif kind == "TensorRT-LLM":
        (folder / "t").mkdir()
        about = {"num_experts": 4, "num_experts_per_token": 2}
        (folder / "t/meta_info.json").write_text(json.dumps(about))
        for rank in (0, 1):
            save_file({f"{7}_{n}": row for n, row in enumerate(LOAD)},
                      folder / f"t/rank{rank}.safetensors")  # fmt: skip
        return folder / "t"
    else:
        dump = {
            "dense first": {"logical_count": torch.tensor([np.vstack([0 * LOAD[:1], LOAD])] * 3)},
            "per token": {"records": [{"topk_ids_of_layer": chosen(LOAD)}]},
            "per token, redundant": {
                "records": [{"topk_ids_of_layer": chosen(physical(1))}] * 2,
                "last_physical_to_logical_map": MAP,
            },
            "per pass, redundant": {
                "records": [{"global_physical_count": torch.tensor(physical(2))}],
                "last_physical_to_logical_map": MAP,
            },
        }
        torch.save(dump[kind], folder / "x.pt")
        return folder / "x.pt"
    (folder / "x.csv").write_text(text)
    return folder / "x.csv"


@pytest.mark.parametrize(
    ("kind", "times", "given", "k"),
    [
        ("columns, two ranks, dead experts absent", 1, {}, 2),
        ("SGLang, old", 1, dict(experts=4, top_k=2), 2),
        ("llama.cpp", 1, dict(experts=4), 0),
        ("Megatron", 3, dict(top_k=2), 2),
        ("TensorRT-LLM", 2, {}, 2),
        ("dense first", 3, dict(top_k=2), 2),
        ("per token", 1, dict(experts=4), 2),
        ("per token, redundant", 2, {}, 2),
        ("per pass, redundant", 1, dict(top_k=2), 2),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:x.pt. left out, without an assignment. layers 0:UserWarning")
def test_every_recorder_s_file_gives_the_same_counts(tmp_path, kind, times, given, k):
    table = others.read(made(tmp_path, kind), **given)
    wide = table.pivot(index="layer", columns="expert", values="count")
    np.testing.assert_array_equal(wide, times * LOAD)
    assert set(table.top_k) == {k} and set(table.tokens) == ({9 * times} if k else {0})
    judged = others.judged(table)
    largest = 1 - 2 / 4 if k else 1 - 1 / 4  # where k is not known: that of top-1, and told so
    assert judged.gini_share.tolist() == pytest.approx((stats.gini(LOAD) / largest).tolist())
    assert judged.dead.tolist() == [1, 1]
    beside = others.beside({}, judged, {})
    assert beside.router.str.endswith("(k unknown: taken as 1)").all() == (k == 0)


def test_a_layer_without_an_assignment_is_left_out_and_said_so(tmp_path):
    with pytest.warns(UserWarning, match="x.pt: left out, without an assignment: layers 0$"):
        table = others.read(made(tmp_path, "dense first"))
    assert set(table.layer) == {1, 2}


HEAD = "model,experts,top_k,domain,layer,tokens,expert,count\n"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("layer,expert,count\n0,0,3\n0,1,2", {}, "does not tell the number of experts: counts_exp"),
        (f"{HEAD}m,4,2,all,0,5,0,", {}, "row 1: count = nan: must be whole"),
        (f"{HEAD}m,4,2,all,0,5,0,1.5", {}, "row 1: count = 1.5: must be whole"),
        (f"{HEAD}m,4,2,all,0,5,0,inf", {}, "row 1: count = inf: must be whole"),
        (f"{HEAD}m,4,2,all,0,5,0,many", {}, "row 1: count = many: must be whole"),
        (f"{HEAD}m,4,2,all,0,5,4,3", {}, "expert 4: must be below 4, the number of experts"),
        (f"{HEAD}m,4,2,all,-1,5,3,3", {}, "row 1: layer = -1: must be whole, and ≥ 0"),
        (f"{HEAD}m,4,4,all,0,5,3,3", {}, "top_k = 4: must be below 4, the number of experts"),
        (f"{HEAD}m,4,2,all,0,5,3,6", {}, "an expert with 6 assignments .* at most 5, the tokens"),
        (f"{HEAD}m,4,2,all,0,5,3,0", {}, "counts nothing: must have some assignments"),
        (f"{HEAD}m,4,2,all,0,5,3,3", dict(experts=8), "counts_experts = 8: must be 4, as in the f"),
        (f"{HEAD}m,4,2,all,0,5,3,3", dict(top_k=1), "counts_top_k = 1: must be 2, as in the file"),
        ("layer,count\n0,3", {}, "lacks the column expert"),
    ],
)  # fmt: skip
def test_counts_that_are_none_are_refused(tmp_path, text, given, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=f"x.csv: cannot be read as counts: {message}") as error:
        others.read(tmp_path / "x.csv", **given)
    assert "\n" not in str(error.value)


def test_an_expert_beyond_the_number_given_or_the_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expert 2: must be below 2, the number of experts"):
        others.read(made(tmp_path, "per token"), 2)
    dump = torch.load(made(tmp_path, "per token, redundant"), weights_only=True)
    torch.save(dump | {"last_physical_to_logical_map": MAP[:, :4]}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"expert 4: must be in the map of shape \(2, 4\)"):
        others.read(tmp_path / "x.pt")


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


def test_a_router_that_uses_all_its_experts_has_no_share_of_imbalance():
    t = traces.made([[[0, 1, 2, 3], [3, 2, 1, 0]]], [0, 0])
    assert others.judged(others.of_trace(t, "all")).gini_share.tolist() == [0]
