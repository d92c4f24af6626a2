"""Three tiny models of families unlike the book's, with their tokenizers, and text of one's own:
what an owner of another model brings.

    python tests/tiny_models.py OUT [--seconds 60]

writes OUT/deepseek_v3 (dense first layer, sigmoid scores with a bias), OUT/mixtral (one expert per
token), OUT/qwen3_moe, each trained for that many seconds, and the text OUT/text.jsonl and
OUT/text, a folder of two subfolders.  It is theirs alone: no file of the book's corpus is read.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 1024
SUBFOLDERS = {"network": "http", "text": "email"}  # of the folder of text: packages of Python
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=512,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
FAMILIES = dict(
    deepseek_v3=dict(
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=1,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
        moe_intermediate_size=32,
        kv_lora_rank=16,
        q_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=8,
        v_head_dim=16,
    ),
    mixtral=dict(num_local_experts=8, num_experts_per_tok=1),
    qwen3_moe=dict(num_experts=12, num_experts_per_tok=3, moe_intermediate_size=32, head_dim=16),
)


def texts() -> dict[str, list[str]]:
    """By subfolder, texts of Python's own library."""
    home = Path(sysconfig.get_paths()["stdlib"])
    return {
        name: [file.read_text() for file in sorted((home / package).rglob("*.py"))]
        for name, package in SUBFOLDERS.items()
    }


def write_text(home: Path) -> None:
    """home/text.jsonl, an object a line, and home/text, a file each."""
    lines = []
    for name, own in texts().items():
        (home / "text" / name).mkdir(parents=True)
        for number, text in enumerate(text for text in own if text.strip()):
            (home / "text" / name / f"{number}.txt").write_text(text)
            lines.append(json.dumps({"text": text, "domain": name}) + "\n")
    (home / "text.jsonl").write_text("".join(lines))


def tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of that text, which begins a text with its own token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator((text for own in texts().values() for text in own), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return made


def build(family: str, **changes: object) -> PreTrainedModel:
    """A model of a family with random weights; changes: fields of its configuration."""
    settings = AutoConfig.for_model(family, **COMMON | FAMILIES[family] | changes)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(settings)


def train(model: PreTrainedModel, stream: torch.Tensor, seconds: float) -> list[float]:
    """Nats per token of each step of so many seconds on a text, one step at least."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    generator, began, found = torch.Generator().manual_seed(0), time.monotonic(), []
    while not found or time.monotonic() - began < seconds:
        starts = torch.randint(len(stream) - 128, (8, 1), generator=generator)
        loss = model(input_ids=(batch := stream[starts + torch.arange(128)]), labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def save(model: PreTrainedModel, made: Tokenizer, folder: Path) -> None:
    """The model with its tokenizer, as its owner has them."""
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>").save_pretrained(folder)


def make(home: Path, seconds: float) -> dict[str, list[float]]:
    """All of it below a folder; of each family the losses of its training."""
    home.mkdir(parents=True, exist_ok=True)
    write_text(home)
    made, found = tokenizer(), {}
    whole = "\n".join(text for own in texts().values() for text in own)
    stream = torch.tensor(made.encode(whole, add_special_tokens=False).ids)
    for family in FAMILIES:
        model = build(family)
        found[family] = train(model, stream, seconds)
        save(model, made, home / family)
    return found


if __name__ == "__main__":
    line = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    line.add_argument("out", type=Path)
    line.add_argument("--seconds", type=float, default=60.0)
    asked = line.parse_args()
    for name, losses in make(asked.out, asked.seconds).items():
        print(f"{name}: {len(losses)} steps, {losses[0]:.2f} to {losses[-1]:.2f} nats per token")
