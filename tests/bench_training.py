"""Speed of fine-tuning: the loop of lib.balance.train against transformers' Trainer, same model,
batch and machine.

``python tests/bench_training.py FOLDER [SEQUENCES TOKENS STEPS]`` writes throughput.csv (path,
loss, tokens_per_s, and what it ran on) and profile.csv (share of device time by kind of kernel, of
our loop) to FOLDER.  Rounds of both take turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from lib.balance import losses, numerics, objective, train
from lib.model import load
from lib.routing import adapter

WARM = 10  # first steps, left out
ROUNDS = 3
KINDS = {
    "expert products": ("groupproblem", "grouped", "group_gemm"),
    "attention": ("flash", "attention", "fmha", "sdpa"),
    "optimizer and clipping": ("adam", "multi_tensor", "lpnorm"),
    "other products": ("gemm", "cutlass", "nvjet", "addmm"),
    "sorting and counting": ("sort", "scatter", "histogram", "topk", "cumsum", "index"),
    "softmax and loss": ("softmax", "nll", "cross"),
    "elementwise, sums and copies": (
        "elementwise",
        "reduce",
        "catarray",
        "memcpy",
        "memset",
        "copy",
    ),
}


def fresh(device: torch.device, **changes):
    model, _ = load.embedded("without", device=device)
    for name, value in changes.items():
        setattr(model.config, name, value)
    return model


def ours(stream: np.ndarray, plan: train.Plan, device: torch.device) -> float:
    history = train.run(fresh(device), stream, plan, precision="bf16", title=plan.loss)
    return float(history.tokens_per_s.iloc[1:].median())


def stock(stream: np.ndarray, plan: train.Plan, device: torch.device) -> float:
    """The Trainer as its documentation shows it, with the stock balance loss on."""
    windows = stream[: (len(stream) - 1) // plan.sequence_tokens * plan.sequence_tokens].reshape(
        -1, plan.sequence_tokens
    )
    rows = [
        {
            "input_ids": torch.from_numpy(row.astype(np.int64)),
            "labels": torch.from_numpy(row.astype(np.int64)),
        }
        for row in windows
    ]
    marks: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step in (WARM, plan.steps):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=plan.batch_sequences,
            max_steps=plan.steps,
            bf16=True,
            save_strategy="no",
            report_to=[],
            learning_rate=plan.learning_rate,
            logging_steps=20,
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
        )
        model = fresh(device, output_router_logits=True, router_aux_loss_coef=0.01)
        transformers.Trainer(model, options, train_dataset=rows, callbacks=[Clock()]).train()
    return (plan.steps - WARM) * plan.batch_sequences * plan.sequence_tokens / (marks[1] - marks[0])


def profiled(stream: np.ndarray, plan: train.Plan, device: torch.device) -> pd.DataFrame:
    """Share of the device's time by kind of kernel over a few steps of our loop, and the share that
    it stood idle.
    """
    model = fresh(device)
    forward, optimizer = numerics.use_precision(model, "bf16"), train.optimizer(model, plan)
    loss = losses.LOSSES[plan.loss]
    source = train.batches(torch.from_numpy(stream.astype(np.int32)).to(device), plan)
    with adapter.record(model, scores=True) as rec:

        def step(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            optimizer.zero_grad(set_to_none=True)
            found = objective.gradients(model, rec, batch, loss, plan.coefficient, forward=forward)
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            return found

        step = objective.replayed(step, model, next(source))
        for number in range(2 * WARM):
            if number == WARM:
                if device.type == "cuda":
                    torch.cuda.synchronize()
                watch, began = (
                    profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]),
                    time.perf_counter(),
                )
                watch.__enter__()
            step(next(source))
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - began
        watch.__exit__(None, None, None)
    shares: dict[str, float] = {}
    for event in watch.key_averages():
        busy = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        if device.type == "cuda" and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        kind = next(
            (
                kind
                for kind, words in KINDS.items()
                if any(word in event.key.lower() for word in words)
            ),
            "the rest",
        )
        shares[kind] = shares.get(kind, 0) + busy / 1e6 / wall
    shares["device idle, waiting for launches"] = max(0.0, 1 - sum(shares.values()))
    return pd.DataFrame(
        sorted(shares.items(), key=lambda pair: -pair[1]), columns=["kind", "share"]
    )


def main(folder: str, sequences: str = "32", tokens: str = "512", steps: str = "110") -> None:
    device = load.device("auto")
    plan = train.Plan(
        steps=int(steps),
        batch_sequences=int(sequences),
        sequence_tokens=int(tokens),
        learning_rate=1e-5,
        warmup_steps=2,
        loss="switch",
        coefficient=0.01,
        log_every=max(2, (int(steps) - WARM) // 5),
    )
    stream = (
        np.random.default_rng(0)
        .integers(0, load.VOCABULARY, 40 * plan.batch_sequences * plan.sequence_tokens + 1)
        .astype(np.uint16)
    )
    rows = []
    for turn in range(ROUNDS):
        for path, measure in {"this book": ours, "Trainer": stock}.items():
            rows.append(dict(path=path, round=turn, tokens_per_s=measure(stream, plan, device)))
            print(rows[-1], flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    facts = dict(
        device=name,
        torch=torch.__version__,
        transformers=transformers.__version__,
        batch_tokens=int(sequences) * int(tokens),
    )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).assign(**facts).to_csv(target / "throughput.csv", index=False)
    profiled(stream, plan, device).assign(**facts).to_csv(target / "profile.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
