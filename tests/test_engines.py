"""Recordings of engines: each format as its engine writes it, told by its content; the wrong one is
one line. Placements: the files read back.
"""

import base64
import json

import engine_files
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib import stats
from lib.commands import imported
from lib.engines import content, exporting, importing, recording
from lib.routing import others

INDEX = engine_files.routes()


@pytest.mark.parametrize("kind", [*engine_files.ROUTES, *engine_files.COUNTS])
def test_every_format_gives_the_load(kind, tmp_path):
    write, name = {**engine_files.ROUTES, **engine_files.COUNTS}[kind]
    write(tmp_path / name, INDEX)
    (tmp_path / name).rename(tmp_path / "anything")  # a name tells nothing
    found = importing.read(tmp_path / "anything")
    assert found.source == kind.strip()
    np.testing.assert_array_equal(found.load, engine_files.load(INDEX))
    assert len(found.steps) == {"SGLang, stat": 4, "SGLang, returned experts": 4}.get(
        kind, {"vLLM, balancer": 3}.get(kind, 1 if kind.endswith(" ") else 2)
    )
    table = imported.counts(tmp_path / "anything", experts=16)
    again = table.pivot(index="layer", columns="expert", values="count")
    np.testing.assert_array_equal(again, engine_files.load(INDEX))


@pytest.mark.parametrize("kind", engine_files.ROUTES)
def test_routes_are_those_of_every_token(kind, tmp_path):
    write, name = engine_files.ROUTES[kind]
    write(tmp_path / name, INDEX)
    t = imported.routes(tmp_path / name)
    np.testing.assert_array_equal(t.expert_index, INDEX.swapaxes(0, 1))
    assert t.experts == engine_files.EXPERTS and t.document[0] == 0
    np.testing.assert_array_equal(t.load, engine_files.load(INDEX))


def test_experts_that_nobody_tells(tmp_path):
    engine_files.vllm_shaped(tmp_path / "a.json", INDEX)
    with pytest.raises(ValueError, match="does not tell the number of experts: 16 are seen"):
        imported.counts(tmp_path / "a.json")
    assert imported.counts(tmp_path / "a.json", 20).expert.max() == 19
    with pytest.raises(ValueError, match="expert 15: must be below 12"):
        imported.counts(tmp_path / "a.json", 12)


def test_metrics_of_a_recording_are_those_of_its_counts(tmp_path):
    engine_files.sglang_per_pass(tmp_path / "a", INDEX)
    judged = imported.known(str(tmp_path / "a"))
    assert judged.gini.tolist() == pytest.approx(stats.gini(engine_files.load(INDEX)).tolist())
    assert len(imported.known("published")) == len(others.published())


def test_dense_layers_keep_the_numbers_of_the_others(tmp_path):
    engine_files.sglang_per_token(tmp_path / "a.pt", INDEX, dense=1)
    found = importing.read(tmp_path / "a.pt")
    assert found.layer.tolist() == [1, 2, 3] and found.of == 4 and found.top_k == 4
    with pytest.warns(UserWarning, match="a.pt: left out, without an assignment: layers 0$"):
        table = imported.counts(tmp_path / "a.pt")
    assert table.layer.unique().tolist() == [1, 2, 3]
    engine_files.sglang_returned(tmp_path / "b.jsonl", INDEX, dense=2)
    assert importing.read(tmp_path / "b.jsonl").layer.tolist() == [2, 3, 4]


