"""A model that is spread over two GPUs against itself on one.

    python tests/two_gpus.py

makes a small random model (for mechanics, never for results), opens it on one GPU and spread over
two, and prints by how much the two differ in what the chapters 01, 02 and 03 compute of it; exit
code 1 where that is more than the order of additions explains.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import OlmoeForCausalLM

from lib.balance import evaluate, losses, objective, train
from lib.balance.plan import Plan
from lib.model import load
from lib.routing import adapter, bind, observe, study, table

MOST = 1e-3  # relative difference
SIZES = dict(vocab_size=997, hidden_size=256, num_hidden_layers=6, tie_word_embeddings=False)


def texts(count: int, tokens: int, seed: int) -> list[SimpleNamespace]:
    """Documents of random tokens, each its own cluster."""
    draw = np.random.default_rng(seed)
    return [
        SimpleNamespace(
            name=f"n{i}",
            domain="d",
            cluster=f"c{i}",
            bytes=4 * tokens,
            token_ids=draw.integers(0, SIZES["vocab_size"], tokens).tolist(),
        )
        for i in range(count)
    ]


def computed(model: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    """What the chapters compute of a model, by name."""
    held_out = texts(12, 64, seed=0)
    t = observe.trace(model, held_out)
    yield "01 counts", t.load
    yield "01 entropy", observe.entropies(model, held_out)
    about = dict(documents=12, tokens=64, fit_steps=50)
    own = study.subject(model, held_out, texts(16, 64, seed=1), **about)
    plan = study.Study(bind.settings(list(table.STRATEGIES), [1.25], [1.0], [4]), group_sizes=[32])
    found = study.measured(plan, {"model": own})
    yield "02 nats", found.nats.to_numpy()
    yield "02 P95", found.p95.to_numpy()
    leaks = study.leaks(plan, own, tokens=32)
    yield "02 causal leaks", leaks.leak[leaks.causal].to_numpy()
    rows, counted = evaluate.routed(model, held_out, serving_tokens=64, draws=4)
    yield "03 nats", rows.nats.to_numpy()
    yield "03 counts", counted["counts"]
    batch = torch.tensor([one.token_ids for one in held_out[:8]])
    batch = batch.to(next(model.parameters()).device)
    for name, loss in losses.LOSSES.items():
        with adapter.record(model, scores=True) as rec:
            step = objective.gradients(model, rec, batch, loss, 0.1, micro_sequences=4)
        norm = sum(p.grad.double().square().sum().cpu() for p in model.parameters())
        yield f"03 step {name}", np.array([float(step[0]), float(step[1]), float(norm.sqrt())])
        model.zero_grad()
    stream = np.random.default_rng(2).integers(0, SIZES["vocab_size"], 8 * 8 * 33)
    for name in ("switch", "bias"):
        how = dict(loss=name, coefficient=0.01, steps=4, batch_sequences=8, sequence_tokens=32)
        how |= dict(learning_rate=1e-3, warmup_steps=1, log_every=1)
        history = train.run(model, stream, Plan(**how))
        yield f"03 training {name}", history.nats.to_numpy()


def main() -> int:
    """Print the differences; the exit code."""
    if torch.cuda.device_count() < 2:
        print(f"two_gpus: {torch.cuda.device_count()} GPUs: must be at least 2", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        OlmoeForCausalLM(load.config(**SIZES)).save_pretrained(folder)
        load.tokenizer().save(str(folder / "tokenizer.json"))
        one, _ = load.open(name, device="cuda", dtype="float32")
        two = load._pretrained(folder, "cuda", torch.float32, device_map="balanced")
    places = [{str(p.device) for p in model.parameters()} for model in (one, two)]
    print(f"one: {sorted(places[0])}, two: {sorted(places[1])}")
    worst = 0.0 if [len(place) for place in places] == [1, 2] else np.inf
    for (what, wanted), (_, found) in zip(computed(one), computed(two), strict=True):
        gap = np.abs(np.asarray(found, float) - wanted).max() / max(np.abs(wanted).max(), 1e-12)
        worst = max(worst, gap)
        print(f"{what:24} {gap:.1e}{'' if gap <= MOST else '  DIFFERS'}")
    return int(not worst <= MOST)


if __name__ == "__main__":
    sys.exit(main())
