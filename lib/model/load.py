"""Open a language model and its tokenizer: embedded, of a local folder, or of a hub by name."""

from __future__ import annotations

import copy
import lzma
import math
import os
import re
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from tokenizers import Tokenizer

from lib import provenance
from lib.model import filling, pack, spreading, vocabulary

DATA = Path(__file__).parents[2] / "data"
HOME = DATA / "model"
CACHE = provenance.repository() / "_build" / "model"  # unpacked weights
ARMS = ("without", "with")  # trained without, and with, a balance loss
OURS = ("embedded", *ARMS)  # what a chapter's `model` calls both, or one of them
VOCABULARY = vocabulary.SIZE
SHAPES: dict[str, dict[str, Any]] = {
    "OLMoE-1B-7B": dict(
        hidden_size=2048,
        intermediate_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=16,
        num_experts=64,
        num_experts_per_tok=8,
        vocab_size=50304,
    )
}
transformers.utils.logging.disable_progress_bar()  # a small file needs none, notebooks keep it


def device(name: str) -> torch.device:
    """The torch device of a notebook's `device`; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"load.device: device = {name!r}: this machine has no CUDA device")
    return torch.device(name)


def tokenizer(path: Path | None = None) -> Tokenizer:
    """The byte-level BPE tokenizer of the embedded model (8,192 entries), from a file or its xz."""
    path = path or HOME / "tokenizer.json"
    for file in (path, path.with_name(f"{path.name}.xz")):
        if file.is_file():
            packed = lzma.decompress if file.suffix == ".xz" else bytes
            return Tokenizer.from_buffer(packed(file.read_bytes()))
    raise FileNotFoundError(
        f"load.tokenizer: {path}: no such file (00_base_model makes it with retrain=True)"
    )


def config(**changes) -> transformers.OlmoeConfig:
    """The embedded model's architecture: OLMoE (arXiv 2409.02060) at 6 layers × 16 experts top-2,
    7.8 M parameters.
    """
    own: dict[str, Any] = dict(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=56,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=16,
        num_experts_per_tok=2,
        norm_topk_prob=False,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        rope_theta=10_000.0,
        output_router_logits=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return transformers.OlmoeConfig(**own | changes)


def arms(model: str) -> dict[str, str]:
    """What `open` takes, by the names under which a chapter tells of it: both checkpoints of
    "embedded", or `model` alone.
    """
    return {arm: arm for arm in ARMS} if model == "embedded" else {"model": model}


def described(model: str) -> str:
    """What a chapter's `model` is, in words; of a folder its name."""
    if model == "embedded":
        return "the two checkpoints of this book"
    if model in ARMS:
        return f"this book's checkpoint {model} a balance loss"
    return f"the model {provenance.portable(str(Path(model).expanduser()))}"


def own(model: str) -> str | float:
    """Of a chapter's `model` this book's own checkpoints in words, of any other NaN: prose that
    names it is about them alone.
    """
    return "this book's own checkpoints" if model in OURS else math.nan


def embedded(
    arm: str, *, device: torch.device | str = "cpu", home: Path | None = None
) -> tuple[transformers.PreTrainedModel, Tokenizer]:
    """(model, tokenizer) of an embedded checkpoint in float32, "without" or "with" a balance loss,
    its file verified first; or, not verified, of one trained anew into another folder `home`.
    """
    if arm not in ARMS:
        raise ValueError(f"load.embedded: arm = {arm!r}: must be one of {', '.join(ARMS)}")
    source = home / arm if home and home != HOME else weights(arm).parent
    return _pretrained(source, device, torch.float32), tokenizer((home or HOME) / "tokenizer.json")


def weights(arm: str) -> Path:
    """The weights of an embedded checkpoint, verified, unpacked beside their configuration."""
    packed = HOME / arm / "model.safetensors.packed"
    verify(packed)
    target = pack.unpacked(packed, CACHE)
    for file in (HOME / arm).glob("*.json"):
        if not (own := target.with_name(file.name)).is_file():
            pack.place(own, file.read_bytes())
    return target


