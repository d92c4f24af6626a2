"""Weights in bfloat16, packed without losing a bit: the bytes of numbers apart by their place.

The high byte of a bfloat16 holds sign and exponent, of which few occur, and packs to a third; the
low byte is noise and stays as it is.  A packed file is the SHA-256 of what it unpacks to, the
length of the packed high bytes, those (xz), and the low bytes.
"""

from __future__ import annotations

import hashlib
import lzma
import os
from pathlib import Path

import numpy as np

from lib import provenance

HEAD = 32 + 8  # bytes of the SHA-256 and of the length


def pack(content: bytes) -> bytes:
    """`content` packed; it may be any bytes, but gains only where every second one repeats."""
    numbers = np.frombuffer(content, np.uint8)
    high = lzma.compress(numbers[1::2].tobytes(), preset=9)
    head = hashlib.sha256(content).digest() + len(high).to_bytes(8, "little")
    return head + high + numbers[0::2].tobytes()


def unpack(packed: bytes, where: str = "pack.unpack") -> bytes:
    """What was packed, bit by bit.  Refused: a packed file that is damaged, named by `where`."""
    wanted, length = packed[:32], int.from_bytes(packed[32:HEAD], "little")
    low = np.frombuffer(packed[HEAD + length :], np.uint8)
    try:
        high = np.frombuffer(lzma.decompress(packed[HEAD : HEAD + length]), np.uint8)
        content = np.empty(len(low) + len(high), np.uint8)
        content[0::2], content[1::2] = low, high
    except (lzma.LZMAError, ValueError):
        raise ValueError(f"{where}: must be whole, it is damaged") from None
    if hashlib.sha256(content.tobytes()).digest() != wanted:
        raise ValueError(f"{where}: must have the SHA-256 that it was packed with, it is damaged")
    return content.tobytes()


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
