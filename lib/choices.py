"""The choices of a router and the tokens they were made for, packed: numbers for an npz file.

Tokens of one id are sent alike.  Beside each other their choices pack to half of what npz makes of
them in the order of the text; and xz finds more than npz does.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping

import numpy as np


def packed(index: np.ndarray, token: np.ndarray, experts: int) -> dict[str, np.ndarray]:
    """index [layers, tokens, k] expert numbers and token [tokens] ids, both ≥ 0, as parts of a
    file: token, token_type; choices (in `_alike` order, the choices of a token one number where a
    byte holds it), layout [layers, tokens, k], index_type, experts.
    """
    codes = index[:, _alike(token)]
    if experts ** index.shape[2] <= 256:
        codes = np.ravel_multi_index(tuple(np.moveaxis(codes, 2, 0)), (experts,) * index.shape[2])
    return {
        "choices": _xz(codes),
        "layout": np.array(index.shape),
        "index_type": np.array(index.dtype.str),
        "token": _xz(token),
        "token_type": np.array(token.dtype.str),
        "experts": np.array(experts),
    }


def unpacked(file: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """expert_index and token, from a file's parts: as `packed` made them, or as they are."""
    if "choices" not in file:
        return {name: file[name] for name in ("expert_index", "token")}
    layers, tokens, k = file["layout"].tolist()
    experts = int(file["experts"])
    token = _numbers(file["token"]).astype(str(file["token_type"]))
    codes = _numbers(file["choices"])
    if experts**k <= 256:
        codes = np.stack(np.unravel_index(codes, (experts,) * k), axis=-1)
    index = np.empty((layers, tokens, k), str(file["index_type"]))
    index[:, _alike(token)] = codes.reshape(index.shape)
    return {"expert_index": index, "token": token}


def _alike(token: np.ndarray) -> np.ndarray:
    """[tokens] their places, those of one id side by side, of these those after one id."""
    return np.lexsort((np.concatenate([token[:1], token[:-1]]), token))


def _xz(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers ≥ 0 as bytes: the width of a number, and an xz stream of them."""
    small = numbers.astype(np.min_scalar_type(int(numbers.max())))
    width = small.itemsize
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "pb": width.bit_length() - 1}]
    stream = lzma.compress(small.astype(f"<u{width}").tobytes(), filters=filters)
    return np.frombuffer(bytes([width]) + stream, np.uint8)


def _numbers(found: np.ndarray) -> np.ndarray:
    """What `_xz` packed, one after the other."""
    return np.frombuffer(lzma.decompress(found[1:].tobytes()), f"<u{found[0]}")
