"""Packed rows are the same rows, digit by digit, and what is damaged is not used."""

import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.model import rows

NUMBERS = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), max_size=9),
    st.lists(st.floats(), max_size=9),
    st.lists(st.integers(-(10**7), 10**7).map(lambda n: n / 100), max_size=9),
    st.lists(st.one_of(st.integers(0, 3), st.booleans(), st.just(1.0), st.just(-0.0)), max_size=9),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.text(max_size=3), NUMBERS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.sampled_from("abc"), inner)
    ),
    max_leaves=12,
)


def text(found) -> list[str]:
    return [json.dumps(row, sort_keys=True) for row in found]


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("xy"), VALUES), max_size=4))
def test_nothing_is_lost(found):
    assert text(rows.unpack(rows.pack(found))) == text(found)


def test_every_order_gives_its_lists_back():
    counts = [[[7 * i % 5, i, 300 - i] for i in range(j, j + 4)] for j in range(3)]
    found = [{"counts": counts, "loss": [0.25, -1.5, 2.75, 1e3]}, {"counts": counts[:2]}]
    known = rows.ORDERS
    try:
        for order in [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]:
            rows.ORDERS = [order]
            assert text(rows.unpack(rows.pack(found))) == text(found)
    finally:
        rows.ORDERS = known


def test_curves_of_like_objects_pack_as_lists_do():
    curve = [{"step": i, "nats": i * i * 7919 % 40009 / 1e4, "arm": "x"} for i in range(400)]
    as_lists = {name: [row[name] for row in curve] for name in curve[0]}
    packed = rows.pack([{"curve": curve}])
    assert rows.unpack(packed) == [{"curve": curve}]
    assert len(packed) < len(rows.pack([{"curve": as_lists}])) + 40
    assert len(packed) < 0.8 * len(lzma.compress(json.dumps(curve).encode(), preset=9))


def test_json_lines_are_read_too(tmp_path):
    found = [{"a": [1, 2, 3, 4]}, {"b": 0.1}]
    lines = "\n".join(text(found)).encode()
    for number, content in enumerate((lines, lzma.compress(lines), rows.pack(found))):
        path = tmp_path / str(number)
        path.write_bytes(content)
        assert rows.read(path) == found
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"^{path}: must be whole, it is damaged$"):
            rows.read(path)


@pytest.mark.parametrize("name", [rows.MARK, rows.LIKE])
def test_a_field_that_stands_for_lists_is_refused(name):
    with pytest.raises(ValueError, match="must have another name"):
        rows.pack([{"a": {name: 1}}])


@pytest.mark.parametrize("place", [3, 20, -40, -2])
def test_a_changed_byte_is_noticed(place):
    packed = bytearray(rows.pack([{"a": list(range(9000)), "b": "text"}]))
    packed[place] ^= 1
    with pytest.raises(ValueError, match="must be whole, it is damaged$"):
        rows.unpack(bytes(packed), "results")
