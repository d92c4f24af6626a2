"""Training runs in processes of their own, for tests of what survives: ``python tests/training.py
KIND FOLDER [DEVICE]``.

Each run is forked before any tensor exists, so that it may be killed, or talk to another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist
from transformers import OlmoeForCausalLM

from lib.balance import checkpoint, losses, numerics, objective, train
from lib.model import load
from lib.routing import adapter

STREAM = (np.arange(3000) ** 2 % 97).astype(np.uint16)
PLAN = train.Plan(
    steps=9,
    batch_sequences=4,
    sequence_tokens=16,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=2,
    evaluate_every=4,
    loss="bias",
    coefficient=0.01,
)


def model(seed: int = 0) -> OlmoeForCausalLM:
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_experts=8
    )
    return OlmoeForCausalLM(load.config(**sizes, attention_dropout=0.1)).eval()


def forked(action) -> int:
    """The exit code of `action` in a process of its own; minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(call: int, action, original):
    """`original`, but that its call number `call` does `action` instead."""
    seen = iter(range(1, 1000))
    return lambda *given, **named: (action if next(seen) == call else original)(*given, **named)


def between_checkpoints() -> None:
    train.Plan.rate = at(11, die, train.Plan.rate)  # of two groups of parameters, in the sixth step


def while_writing() -> None:
    fsync = os.fsync

    def half(handle: int) -> None:
        os.ftruncate(handle, 1000)
        fsync(handle)
        die()

    os.fsync = at(3, half, fsync)  # each checkpoint forces its file, then its folder


def after_renaming() -> None:
    os.replace = at(3, lambda *names: (replace_file(*names), die()), replace_file)


replace_file = os.replace
KILLS = {f.__name__: f for f in (between_checkpoints, while_writing, after_renaming)}


def run(folder: Path, result: Path, device: str, before=None) -> None:
    if before:
        before()
    torch.use_deterministic_algorithms(device == "cuda")
    torch.manual_seed(5)
    made = model().to(device)
    history = train.run(
        made,
        STREAM,
        PLAN,
        sample=STREAM[:68].reshape(4, 17),
        folder=folder,
        checkpoint_every=2,
        precision="bf16" if device == "cuda" else "float32",
    )
    step = train.optimizer(made, PLAN)
    bits = checkpoint.gather(made, step)
    digest = {
        name: hashlib.sha256(
            part.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, part in bits.items()
    }
    digest["history"] = history.drop(columns="tokens_per_s").to_csv()
    result.write_text(json.dumps(digest))


def resume(folder: Path, device: str = "cpu") -> None:
    """An unbroken run, and for each way to be killed the broken one and the same command again."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    codes = {
        "unbroken": [forked(lambda: run(folder / "unbroken", folder / "unbroken.json", device))]
    }
    for name, kill in KILLS.items():
        first = forked(
            lambda name=name, kill=kill: run(
                folder / name, folder / f"{name}.json", device, before=kill
            )
        )
        codes[name] = [
            first,
            forked(lambda name=name: run(folder / name, folder / f"{name}.json", device)),
        ]
    (folder / "codes.json").write_text(json.dumps(codes))


def together(folder: Path) -> None:
    """One step of each loss in float64: on one process whole, in parts, and on two processes (whole
    and in parts).
    """
    plan = replace(PLAN, batch_sequences=8)
    for name in losses.LOSSES:
        for world, micro in ((1, 0), (1, 1), (2, 0), (2, 2)):
            target = folder / f"{name}-{world}-{micro}.pt"
            work = [
                lambda rank=rank, name=name, world=world, micro=micro, target=target: one_step(
                    replace(plan, loss=name, coefficient=0.3), rank, world, micro, target
                )
                for rank in range(world)
            ]
            children = []
            for action in work[1:]:
                child = os.fork()
                if child == 0:
                    action()
                    os._exit(0)
                children.append(child)
            assert forked(work[0]) == 0
            for child in children:
                os.waitpid(child, 0)


def one_step(plan: train.Plan, rank: int, world: int, micro: int, target: Path) -> None:
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{target}.sync", rank=rank, world_size=world
        )
    made = model().double()
    made.config.attention_dropout = 0.0
    for layer in made.model.layers:
        layer.self_attn.attention_dropout = 0.0
    forward = numerics.use_precision(made, "float32")
    batch = next(train.batches(torch.from_numpy(STREAM.astype(np.int32)), plan))
    loss = losses.LOSSES[plan.loss]
    bias = objective.selection_bias(made) if loss.moves_bias else torch.zeros(1)
    made.train()
    with objective.biased(made), adapter.record(made, scores=True) as rec:
        nats, balance, load_ = objective.gradients(
            made, rec, batch, loss, plan.coefficient, micro_sequences=micro, forward=forward
        )
    if loss.moves_bias:
        objective.update_bias(bias, load_, plan.coefficient)
    if rank == 0:
        state = {"nats": nats, "balance": balance, "load": load_, "bias": bias}
        torch.save(state | {n: p.grad for n, p in made.named_parameters()}, target)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"resume": resume, "together": together}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
