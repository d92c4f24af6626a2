"""Packed routes are the same numbers in the same types, and take half the room."""

import io
import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import choices


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from(["u1", "i2", "<i4", "i8"]),
    st.integers(0, 2**32 - 1),
)
def test_nothing_is_lost(experts, k, tokens, kind, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, min(experts, 256), (2, tokens, k)).astype(kind)
    token = rng.integers(0, 70_000, tokens).astype("i4")
    again = choices.unpacked(choices.packed(index, token, experts))
    for name, wanted in (("expert_index", index), ("token", token)):
        np.testing.assert_array_equal(again[name], wanted)
        assert again[name].dtype == wanted.dtype


def test_tokens_that_are_sent_alike_pack_small():
    rng = np.random.default_rng(0)
    token = rng.integers(0, 500, 20_000)
    home = rng.integers(0, 16, (500, 2))
    index = home[token].astype(np.uint8)[None]
    parts = choices.packed(index, token.astype("i4"), 16)
    assert len(parts["choices"]) < 0.1 * len(lzma.compress(index.tobytes()))


def test_parts_that_are_not_packed_are_read_as_they_are():
    file = io.BytesIO()
    np.savez(file, expert_index=np.zeros((1, 2, 1), int), token=np.arange(2))
    file.seek(0)
    with np.load(file) as parts:
        found = choices.unpacked(parts)
    assert found["token"].tolist() == [0, 1] and found["expert_index"].shape == (1, 2, 1)


def test_what_is_damaged_is_not_read():
    parts = choices.packed(np.ones((1, 90, 2), "u1"), np.arange(90), 8)
    parts["choices"] = parts["choices"][:-9]
    with pytest.raises(lzma.LZMAError):
        choices.unpacked(parts)
