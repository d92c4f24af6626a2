"""Files as serving engines write them, made from routes by the engines' own rules and not by our
writers.
"""

import base64
import io
import json

import numpy as np
import torch

LAYERS, TOKENS, K, EXPERTS = 3, 40, 4, 16
PHYSICAL = 20  # slots of a layer: every expert once, and four copies


def routes(seed=0):
    """[tokens, layers, k] experts."""
    rng = np.random.default_rng(seed)
    chosen = [[rng.permutation(EXPERTS)[:K] for _ in range(LAYERS)] for _ in range(TOKENS)]
    return np.array(chosen)


def load(index):
    """[layers, experts] by counting one by one."""
    found = np.zeros((index.shape[1], EXPERTS), int)
    for token in index:
        for layer, experts in enumerate(token):
            for expert in experts:
                found[layer, expert] += 1
    return found


def logical(seed=1):
    """[layers, physical] a map in which every expert stands."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.permutation(np.r_[np.arange(EXPERTS), rng.permutation(EXPERTS)[:4]]) for _ in range(3)]
    )


def physical(index, table, rng):
    """[tokens, layers, k] a slot of each expert, any of its copies."""
    found = np.empty_like(index)
    for token, layer, slot in np.ndindex(index.shape):
        found[token, layer, slot] = rng.choice(
            np.flatnonzero(table[layer] == index[token, layer, slot])
        )
    return found


def counted(slots):
    """[layers, physical] of [tokens, layers, k]."""
    rows = [np.bincount(slots[:, at].ravel(), minlength=PHYSICAL) for at in range(slots.shape[1])]
    return np.stack(rows)


def sglang_per_token(path, index, dense=1):
    """Two passes with padding, a dense layer of -1 before, 8 places of which 4 are used."""
    table = logical()
    slots = physical(index, table, np.random.default_rng(2))
    records = []
    for at, part in enumerate(np.array_split(slots, 2)):
        wide = np.full((LAYERS + dense, len(part) + 3, 8), -1, np.int32)
        wide[dense:, : len(part), :K] = part.swapaxes(0, 1)
        size = len(part) + 3
        records.append(
            dict(
                forward_pass_id=at,
                rank=0,
                gatherer_key="primary",
                input_ids=list(range(size)),
                positions=list(range(size)),
                extend_seq_lens=[size],
                forward_mode=1,
                topk_ids_of_layer=torch.from_numpy(wide),
                misc_objects=[],
                global_physical_count=torch.zeros(LAYERS + dense, PHYSICAL, dtype=torch.int32),
            )
        )
    full = np.vstack([np.arange(PHYSICAL)[None] % EXPERTS, table])
    torch.save(dict(records=records, last_physical_to_logical_map=torch.from_numpy(full)), path)


def sglang_per_pass(path, index):
    """Two passes, each recorded by two ranks."""
    table = logical()
    slots = physical(index, table, np.random.default_rng(3))
    records = [
        dict(
            forward_pass_id=at,
            rank=rank,
            gatherer_key="primary",
            global_physical_count=torch.from_numpy(counted(half)).int(),
        )
        for at, part in enumerate(np.array_split(slots, 2))
        for rank, half in enumerate(np.array_split(part, 2))
    ]
    torch.save(dict(records=records, last_physical_to_logical_map=torch.from_numpy(table)), path)


def sglang_stat(path, index):
    steps = torch.from_numpy(np.stack([load(part) for part in np.array_split(index, 4)]))
    content = dict(rank=0, logical_count=steps, average_utilization_rate_over_window=None)
    torch.save(content, path)


def sglang_returned(path, index, dense=1):
    """One answer a line: base64 of int32 without a shape; a dense layer of zeros before."""
    lines = []
    for part in np.array_split(index, 4):
        wide = np.zeros((len(part), LAYERS + dense, K), np.int32)
        wide[:, dense:] = part
        text = base64.b64encode(wide.tobytes()).decode()
        about = dict(prompt_tokens=len(part) - 4, completion_tokens=5, routed_experts=text)
        lines.append(json.dumps(dict(text="…", meta_info=about)))
    path.write_text("\n".join(lines))


def vllm_returned(path, index):
    """Base64 of .npy in the choices of two answers, one of them with its prompt's apart."""

    def npy(part):
        file = io.BytesIO()
        np.save(file, part.astype(np.uint8))
        return base64.b64encode(file.getvalue()).decode()

    first, second, third = np.array_split(index, 3)
    answers = [
        dict(id="1", prompt_routed_experts=npy(first), choices=[dict(routed_experts=npy(second))]),
        dict(id="2", choices=[dict(index=0, routed_experts=npy(third))]),
    ]
    path.write_text(json.dumps(answers))


def vllm_shaped(path, index):
    """Base64 of int32 with its shape beside it."""
    text = base64.b64encode(index.astype("<i4").tobytes()).decode()
    answer = dict(choices=[dict(routed_experts=dict(data=text, shape=list(index.shape)))])
    path.write_text(json.dumps(answer))


def vllm_balancer(path, index):
    """Snapshots whose map changes between them."""
    snapshots = []
    for at, part in enumerate(np.array_split(index, 3)):
        table = logical(seed=at)
        slots = physical(part, table, np.random.default_rng(at))
        snapshots.append(
            dict(
                step=at,
                expert_load_pass=counted(slots).tolist(),
                physical_to_logical_map=table.tolist(),
            )
        )
    path.write_text(json.dumps(dict(num_logical_experts=EXPERTS, snapshots=snapshots)))


def megatron(path, index):
    """get_recorded_data of two microbatches: a tensor [tokens, k] per layer."""
    halves = np.array_split(index, 2)
    torch.save([[torch.from_numpy(h[:, at]) for at in range(LAYERS)] for h in halves], path)


def megatron_buffer(path, index):
    torch.save(torch.from_numpy(index), path)


ROUTES = {
    "SGLang, per token": (sglang_per_token, "a.pt"),
    "SGLang, returned experts": (sglang_returned, "a.jsonl"),
    "vLLM, returned experts": (vllm_returned, "a.json"),
    "vLLM, returned experts ": (vllm_shaped, "a.json"),
    "Megatron, router replay": (megatron, "a.pt"),
    "Megatron, router replay ": (megatron_buffer, "a.pt"),
}
COUNTS = {
    "SGLang, per pass": (sglang_per_pass, "a.pt"),
    "SGLang, stat": (sglang_stat, "a.pt"),
    "vLLM, balancer": (vllm_balancer, "a.json"),
}
