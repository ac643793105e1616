"""A publisher is one text, and a text one publisher."""

from __future__ import annotations

import pytest

from validator.protocol.codec.publisher_text import format_publisher, read_publisher
from validator.protocol.errors import MalformedInput


@pytest.mark.parametrize(
    ("publisher_id", "text"),
    [
        (b"\xab" * 20, "0x" + "ab" * 20),
        (b"\x02" * 33, "key:" + "02" * 33),
        (b"\x04" * 2592, "key:" + "04" * 2592),
    ],
)
def test_an_address_is_0x_and_any_other_key_is_named_as_one(publisher_id: bytes, text: str) -> None:
    assert format_publisher(publisher_id) == text
    assert read_publisher(text) == publisher_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab" * 20,
        "0x" + "AB" * 20,
        "0X" + "ab" * 20,
        "0x" + "ab" * 19,
        "0x" + "ab" * 33,
        "key:" + "ab" * 20,
        "key:" + "AB" * 33,
        "key:0x" + "ab" * 33,
        "0xkey:" + "ab" * 20,
        "key: " + "ab" * 33,
        "0x" + "ab" * 20 + " ",
        "0x" + "ab " * 20,
        "0x" + "ag" * 20,
        "0x" + "\u0661\u0661" * 20,
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="publisher_id: not 0x or key: and lower-case hex"):
        read_publisher(text)
