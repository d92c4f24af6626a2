"""Weights in bfloat16, packed without losing a bit: exponents apart from the rest.

Few exponents occur, and a Huffman code makes 2.6 bits of their 8.  Sign and mantissa are nearly
noise, least so among the numbers of one exponent, which are therefore put side by side.  Longer
matches than of one symbol do not occur, so the code is zlib's without its search for them: smaller
here than xz, and faster.  A packed file is the SHA-256 of what it unpacks to, the exponents, the
rest in their order, and a last odd byte.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from lib import provenance

HEAD = 32  # bytes of the SHA-256
RAW = -15  # bits of zlib's window, without its header: the SHA-256 is check enough


def pack(content: bytes) -> bytes:
    """`content` packed; it may be any bytes, but gains only where they are numbers of bfloat16."""
    half = len(content) // 2 * 2
    numbers = np.frombuffer(content[:half], "<u2")
    exponents = (numbers >> 7).astype(np.uint8)
    rest = (numbers >> 8 & 0x80 | numbers & 0x7F).astype(np.uint8)
    streams = [_code(exponents), _code(rest[np.argsort(exponents, kind="stable")])]
    return b"".join([hashlib.sha256(content).digest(), *streams, content[half:]])


def unpack(packed: bytes, where: str = "pack.unpack") -> bytes:
    """What was packed, bit by bit.  Refused: a packed file that is damaged, named by `where`."""
    try:
        exponents, left = _decode(packed[HEAD:])
        ordered, odd = _decode(left)
        rest = np.empty_like(ordered)
        rest[np.argsort(exponents, kind="stable")] = ordered
    except (zlib.error, ValueError, IndexError):
        raise ValueError(f"{where}: must be whole, it is damaged") from None
    high = rest.astype("<u2") << 8 & 0x8000
    content = (high | exponents.astype("<u2") << 7 | rest & 0x7F).tobytes() + odd
    if hashlib.sha256(content).digest() != packed[:HEAD]:
        raise ValueError(f"{where}: must have the SHA-256 that it was packed with, it is damaged")
    return content


def _code(symbols: np.ndarray) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, RAW, strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols.tobytes()) + coder.flush()


def _decode(stream: bytes) -> tuple[np.ndarray, bytes]:
    """The symbols of the stream that comes first, and what follows it."""
    coder = zlib.decompressobj(RAW)
    symbols = np.frombuffer(coder.decompress(stream) + coder.flush(), np.uint8)
    if not coder.eof:
        raise ValueError("the stream has no end")
    return symbols, coder.unused_data


def place(path: Path, content: bytes) -> None:
    """Write a file whole; processes that do so at once do not see each other's halves."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    part.write_bytes(content)
    os.replace(part, path)


def unpacked(packed: Path, folder: Path) -> Path:
    """The file that `packed` holds, in `folder` under the name of its own SHA-256: unpacked when it
    is first asked for, and again where what stands there is not what was packed.
    """
    content = packed.read_bytes()
    wanted = content[:32].hex()
    target = folder / wanted[:16] / packed.name.removesuffix(".packed")
    if not target.is_file() or provenance.sha256(target) != wanted:
        target.parent.mkdir(parents=True, exist_ok=True)
        place(target, unpack(content, packed.name))
    return target
