"""The repaired model, to take home: written when its run ends, opened again with the same numbers.

A folder holds what training changed: all of the model as `save_pretrained` writes it, or
`routers.safetensors`, the weights of the routers alone; with the loss-free bias also
`selection_bias.safetensors` [layers, experts].  `repaired.json` says what they belong to, and
`README.md` how to load them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lib import provenance
from lib.balance import trainable
from lib.model import load

ROUTERS, BIAS, FACTS = "routers.safetensors", "selection_bias.safetensors", "repaired.json"
WHOLE = ['model = AutoModelForCausalLM.from_pretrained("{folder}", dtype="auto")']
PART = [
    'model, _ = load.open("{model}", dtype="{dtype}", revision="{revision}")  # of lib.model',
    'model.load_state_dict(load_file("{folder}/routers.safetensors"), strict=False)',
]
BIASED = [
    'bias = load_file("{folder}/selection_bias.safetensors")["bias"]',
    'model.register_buffer("selection_bias", bias, persistent=False)',
    "with objective.biased(model):  # of lib.balance: experts are chosen by score + bias,",
    "    model(input_ids)  # and weighted by their scores alone (arXiv 2408.15664)",
]


def check(loss: str, coefficients: Mapping[str, Sequence[float]]) -> None:
    """Refuse to keep the model of a loss that is not trained with, naming the nearest."""
    if loss and loss not in coefficients:
        hint = provenance.nearest(loss, coefficients)
        options = ", ".join(coefficients)
        raise ValueError(f"repaired: keep = {loss!r}: must be '' or one of {options}{hint}")


def save(
    model: transformers.PreTrainedModel,
    tokenizer: Tokenizer,
    folder: Path,
    about: Mapping[str, str],
) -> None:
    """Write a model after its training.

    about: what it was before, as `load.open` takes it: model, revision, dtype; and trained ("all"
    or "routers").
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = WHOLE if about["trained"] == "all" else PART
    bias = getattr(model, "selection_bias", None)
    if about["trained"] == "all":
        model.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        own = {name: part.detach() for name, part in trainable.routers(model).items()}
        save_file({name: part.contiguous() for name, part in own.items()}, folder / ROUTERS)
    if bias is not None:
        save_file({"bias": bias.contiguous()}, folder / BIAS)
        lines = lines + BIASED
    names = dict(about, model=_base(about))
    code = "\n".join(lines).format(**names | {"folder": folder.name})
    (folder / "README.md").write_text(f"How to load this model:\n\n```python\n{code}\n```\n")
    with provenance.writing(folder / FACTS) as part:
        part.write_text(json.dumps(dict(about)) + "\n")


def _base(about: Mapping[str, str]) -> str:
    """What `load.open` calls the model that was repaired."""
    return "without" if about["model"] == "embedded" else about["model"]


def open(
    folder: Path, *, device: torch.device | str = "cpu", code: str = ""
) -> tuple[transformers.PreTrainedModel, Tokenizer]:
    """(model, tokenizer) of a folder that `save` wrote; with a bias, it counts inside
    `objective.biased(model)`.  Refused: another folder.
    """
    if not (folder / FACTS).is_file():
        raise FileNotFoundError(f"repaired.open: {folder}: must hold {FACTS}")
    about = json.loads((folder / FACTS).read_text())
    if about["trained"] == "all":
        model, tokenizer = load.open(str(folder), device=device, dtype=about["dtype"])
    else:
        options = dict(dtype=about["dtype"], revision=about["revision"], code=code)
        model, tokenizer = load.open(_base(about), device=device, **options)
        model.load_state_dict(load_file(folder / ROUTERS, device=str(device)), strict=False)
    if (folder / BIAS).is_file():
        bias = load_file(folder / BIAS, device=str(device))["bias"]
        model.register_buffer("selection_bias", bias, persistent=False)
    return model, tokenizer
