"""Answers of a server that was asked for the experts of every token: vLLM's and SGLang's
routed_experts.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lib.engines import recording
from lib.engines.recording import Recording

PLAIN, PROMPT = "routed_experts", "prompt_routed_experts"
MOST_K = 64  # experts of a token, where the file does not tell


def read(content: object, *, experts: int = 0, top_k: int = 0, layers: int = 0) -> Recording | None:
    """The recording in one answer or several (a list, or one a line), None if none has any; each
    is a step.

    vLLM: choices[].routed_experts, and prompt_routed_experts of the answer before it: base64 of an
    .npy file [tokens, layers, k], nested lists, or {"data": base64, "shape", "dtype"}.  Schema:
    vllm-project/vllm, vllm/entrypoints/serve/disagg/protocol.py, commit 343bacafc7bf
    (GenerateResponseChoice), vllm/entrypoints/openai/completion/serving.py, commit 030ea52effcb.
    SGLang: meta_info.routed_experts, or sgl_ext of a choice: base64 of int32 [tokens, layers, k]
    without its shape, the last token left out, dense layers numbered too.  Schema:
    sgl-project/sglang, python/sglang/srt/state_capturer/routed_experts.py, commit 024911f2cc90
    (extract_routed_experts_from_meta_info).

    Where the shape is not told, tokens follow from prompt_tokens and completion_tokens beside it,
    and k is the largest with which no token takes an expert twice; top_k and layers overrule both.
    """
    found = list(_answers(content, []))
    if not found:
        return None
    arrays = [[_decoded(value, near) for value in values] for values, near in found]
    flat = {part.ndim for parts in arrays for part in parts} == {1}
    if flat:
        counts = [_numbers_of_tokens(near) for _, near in found]
        arrays = _shaped([np.concatenate(parts) for parts in arrays], counts, top_k, layers)
    parts = [np.concatenate(parts) for parts in arrays]
    if any(part.ndim != 3 for part in parts):
        raise ValueError(f"{PLAIN} of shape {parts[0].shape}: must be [tokens, layers, k]")
    engine = "SGLang" if flat else "vLLM"
    return recording.routed(f"{engine}, returned experts", parts, experts=experts)


def _answers(content: object, near: list[Mapping]) -> Iterator[tuple[list, list[Mapping]]]:
    """(what is recorded of one text, the objects around it from the innermost) in order."""
    if isinstance(content, Mapping):
        inner = [content, *near]
        if content.get(PLAIN) is not None:
            prompts = [part[PROMPT] for part in inner if part.get(PROMPT) is not None]
            yield [*prompts[:1], content[PLAIN]], inner
        for part in content.values():
            if isinstance(part, Mapping | list):
                yield from _answers(part, inner)
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for part in content if content and isinstance(content[0], Mapping | list) else []:
            yield from _answers(part, near)


def _decoded(value: object, near: Sequence[Mapping]) -> np.ndarray:
    """[tokens, layers, k], or [numbers] where the shape is not told."""
    if isinstance(value, Mapping):
        return _raw(value["data"], value.get("dtype", "int32"), value["shape"])
    if not isinstance(value, str):
        found = np.asarray(value)
        if found.ndim != 3 or found.dtype.kind not in "iu":
            raise ValueError(f"{PLAIN} of shape {found.shape}: must be numbers [tokens, layers, k]")
        return found
    told = {name: part for owner in reversed(near) for name, part in owner.items()}
    shape = told.get("routed_experts_shape", told.get("shape"))
    return _raw(value, told.get("routed_experts_dtype", told.get("dtype", "int32")), shape)


def _raw(text: str, dtype: str, shape: Sequence[int] | None) -> np.ndarray:
    raw = base64.b64decode(text, validate=True)
    if raw[:6] == b"\x93NUMPY":
        return np.load(io.BytesIO(raw), allow_pickle=False)
    kind = np.dtype(str(dtype).removeprefix("torch.")).newbyteorder("<")
    if kind.kind not in "iu" or len(raw) % kind.itemsize:
        raise ValueError(f"{PLAIN}: {len(raw)} bytes: must be whole numbers of {kind}")
    found = np.frombuffer(raw, kind)
    return found if shape is None else found.reshape(shape)


def _numbers_of_tokens(near: Sequence[Mapping]) -> list[int]:
    """How many tokens an answer may have recorded, the likeliest first."""
    told = {name: part for owner in reversed(near) for name, part in owner.items()}
    told = {**told, **(told.get("usage") or {}), **(told.get("meta_info") or {})}
    prompt, answer = (told.get(f"{part}_tokens") for part in ("prompt", "completion"))
    if prompt is None or answer is None:
        return []
    return [n for n in (prompt + answer - 1, prompt + answer, answer, answer - 1) if n > 0]


def _shaped(
    flat: Sequence[np.ndarray], counts: Sequence[Sequence[int]], top_k: int, layers: int
) -> list[list[np.ndarray]]:
    """Numbers without a shape as [[tokens, layers, k]]."""
    widths = [top_k * layers]
    if not (top_k and layers):
        pairs = zip(flat, counts, strict=True)
        known = [[len(part) // n for n in tokens if len(part) % n == 0] for part, tokens in pairs]
        widths = [width for width in known[0] if all(width in other for other in known)]
    for width in widths:
        rows = [part.reshape(-1, width) for part in flat if len(part) % width == 0]
        most = range(min(width, MOST_K), 0, -1)
        for k in [top_k or width // layers] if top_k or layers else most:
            if len(rows) == len(flat) and width % k == 0 and _fits(rows, k):
                return [[row.reshape(len(row), -1, k)] for row in rows]
    raise ValueError(
        f"{PLAIN}: {len(flat[0])} numbers without a shape that fits their tokens: "
        "name the experts a token (top_k) and the layers"
    )


def _fits(rows: Sequence[np.ndarray], k: int) -> bool:
    """Whether k numbers at a time differ, but in layers that hold one number only."""
    index = np.concatenate(rows).reshape(sum(map(len, rows)), -1, k)
    used = ~(index == index[:1, :, :1]).all((0, 2)) if k > 1 else np.ones(index.shape[1], bool)
    return bool(used.any()) and recording.distinct(index[:, used])
