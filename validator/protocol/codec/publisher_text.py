"""A publisher as the text that people compare: an address as ``0x`` and hex, any other key as ``key:`` and hex."""

from __future__ import annotations

from validator.protocol.codec.limits import MAX_PUBLISHER_BYTES
from validator.protocol.errors import require

_ADDRESS = "0x"
_ADDRESS_BYTES = 20
_KEY = "key:"
MAX_TEXT_BYTES = len(_KEY) + 2 * MAX_PUBLISHER_BYTES


def format_publisher(publisher_id: bytes) -> str:
    return f"{_ADDRESS if len(publisher_id) == _ADDRESS_BYTES else _KEY}{publisher_id.hex()}"


def read_publisher(text: str) -> bytes:
    """Inverse of ``format_publisher``. Raises MalformedInput for every text that it does not write."""
    try:
        publisher_id = bytes.fromhex(text.removeprefix(_ADDRESS).removeprefix(_KEY))
    except ValueError:
        publisher_id = b""
    require(format_publisher(publisher_id) == text, "publisher_id", "not 0x or key: and lower-case hex")
    return publisher_id
