"""Packed weights are the same bits, and what is damaged is not used."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.model import pack


@settings(deadline=None)  # xz takes its time on a busy machine
@given(st.binary(max_size=301))
def test_nothing_is_lost(content):
    assert pack.unpack(pack.pack(content)) == content


def test_weights_shrink_by_a_quarter():
    weights = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.02
    content = weights.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert len(pack.pack(content)) < 0.75 * len(content)


@pytest.mark.parametrize("place", [3, 45, -2])
def test_a_changed_byte_is_noticed(place):
    packed = bytearray(pack.pack(np.arange(4096, dtype="<u2").tobytes()))
    packed[place] ^= 1
    with pytest.raises(ValueError, match=r"^weights: must .* damaged$"):
        pack.unpack(bytes(packed), "weights")


def test_unpacked_once_and_again_where_it_was_changed(tmp_path):
    packed = tmp_path / "model.safetensors.packed"
    packed.write_bytes(pack.pack(b"some weights"))
    target = pack.unpacked(packed, tmp_path / "cache")
    assert target.name == "model.safetensors" and target.read_bytes() == b"some weights"
    first = target.stat().st_mtime_ns
    assert pack.unpacked(packed, tmp_path / "cache").stat().st_mtime_ns == first
    target.write_bytes(b"some weighty")
    assert pack.unpacked(packed, tmp_path / "cache").read_bytes() == b"some weights"
