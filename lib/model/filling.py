"""Whether a checkpoint fills a model: transformers leaves at random what it does not find, and
finds only in use that a configuration asks for what cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lib.provenance import nearest

WEIGHTS = ("*.safetensors", "*.bin")
LAYERS = 10_000  # that a model may have at most
SIZES = (  # of which none may be 0
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
)
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # as configurations call them


@contextmanager
def told_alone() -> Iterator[None]:
    """Inside it transformers reports nothing: what does not fit is told by `check`."""
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def check(name: str, told: Mapping[str, object]) -> None:
    """Refuse what the loading information of transformers tells of weights that the checkpoint
    lacks (they would be random), has in another shape, or has besides (scales of a quantisation,
    say), in one line that names them.
    """
    faults = {"missing": "missing_keys", "of another shape": "mismatched_keys"}
    faults["not of this model"] = "unexpected_keys"
    parts = []
    for words, kind in faults.items():
        found: list = sorted(told.get(kind) or (), key=str)  # type: ignore[call-overload]
        if found:
            first = found[0] if isinstance(found[0], str) else found[0][0]
            parts.append(f"{words}: {first}" + (f" and {len(found) - 1} more" if found[1:] else ""))
    if parts:
        rule = "must be those of the model, all of them and no others"
        raise ValueError(f"load: model = {name!r}: weights {'; '.join(parts)}: {rule}")


def folder(name: str, path: Path, settings) -> None:
    """Refuse a folder that says more than its configuration: an adapter, which would not be
    applied, or weights stored as whole numbers of a byte by a quantisation that is not named.
    """
    where = f"load: model = {name!r}"
    if (path / "adapter_config.json").is_file():
        rule = "must be merged into the weights first"
        raise ValueError(f"{where}: has an adapter, which is not applied: {rule}")
    if getattr(settings, "quantization_config", None):
        return
    for file in sorted(path.glob("*.safetensors")):
        for key, kind in stored(file).items():
            if kind in ("I8", "U8"):
                rule = "must be floating numbers, or config.json name their quantisation"
                raise ValueError(f"{where}: weights of type {kind}: {key}: {rule}")


def present(name: str, path: Path) -> None:
    """Refuse a folder without weights."""
    if path.is_dir() and not any(file.is_file() for kind in WEIGHTS for file in path.glob(kind)):
        rule = f"must be in {' or '.join(WEIGHTS)}"
        raise ValueError(f"load: model = {name!r}: the folder has no weights: {rule}")


def stored(file: Path) -> dict[str, str]:
    """The number type of each tensor of a safetensors file, by its head; empty where that is not
    whole.
    """
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        head = stream.read(size) if size <= file.stat().st_size else b"{}"
    try:
        told = json.loads(head)
        return {key: told[key]["dtype"] for key in told if key != "__metadata__"}
    except (ValueError, TypeError, LookupError):
        return {}


def chooses(name: str, settings) -> None:
    """Refuse a configuration with a size of 0, with heads that do not share keys evenly, with a
    function or positions that transformers does not know, or by which a token takes more experts
    than there are, or none, or more groups of them.
    """
    text = settings.get_text_config()
    for problem in _built_of(text):
        raise ValueError(f"load: model = {name!r}: {problem}")
    layers = getattr(text, "num_hidden_layers", None)
    if type(layers) is int and not 1 <= layers <= LAYERS:
        rule = f"must be from 1 to {LAYERS}"
        raise ValueError(f"load: model = {name!r}: num_hidden_layers = {layers}: {rule}")
    groups, taken = (getattr(text, key, None) for key in ("n_group", "topk_group"))
    if type(groups) is int and type(taken) is int and not 1 <= taken <= groups:
        rule = f"must be from 1 to {groups}, the groups"
        raise ValueError(f"load: model = {name!r}: topk_group = {taken}: {rule}")
    experts = next((n for key in EXPERTS if type(n := getattr(text, key, None)) is int), None)
    if type(groups) is int and experts is not None and (groups < 1 or experts % groups):
        rule = f"must divide {experts}, the experts"
        raise ValueError(f"load: model = {name!r}: n_group = {groups}: {rule}")
    k = getattr(text, "num_experts_per_tok", None)
    if type(k) is int and experts is not None and not 1 <= k <= experts:
        rule = f"must be from 1 to {experts}, the experts"
        raise ValueError(f"load: model = {name!r}: num_experts_per_tok = {k}: {rule}")


def _built_of(text) -> Iterator[str]:
    """What no model can be built of, field by field."""
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for key in SIZES:
        if type(size := getattr(text, key, None)) is int and size < 1:
            yield f"{key} = {size}: must be at least 1"
    heads, shared = (
        getattr(text, f"num_{kind}_heads", None) for kind in ("attention", "key_value")
    )
    if type(heads) is int and type(shared) is int and heads % shared:
        yield f"num_key_value_heads = {shared}: must divide {heads}, the attention heads"
    act = getattr(text, "hidden_act", None)
    if isinstance(act, str) and act not in ACT2FN:
        yield f"hidden_act = {act!r}: must be one that transformers knows{nearest(act, [*ACT2FN])}"
    rope = getattr(text, "rope_parameters", None)
    kind = rope.get("rope_type") if isinstance(rope, dict) else None
    if isinstance(kind, str) and kind not in (known := ["default", *ROPE_INIT_FUNCTIONS]):
        yield f"rope_type = {kind!r}: must be one of {', '.join(known)}"


def quantisation(name: str, settings) -> dict:
    """What must be said at loading of a quantised checkpoint, so that its experts are seen by the
    adapter.
    """
    known = getattr(settings, "quantization_config", None) or {}
    told = known.get("quant_method", "") if isinstance(known, dict) else known.quant_method
    method = str(told).lower()
    if "bitsandbytes" in method or "bnb" in method:
        raise ValueError(
            f"load: model = {name!r}: is quantised by bitsandbytes, which leaves fused experts at "
            "16 bits, so that it is no smaller and not what is served: take the original checkpoint"
        )
    if "mxfp4" in method:  # its kernels route by themselves, past every hook
        from transformers.utils.quantization_config import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    return {}