def open(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    revision: str = "main",
    code: str = "",
) -> tuple[transformers.PreTrainedModel, Tokenizer]:
    """(model, tokenizer) by name: "without" or "with" (embedded), a local folder, or a model of the
    hub.

    dtype "auto": float32 on a CPU, else that of the checkpoint.  On CUDA a model that is not the
    embedded one goes where `spreading.placed` says.  code: the name of the model
    whose own Python code may run; without it a model that brings code is refused.  Refused, before
    anything is loaded: quantisation that leaves experts unpacked (bitsandbytes), and a model larger
    than the memory there is; then weights that do not fill the model, by their names.
    """
    if name in ARMS:
        return embedded(name, device=device)
    source, options, settings = checked(name, revision, code)
    options |= filling.quantisation(name, settings)
    kind = dtype_of(name, dtype, settings, device)
    need = one_line(name, lambda: spreading.needed(settings, kind, code=code == name))
    spreading.check(name, need, kind, torch.device(device))
    filling.present(name, Path(source))
    spread = spreading.placed(need, torch.device(device))
    model = _pretrained(source, device, kind, **options, **spread)
    model.config.revision = getattr(settings, "_commit_hash", None) or revision
    return model, one_line(name, lambda: own_tokenizer(Path(source), source, options))


def look(name: str, revision: str = "main", code: str = "") -> None:
    """Refuse, without reading its weights, a model whose configuration, tokenizer or files of
    weights `open` would refuse.
    """
    source, options, settings = checked(name, revision, code)
    filling.quantisation(name, settings)
    one_line(name, lambda: spreading.needed(settings, torch.float32, code=code == name))
    filling.present(name, Path(source))
    if Path(source).is_dir():
        one_line(name, lambda: own_tokenizer(Path(source), source, options))


def checked(
    name: str, revision: str, code: str
) -> tuple[str, dict[str, Any], transformers.PretrainedConfig]:
    """`configured`, of a model that can be built and whose folder says no more than that."""
    source, options, settings = configured(name, revision, code)
    filling.chooses(name, settings)
    filling.folder(name, Path(source), settings)
    return source, options, settings


def configured(
    name: str, revision: str, code: str
) -> tuple[str, dict[str, Any], transformers.PretrainedConfig]:
    """(source, options, config) of a folder or a model of the hub, without its weights."""
    path = Path(name).expanduser()
    hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not hub and not (path / "config.json").is_file():
        known = f"{', '.join(ARMS)}, a folder with config.json, or owner/name"
        raise FileNotFoundError(f"load.open: model = {name!r}: must be one of {known}")
    source = str(path) if path.exists() else name
    options: dict[str, Any] = dict(revision=revision, trust_remote_code=code == name)
    return source, options, read_config(name, source, options)


def read_config(name: str, source: str, options: dict) -> transformers.PretrainedConfig:
    """The configuration of what a user calls `name`; refused in one line."""
    return one_line(name, lambda: transformers.AutoConfig.from_pretrained(source, **options))


def own_tokenizer(path: Path, source: str, options: dict) -> Tokenizer:
    """A model's own tokenizer, with the rule by which it begins a text."""
    if (path / "tokenizer.json").is_file():
        return vocabulary.local(path)
    whole = transformers.AutoTokenizer.from_pretrained(source, **options)
    bos = whole.bos_token if getattr(whole, "add_bos_token", True) else None
    return vocabulary.beginning(whole.backend_tokenizer, bos)


def random(shape: str, *, device: torch.device) -> transformers.PreTrainedModel:
    """A model of a real shape with random weights in bfloat16, to measure cost on, never quality:
    "OLMoE-1B-7B".
    """
    settings = transformers.OlmoeConfig(**SHAPES[shape], output_router_logits=False)
    kind = torch.bfloat16
    spreading.check(shape, spreading.needed(settings, kind), kind, device)
    with device:
        before = torch.get_default_dtype()
        torch.set_default_dtype(kind)
        try:
            return transformers.AutoModelForCausalLM.from_config(settings, dtype=kind).eval()
        finally:
            torch.set_default_dtype(before)


