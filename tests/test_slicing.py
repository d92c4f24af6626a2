"""What other assignments take of memory: experts a few tokens at a time, no logits that are not
scored, and one line where it is too much.
"""

import held
import pytest
import torch
from transformers import OlmoeForCausalLM

from lib.model import load, spreading
from lib.routing import adapter, assignment, bind, memory, slicing


def ids(documents=6, tokens=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 97, (documents, tokens), generator=generator)


def test_bytes_of_a_slot_by_hand(tiny_model):
    """Hidden 32, experts of 16: matrices 32 × 32 (gate and up) and 32 × 16 (down), in float32."""
    experts = adapter.layers(tiny_model)[0].module
    assert slicing.copies(experts) == 4 * (32 * 32 + 32 * 16)
    assert slicing.activations(experts) == 2 * 4 * (32 + 32 + 32 + 16)


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm", "eager"])
def test_slices_give_what_the_whole_gives(tiny_model, implementation):
    tiny_model.set_experts_implementation(implementation)
    calls = []
    for layer in adapter.layers(tiny_model):
        inner = layer.module.forward

        def seen(hidden, *rest, inner=inner):
            calls.append(len(hidden))
            return inner(hidden, *rest)

        layer.module.forward = seen
    with torch.no_grad():
        whole = tiny_model(input_ids=ids()).logits
        calls.clear()
        with slicing.sliced(tiny_model, most=10 * 2 * slicing.activations(layer.module)):
            parts = tiny_model(input_ids=ids()).logits
        assert set(calls) == {10, 6} and sum(calls) == 3 * 96  # 96 tokens a layer, 10 at a time
        with slicing.sliced(tiny_model):
            assert torch.equal(tiny_model(input_ids=ids()).logits, whole)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert all(
        vars(layer.module)["forward"].__name__ == "seen" for layer in adapter.layers(tiny_model)
    )


def wide():
    """A random model whose experts and vocabulary weigh more than its states, as real ones do."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=4096, hidden_size=64, intermediate_size=64, num_hidden_layers=2)
    return OlmoeForCausalLM(load.config(**sizes, num_experts=16, num_experts_per_tok=8)).eval()


def test_what_leaks_is_seen_without_a_copy_of_the_experts_for_every_token(monkeypatch):
    """Token by token each of 8 slots copies its expert: 128 tokens copy 64 times all experts."""
    model, text = wide(), ids(2, 128)
    experts = adapter.layers(model)[0].module
    copied = 128 * 8 * slicing.copies(experts)
    setting = [dict(name="reroute 1.25", strategy="reroute", gamma=1.25)]
    found = []
    for most in (slicing.MOST_BYTES, copied // 32):
        monkeypatch.setattr(slicing, "MOST_BYTES", most)
        with held.Held(*model.parameters(), text) as now:
            found.append(assignment.leak(model, text[0], text[1], setting, bind.Fits()))
        found.append(now.most)
    assert found[1] > 0.6 * copied and found[3] < 0.2 * found[1]
    assert found[2].leak[0] == pytest.approx(found[0].leak[0], rel=1e-3)


def test_a_run_keeps_no_logits_but_those_that_it_scores(monkeypatch):
    """Of 64 documents of 32 tokens all logits in float32 are 34 MB; 16 positions are scored, a few
    documents at a time.
    """
    model, text = wide(), ids(64, 32)
    group = torch.from_numpy(assignment.prefix_groups(*text.shape))
    whole = text.numel() * 4096 * 4
    monkeypatch.setattr(assignment.scoring, "MOST_BYTES", whole // 16)
    monkeypatch.setattr(slicing, "MOST_BYTES", whole // 16)
    with held.Held(*model.parameters(), text, group) as now:
        fits = bind.fit(model, text, batch_tokens=512, steps=2, pass_tokens=512)
        setting = bind.bound(dict(strategy="reroute", gamma=1.25), group, fits)
        assignment.run(model, text, setting, group, first=16)
    assert now.most < whole / 4


def test_out_of_memory_is_one_line_that_says_what_to_lower():
    told = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB."
    with pytest.raises(MemoryError) as error, memory.lowering("documents or tokens_per_document"):
        raise torch.OutOfMemoryError(f"{told}\nSee documentation for Memory Management.")
    line = "CUDA out of memory. Tried to allocate 20.00 GiB: lower documents or tokens_per_document"
    assert str(error.value) == line
    with pytest.raises(ValueError, match="as it was"), memory.lowering("documents"):
        raise ValueError("as it was")


def test_a_model_goes_whole_where_it_leaves_room(monkeypatch):
    """On GPUs of 80 GB: 13 GB on the first, 30 over all, and under torchrun each on its own."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (80e9, 80e9))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    cuda = torch.device("cuda")
    assert spreading.placed(int(13e9), torch.device("cpu")) == {}
    assert spreading.placed(int(13e9), torch.device("cuda:0")) == {"device_map": {"": 0}}
    assert spreading.placed(int(13e9), cuda) == {"device_map": {"": 1}}
    assert spreading.placed(int(30e9), cuda) == {"device_map": "auto"}
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert spreading.placed(int(30e9), cuda) == {"device_map": {"": 1}}
