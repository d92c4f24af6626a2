"""Train the embedded checkpoints from random weights, evaluate them on all held-out text, and
compute the bars.

Everything is written below one folder: `tokenizer.json`, per arm the checkpoint,
`training_<arm>.csv.xz` (its history) and `held_out_<arm>.csv.xz` (per document; column `cut` =
tokens of each document evaluated, 0 for all), and `bars.csv`. `adopt` makes such a folder the
repository's own.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from lib.balance import evaluate, train
from lib.model import corpus, load, ngram, pack, vocabulary

CUTS = (512, 0)  # tokens of each held-out document; 0: all of them
SAMPLE = 64  # windows of held-out text whose loss is followed during training


def trained(home: Path, p) -> Path:
    """The folder of the checkpoints that 00_base_model tells of: the embedded ones, or where its
    parameters `p` ask for it (`retrain`) home/model, into which they are trained now.
    """
    if not p.retrain:
        return load.HOME
    run(home / "model", p)
    return home / "model"


def run(folder: Path, p) -> None:
    """Train the arms named by `p.arms` into `folder`; `p` holds the parameters of the notebook
    00_base_model.
    """
    where = load.device(p.device)
    folder.mkdir(parents=True, exist_ok=True)
    options = dict(source=p.corpus_source, allow_partial=p.allow_partial)
    documents = corpus.read(corpus.manifest().query("split == 'train'"), **options)
    tokenizer = _tokenizer(folder, documents)
    stream = corpus.stream(corpus.encode(documents, tokenizer))
    held_out = {cut: corpus.held_out(None, cut or None, tokenizer, **options) for cut in CUTS}
    bars(stream, held_out[0], where).to_csv(folder / "bars.csv")
    for arm in p.arms:
        started = time.time()
        model, history = pretrain(arm, stream, _sample(held_out[0], p.sequence_tokens), where, p)
        load.save(model, folder / arm)
        history.to_csv(folder / f"training_{arm}.csv.xz", index=False)
        known = facts(where, vars(p), time.time() - started)
        (folder / f"provenance_{arm}.json").write_text(json.dumps(known, indent=1) + "\n")
        saved, _ = load.open(str(folder / arm), device=where)
        score(saved, held_out).to_csv(folder / f"held_out_{arm}.csv.xz", index=False)


def facts(where: torch.device, parameters: dict, seconds: float) -> dict:
    """What a training run was; the commit comes from the environment, since git may be absent."""
    device = (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": os.environ.get("MOE_COMMIT", "unknown"),
        "device": device,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "seconds": round(seconds, 1),
        "parameters": {
            name: value
            for name, value in parameters.items()
            if name not in ("run_dir", "corpus_source")
        },
    }


def _tokenizer(folder: Path, documents: list[corpus.Document]):
    """The repository's tokenizer where there is one, else a new one trained on `documents`; kept in
    `folder`.
    """
    known = any(load.HOME.glob("tokenizer.json*"))
    tokenizer = load.tokenizer() if known else vocabulary.train(documents)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def _sample(documents: list[corpus.Document], tokens: int) -> np.ndarray:
    """[windows, tokens + 1] of held-out text, spread evenly over it."""
    stream = corpus.stream(documents)
    windows = (len(stream) - 1) // tokens
    pick = np.linspace(0, windows - 1, min(SAMPLE, windows)).astype(int)
    return np.stack([stream[i * tokens : (i + 1) * tokens + 1] for i in pick])


def pretrain(arm: str, stream: np.ndarray, sample: np.ndarray, where: torch.device, p):
    """(model, history) of one arm: same seed, initial weights and data order for both."""
    plan = train.Plan(
        steps=p.steps,
        batch_sequences=p.batch_sequences,
        sequence_tokens=p.sequence_tokens,
        learning_rate=p.learning_rate,
        loss="switch" if arm == "with" else "none",
        seed=p.seed,
        coefficient=p.balance_coefficient if arm == "with" else 0.0,
    )
    precision = "bf16" if where.type == "cuda" else "float32"
    if not p.steps:
        plan = replace(plan, steps=affordable_steps(stream, plan, where, precision, p))
    model = untrained(p.seed, where)
    return model, train.run(
        model, stream, plan, sample=sample, precision=precision, title=f"training {arm}"
    )


def untrained(seed: int, where: torch.device, **shape: int) -> transformers.OlmoeForCausalLM:
    """The embedded architecture, or with `shape` another of its family, with the random weights of
    `seed`, which are the same on every device.
    """
    torch.manual_seed(seed)
    model = transformers.OlmoeForCausalLM(load.config(**shape))
    torch.nn.Module.to(model, where)
    return model


def affordable_steps(
    stream: np.ndarray, plan: train.Plan, where: torch.device, precision: str, p
) -> int:
    """The steps of `p.epochs` passes over the text, or as many as a trial says fit in
    `p.time_budget_s`.
    """
    wanted = max(1, int(p.epochs * len(stream) / (plan.batch_sequences * plan.sequence_tokens)))
    trial = replace(plan, steps=min(60, wanted), log_every=20)
    speed = train.run(
        untrained(p.seed, where), stream, trial, precision=precision, title="trial of the speed"
    )
    step_s = plan.batch_sequences * plan.sequence_tokens / speed.tokens_per_s.iloc[-1]
    return min(wanted, max(1, int(p.time_budget_s / step_s)))


def score(model: torch.nn.Module, held_out: dict[int, list[corpus.Document]]) -> pd.DataFrame:
    """Per-document evaluation at each cut."""
    size = 65_536 if next(model.parameters()).is_cuda else 8_192
    tables = [
        evaluate.per_document(model, documents, batch_tokens=size).assign(cut=cut)
        for cut, documents in held_out.items()
    ]
    return pd.concat(tables)


def bars(stream: np.ndarray, documents: list[corpus.Document], where: torch.device) -> pd.DataFrame:
    """Bits per byte by domain (the index) of the 5-gram model trained on `stream`, and of xz -9."""
    counts = ngram.fit(torch.from_numpy(stream.astype(np.int32)).to(where), load.VOCABULARY)
    table = pd.DataFrame(
        {
            "5-gram": ngram.bits_per_byte(counts, documents, where),
            "xz -9": ngram.xz_bits_per_byte(documents),
        }
    )
    return table.assign(training_tokens=len(stream)).rename_axis("domain")


def adopt(folder: Path) -> None:
    """Copy a folder written by `run` to data/model, its weights packed; `python data/inventory.py`
    then lists it.
    """
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            target = load.HOME / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":
                target.with_name(f"{file.name}.packed").write_bytes(pack.pack(file.read_bytes()))
            else:
                shutil.copyfile(file, target)