def timed(
    shape: str,
    opened: MutableMapping[str, tuple[transformers.PreTrainedModel, Tokenizer]],
    where: torch.device,
) -> tuple[transformers.PreTrainedModel, str]:
    """The model whose cost a chapter measures, and what it is in words: "model" takes the first of
    `opened`, anything else random weights of that `shape`; these are then let go, as both need not
    fit into memory.
    """
    if shape == "model":
        return next(iter(opened.values()))[0], "the first model of this chapter"
    opened.clear()
    words = f"random weights of the shape of {shape}, for cost only"
    return random(shape, device=where), words


def one_line(name: str, action: Callable[[], Any]) -> Any:
    """The result of `action`; what transformers, safetensors or the hub say of a bad name or file
    becomes one line.
    """
    try:
        return action()
    except vocabulary.TokenizerError as error:
        raise ValueError(f"load: model = {name!r}: {error}") from None
    except Exception as error:  # the libraries raise a dozen types here, each of many lines
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200]
        if isinstance(error, LookupError | ArithmeticError | AttributeError) or not reason:
            reason = f"{type(error).__name__}: {reason}"
        if "does not recognize this architecture" in reason:
            kind = "".join(re.findall(r"model type (`[^`]*`)", reason))
            reason = f"model_type {kind} is none that transformers {transformers.__version__} knows"
        if "trust_remote_code" in str(error):
            reason = "it brings its own Python code, which runs only if the parameter remote_code "
            reason += "names this model"
        raise OSError(f"load: model = {name!r}: cannot be opened: {reason}") from None


def dtype_of(name: str, wanted: str, settings, device: torch.device | str) -> torch.dtype:
    """The number type that `open` loads a model in, by its `dtype`."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted != "auto" and wanted not in kinds:
        raise ValueError(f"load: dtype = {wanted!r}: must be one of auto, {', '.join(kinds)}")
    own = getattr(settings, "dtype", None) or torch.float32
    return kinds.get(wanted, torch.float32 if torch.device(device).type == "cpu" else own)


def _pretrained(
    source: Path | str, device: torch.device | str, dtype: torch.dtype, **options
) -> transformers.PreTrainedModel:
    """The model in evaluation mode, every weight from the checkpoint and every one of it used."""
    options |= dict(dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    with filling.told_alone():
        model, told = one_line(
            str(source),
            lambda: transformers.AutoModelForCausalLM.from_pretrained(source, **options),
        )
    filling.check(str(source), told)
    return (model if "device_map" in options else model.to(device)).eval()


def verify(path: Path) -> str:
    """The SHA-256 of a file of data/, which must be the one that `data/manifest.csv` lists."""
    name = path.relative_to(DATA).as_posix()
    if not path.is_file():
        raise FileNotFoundError(
            f"load.verify: data/{name}: no such file (00_base_model makes it with retrain=True)"
        )
    found = provenance.sha256(path)
    expected = pd.read_csv(DATA / "manifest.csv", index_col="file").sha256.get(name, "none")
    if found != expected:
        rule = f"must be {expected[:12]}… (damaged or replaced)"
        raise ValueError(f"load.verify: data/{name}: has SHA-256 {found[:12]}…: {rule}")
    return found


def save(model: transformers.PreTrainedModel, folder: Path) -> None:
    """Write a checkpoint in bfloat16 as one safetensors file; the folder appears whole or not at
    all.
    """
    temporary = folder.with_name(folder.name + ".part")
    copy.deepcopy(model).bfloat16().save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for file in temporary.iterdir():
        os.replace(file, folder / file.name)
    temporary.rmdir()
