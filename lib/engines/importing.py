"""One door for every recording: which engine wrote a file is told by what stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib.engines import content, megatron, responses, sglang, tensorrt_llm, vllm
from lib.engines.recording import Recording

KNOWN = (
    "SGLang's recorder (stat, per pass, per token), returned experts of SGLang or vLLM, vLLM's "
    "balancer, Megatron's router replay, TensorRT-LLM's statistics"
)


def read(path: Path, *, experts: int = 0, top_k: int = 0, layers: int = 0) -> Recording | None:
    """The recording in a file (or TensorRT-LLM's folder, or one with the files of SGLang's ranks),
    None where it is no engine's.

    experts, top_k, layers: what the file may leave untold (0: not given).

    Refused in one line: a file that cannot be opened, or is an engine's but not whole.
    """
    try:
        if (path / "meta_info.json").is_file():
            return tensorrt_llm.read(path)
        if path.is_dir():
            ranks = [content.load(part) for part in sorted(path.glob("*.pt"))]
            return sglang.read(sglang.together(ranks), experts=experts) if ranks else None
        found = content.load(path)
        own = sglang.read(found, experts=experts)
        if own is None and isinstance(found, Mapping | list):
            own = responses.read(found, experts=experts, top_k=top_k, layers=layers)
            own = own or vllm.read(found)
        return own or megatron.read(found, experts=experts)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        named = reason if str(path) in reason else f"engines: {path}: {reason}"
        raise ValueError(named) from None