def test_what_the_reader_tells_of_an_engine_s_counts_is_taken_and_held_against_them(tmp_path):
    engine_files.sglang_stat(tmp_path / "a.pt", INDEX)
    table = imported.counts(tmp_path / "a.pt", top_k=4)
    assert set(table.top_k) == {4} and set(table.tokens) == {len(INDEX)}
    for given, message in {
        (8, 4): "counts_experts = 8: must be 16, as in the file, or 0",
        (0, 16): "top_k = 16: must be below 16",
    }.items():
        with pytest.raises(ValueError, match=f"^counts: .*a.pt: {message}"):
            imported.counts(tmp_path / "a.pt", *given)
    choices = torch.from_numpy(np.ascontiguousarray(INDEX.swapaxes(0, 1)))
    torch.save({"records": [{"topk_ids_of_layer": choices}]}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="b.pt: does not tell the number of experts"):
        imported.counts(tmp_path / "b.pt")
    table = imported.counts(tmp_path / "b.pt", 20)
    assert set(table.experts) == {20} and set(table.top_k) == {4}
    with pytest.raises(ValueError, match="counts_top_k = 3: must be 4, as in the file, or 0"):
        imported.counts(tmp_path / "b.pt", 20, 3)


def test_a_shape_that_nobody_tells_is_asked_for(tmp_path):
    text = base64.b64encode(INDEX.astype("<i4").tobytes()).decode()
    (tmp_path / "a.json").write_text(json.dumps({"meta_info": {"routed_experts": text}}))
    with pytest.raises(ValueError, match="a.json: routed_experts: 480 numbers without a shape"):
        importing.read(tmp_path / "a.json")
    found = importing.read(tmp_path / "a.json", top_k=4, layers=3)
    np.testing.assert_array_equal(found.load, engine_files.load(INDEX))


def test_the_files_of_all_ranks(tmp_path):
    for rank, part in enumerate(np.array_split(INDEX, 2)):
        engine_files.sglang_per_pass(tmp_path / f"{rank}.pt", part)
    found = importing.read(tmp_path)
    np.testing.assert_array_equal(found.load, engine_files.load(INDEX))
    assert len(found.steps) == 2  # passes 0 and 1 of both
    engine_files.sglang_stat(tmp_path / "2.pt", INDEX)
    with pytest.raises(ValueError, match="a folder of 3 files: must all be SGLang's records"):
        importing.read(tmp_path)


def test_statistics_of_tensorrt_llm(tmp_path):
    (tmp_path / "meta_info.json").write_text('{"num_experts": 16, "num_experts_per_token": 4}')
    for rank, part in enumerate(np.array_split(INDEX, 2)):
        steps = [engine_files.load(half) for half in np.array_split(part, 2)]
        tensors = {
            f"{100 + step}_{3 + layer}": torch.from_numpy(row.copy()).int()
            for step, rows in enumerate(steps)
            for layer, row in enumerate(rows)
        }
        save_file(tensors, tmp_path / f"rank{rank}.safetensors")
    found = importing.read(tmp_path)
    assert found.layer.tolist() == [3, 4, 5] and len(found.steps) == 2 and found.top_k == 4
    np.testing.assert_array_equal(found.load, engine_files.load(INDEX))


class Evil:
    def __reduce__(self):
        return print, ("no",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"\x00\x01"), "neither torch.save's archive"),
        (lambda p: p.write_text("{"), "neither torch.save's archive"),
        (lambda p: torch.save(Evil(), p), r"holds a .*\.print: must be tensors"),
        (lambda p: torch.save({"records": []}, p), "records: there are none"),
        (
            lambda p: torch.save({"records": [{"global_physical_count": torch.ones(2, 4)}]}, p),
            "without last_physical_to_logical_map",
        ),
        (lambda p: torch.save({"records": [{"other": 1}]}, p), "no 'global_physical_count'"),
        (lambda p: torch.save({"logical_count": -torch.ones(1, 2, 4)}, p), "must be whole numbers"),
        (
            lambda p: p.write_text(
                '{"expert_load_pass": [[1, 2]], "physical_to_logical_map": [[0, 0, 1]]}'
            ),
            r"expert_load_pass of shape \(1, 2\): must be",
        ),
        (
            lambda p: p.write_text(
                '{"expert_load_pass": [[1, 2]], "physical_to_logical_map": [[0, 2]]}'
            ),
            "layer 0: expert 1 stands in no slot",
        ),
        (lambda p: p.write_text('{"routed_experts": [[[1, 1]]]}'), "takes an expert twice"),
        (lambda p: p.write_text('{"routed_experts": "!"}'), "a: "),
    ],
)
def test_the_wrong_file_is_one_line(make, message, tmp_path):
    make(tmp_path / "a")
    with pytest.raises(ValueError, match=message) as caught:
        imported.counts(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value) and "\n" not in str(caught.value)


