"""The same layer in the engine that users have: transformers' own expert parallelism beside ours.

Both run the same routes, experts standing in consecutive groups.  Ours sends tokens to the experts'
devices; theirs, at inference, holds the whole batch on every device, where each runs its own
experts, and sums the outputs.  The router is part of theirs, and chooses what is prescribed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from lib.measure import grid, parallel
from lib.measure.clock import Operation
from lib.network import cost, placement, synthetic

ENGINES = ("ours", "transformers")
LEVELS = (0.4, 0.7)  # of uneven routes, busy experts side by side
WAYS = ("queued", "call")  # of starting a layer; see collectives.exchange
FAR = 8.0  # logits of what is chosen, and less of all else


def offered() -> str:
    """What transformers offers of it: "no" where it has no such plan."""
    try:
        import transformers
        from transformers.distributed import DistributedConfig
    except ImportError:
        return "no"
    names = {field.name for field in dataclasses.fields(DistributedConfig)}
    known = {"ep_size", "enable_expert_parallel"} & names
    return f"transformers {transformers.__version__}" if known else "no"


def routed(shape: cost.Shape, level: float, tokens: int, seed: int) -> np.ndarray:
    """Routes [tokens, k] of a level (0: even in whole rows), labels by load, the busiest first, so
    that consecutive groups hold busy experts side by side.
    """
    if level == 0:
        return (np.arange(tokens * shape.k) % shape.experts).reshape(-1, shape.k)
    chances = synthetic.inclusion(shape.experts, shape.k, level)
    index = synthetic.sample(chances, shape.k, tokens, np.random.default_rng([seed, tokens]))
    load = np.bincount(index.reshape(-1), minlength=shape.experts)
    return np.argsort(np.argsort(-load, kind="stable"))[index]


def configs(devices: int, own: grid.Grid) -> list[dict]:
    """A configuration per tokens of one device, level, engine and way of starting it."""
    found, name = [], own.shapes[0]
    shape = grid.SHAPES[name]
    home = placement.contiguous(shape.experts, devices)
    for tokens in own.tokens:
        for level in (0.0, *LEVELS):
            index = routed(shape, level, devices * tokens, own.seed)
            plain = dict(shape=name, tokens=tokens, level=level, part="held_out")
            plain |= dict(grid.described(index, home, shape, devices), index=index, home=home)
            found += [plain | dict(engine=e, launch=way) for e in ENGINES for way in WAYS]
    return found


def steered(shape: cost.Shape, index: np.ndarray, seed: int) -> torch.Tensor:
    """Hidden states [tokens, H] for which a router whose weight is the identity on the first
    numbers chooses `index` [tokens, k].
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(index), shape.hidden))
    x[:, : shape.experts] = -FAR
    np.put_along_axis(x, index, FAR - np.arange(shape.k)[None] / 2, axis=1)
    return torch.as_tensor(x, dtype=torch.bfloat16)


def whole(shape: cost.Shape) -> Any:
    """transformers' model of one layer of a shape, its weights drawn, its router's the identity on
    the first numbers.
    """
    from transformers import OlmoeConfig, OlmoeForCausalLM

    made = OlmoeConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.width,
        num_experts=shape.experts,
        num_experts_per_tok=shape.k,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=16,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = OlmoeForCausalLM._from_config(made, dtype=torch.bfloat16)
    nn.init.eye_(model.model.layers[0].mlp.gate.weight)
    return model


def block(shape: cost.Shape, device: torch.device) -> nn.Module:
    """transformers' block of one layer of a shape, as `whole` makes it on rank 0, its experts
    spread over all ranks by its own plan.
    """
    from transformers import OlmoeForCausalLM
    from transformers.distributed import DistributedConfig

    devices = dist.get_world_size()
    asked: dict[str, Any] = dict(tp_size=devices, enable_expert_parallel=True)
    if "ep_size" in {field.name for field in dataclasses.fields(DistributedConfig)}:
        asked = dict(tp_size=devices, ep_size=devices)
    names: list[str] = [""]
    with tempfile.TemporaryDirectory() as folder:
        if dist.get_rank() == 0:
            names[0] = folder
            whole(shape).save_pretrained(folder)
        dist.broadcast_object_list(names, 0)
        own = OlmoeForCausalLM.from_pretrained(
            names[0], dtype=torch.bfloat16, distributed_config=DistributedConfig(**asked)
        )
        dist.barrier()
    return own.model.layers[0].mlp.to(device).eval()


def layers(
    shape: cost.Shape, devices: int, device: torch.device, seed: int
) -> Callable[[dict], Operation]:
    """Of a configuration the layer of its engine, as one operation.  Refused: a transformers that
    does not offer it.
    """
    if offered() == "no":
        raise ValueError("native.layers: transformers has no expert-parallel plan here")
    theirs, rank = block(shape, device), dist.get_rank()
    own = parallel.weights(shape, range(shape.experts // devices), device, seed=seed)

    def run(once: Callable[[], object], mark: Callable[[], None]) -> None:
        with torch.inference_mode():
            once()
        mark()

    def work(c: dict) -> Operation:
        x = steered(shape, c["index"], seed).to(device)
        if c["engine"] == "transformers":
            return partial(run, partial(theirs, x[None]))
        p = parallel.plan(c["index"], c["home"], rank, devices, device)
        tokens = c["tokens"]
        share = torch.full((tokens, shape.k), 1 / shape.k, device=device, dtype=x.dtype)
        mine = x[rank * tokens : (rank + 1) * tokens]
        return partial(run, partial(parallel.layer, mine, p, *own, share))

    return work
