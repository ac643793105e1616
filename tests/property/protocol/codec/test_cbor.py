from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validator.protocol.codec import cbor
from validator.protocol.errors import MalformedInput

scalars = (
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=300) | st.text(max_size=80)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=12)


@given(value=values)
@settings(max_examples=200, deadline=None)
def test_what_is_encoded_is_decoded_again(value: Any) -> None:
    data = cbor.encode([value])
    if depth_of([value]) <= cbor.MAX_DEPTH - 1:
        assert cbor.decode(data, max_bytes=len(data)) == [value]
    assert cbor2.dumps([value], canonical=True) == data


@given(data=st.binary(max_size=120))
@settings(max_examples=400, deadline=None)
def test_a_decoder_accepts_only_what_the_encoder_writes(data: bytes) -> None:
    try:
        value = cbor.decode(data, max_bytes=200)
    except MalformedInput:
        return
    assert cbor.encode(value) == data


@given(items=st.lists(values, max_size=6), rest=st.binary(max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_sequence_is_cut_into_its_items(items: list[Any], rest: bytes) -> None:
    encoded = [cbor.encode(item) for item in items if depth_of(item) < cbor.MAX_DEPTH - 1]
    assert cbor.split_sequence(b"".join(encoded), max_items=6) == encoded
    try:
        parts = cbor.split_sequence(b"".join(encoded) + rest, max_items=20)
    except MalformedInput:
        return
    assert b"".join(parts) == b"".join(encoded) + rest


@pytest.mark.parametrize(
    "data",
    [
        "",
        "18",
        "1817",
        "1900ff",
        "1a0000ffff",
        "1b00000000ffffffff",
        "f97e00",
        "fb3ff0000000000000",
        "9f01ff",
        "5f4101ff",
        "7f6161ff",
        "c074",
        "c249010000000000000000",
        "a10102",
        "a0",
        "f7",
        "f818",
        "ff",
        "1c",
        "82" * 400,
        "818181818181818181",
        "9bffffffffffffffff",
        "5bffffffffffffffff00",
        "7a7fffffff61",
        "61ff",
        "63eda080",
        "0000",
    ],
)
def test_what_is_outside_the_subset_is_refused(data: str) -> None:
    with pytest.raises(MalformedInput):
        cbor.decode(bytes.fromhex(data), max_bytes=1000)


@pytest.mark.parametrize("value", [1.0, {"a": 1}, {1}, 1 << 64, -(1 << 64) - 1, [object()], bytearray(b"x")])
def test_what_has_no_canonical_encoding_is_not_encoded(value: Any) -> None:
    with pytest.raises(TypeError):
        cbor.encode(value)


@given(amount=st.integers(0, (1 << 256) - 1))
@settings(max_examples=100, deadline=None)
def test_amounts_are_packed_minimally(amount: int) -> None:
    packed = cbor.pack_amount(amount)
    assert len(packed) == (amount.bit_length() + 7) // 8
    assert cbor.unpack_amount(packed, "amount") == amount


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x01", b"\x01" * 33, 5, "text", None])
def test_other_amounts_are_refused(data: Any) -> None:
    with pytest.raises(MalformedInput):
        cbor.unpack_amount(data, "amount")


def depth_of(value: Any) -> int:
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0