def test_counts_are_no_routes(tmp_path):
    engine_files.sglang_stat(tmp_path / "a.pt", INDEX)
    with pytest.raises(ValueError, match=r"is counts \(SGLang, stat\): must have the routes"):
        imported.routes(tmp_path / "a.pt")
    np.save(tmp_path / "load.npy", np.array([engine_files.load(INDEX)] * 2))
    assert importing.read(tmp_path / "load.npy") is None  # counts as others.read takes them
    assert imported.counts(tmp_path / "load.npy", 16)["count"].sum() == 2 * INDEX.size
    with pytest.raises(ValueError, match="is no recording"):
        imported.routes(tmp_path / "load.npy")


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.int16, torch.uint8, torch.float64]
)
def test_tensors_are_read_without_torch(dtype, tmp_path):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    torch.save({"a": [whole[:, 1:, ::2].transpose(0, 2), 1.5], "b": None}, tmp_path / "a")
    found = content.load(tmp_path / "a")
    assert found["b"] is None and found["a"][1] == 1.5
    np.testing.assert_array_equal(found["a"][0], whole[:, 1:, ::2].transpose(0, 2).numpy())


def test_folding_by_hand():
    counts = np.array([[1, 2, 4, 8]])
    assert recording.folded(counts, np.array([[1, 0, 1, 1]])).tolist() == [[2, 13]]


SLOTS = np.array([[[0, 1], [2, 0]], [[2, 1], [0, 2]]])  # two layers, two devices, two slots


@pytest.mark.parametrize("to", exporting.WRITERS)
def test_a_placement_is_read_back(to, tmp_path):
    exporting.write(tmp_path / "p", to, SLOTS, np.array([1, 3]), 4)
    found = exporting.read(tmp_path / "p", 2)
    numbers = [0, 1] if to == "vllm" else [1, 3]
    for number, slots in zip(numbers, SLOTS, strict=True):
        np.testing.assert_array_equal(found[number], slots)


def test_the_files_are_those_of_the_engines(tmp_path):
    import yaml

    for to in ("sglang", "vllm", "tensorrt-llm"):
        exporting.write(tmp_path / to, to, SLOTS, np.array([1, 3]), 4)
    table = json.loads((tmp_path / "sglang").read_text())
    trivial = [0, 1, 2, 0]  # expert i mod experts in slot i, for layers without a placement
    assert table == {"physical_to_logical_map": [trivial, [0, 1, 2, 0], trivial, [2, 1, 0, 2]]}
    assert json.loads((tmp_path / "vllm").read_text()) == [[0, 1, 2, 0], [2, 1, 0, 2]]
    assert yaml.safe_load((tmp_path / "tensorrt-llm").read_text()) == {
        "num_slots": 4,
        "layer_updates_per_iter": 0,
        "initial_global_assignments": {1: [0, 1, 2, 0], 3: [2, 1, 0, 2]},
    }


def test_what_cannot_be_written_or_read_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"--to sglan: must be one of .* \(did you mean sglang"):
        exporting.write(tmp_path / "p", "sglan", SLOTS, np.array([1, 3]), 4)
    with pytest.raises(ValueError, match="layer 3: must hold each of 3 experts"):
        exporting.write(tmp_path / "p", "csv", np.minimum(SLOTS, [[[2]], [[1]]]), [1, 3], 4)
    with pytest.raises(ValueError, match=r"layers \[1, 4\]: must be 2 numbers below 4"):
        exporting.write(tmp_path / "p", "csv", SLOTS, np.array([1, 4]), 4)
    assert not (tmp_path / "p").exists()
    exporting.write(tmp_path / "p", "csv", SLOTS, np.array([1, 3]), 4)
    with pytest.raises(ValueError, match="p: is no placement on 3 devices"):
        exporting.read(tmp_path / "p", 3)
