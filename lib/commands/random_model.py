"""``python -m lib.commands.random_model FOLDER``: a model of a real shape with random weights.

It stands for what a real one takes in memory and time, never for its quality.  The tokenizer is
that of the embedded model, whose ids are below any real vocabulary.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lib.model import load


def made(folder: Path, shape: str) -> int:
    """Write config, weights and tokenizer into `folder`; returns the bytes of the weights."""
    if shape not in load.SHAPES:
        raise ValueError(f"random_model: {shape!r}: must be one of {', '.join(load.SHAPES)}")
    model = load.random(shape, device=load.device("auto"))
    model.save_pretrained(folder, max_shard_size="4GB")
    load.tokenizer().save(str(folder / "tokenizer.json"))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    line = argparse.ArgumentParser(prog="python -m lib.commands.random_model", description=__doc__)
    line.add_argument("folder", type=Path)
    line.add_argument("shape", nargs="?", choices=[*load.SHAPES], default="OLMoE-1B-7B")
    asked = line.parse_args()
    print(f"{asked.folder}: {made(asked.folder, asked.shape) / 1e9:.1f} GB of weights")
