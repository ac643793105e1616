"""How Arweave writes bytes, ids and numbers as text: base64url without padding, decimal digits, one JSON object."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from validator.protocol.errors import MalformedInput
from validator.protocol.model import StorageId

HASH_BYTES = 32


def encode_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: object, field: str, *, max_bytes: int) -> bytes:
    """Bytes of canonical unpadded base64url.

    Raises:
        MalformedInput: no text, too long, padded, a strange character, or bits that encode nothing.
    """
    if not isinstance(text, str):
        raise MalformedInput(field, f"{type(text).__name__} where base64url text belongs")
    if len(text) > (max_bytes * 4 + 2) // 3:
        raise MalformedInput(field, f"{len(text)} characters, at most {max_bytes} bytes belong here")
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedInput(field, "not base64url") from error
    if encode_base64url(data) != text:
        raise MalformedInput(field, "base64url is not in its one canonical form")
    return data


def decode_integer(text: object, field: str, *, max_digits: int = 30) -> int:
    """Non-negative decimal text, as the network writes numbers. Raises MalformedInput."""
    if not isinstance(text, str):
        raise MalformedInput(field, f"{type(text).__name__} where decimal text belongs")
    if not 0 < len(text) <= max_digits:
        raise MalformedInput(field, f"{len(text)} characters where 1 to {max_digits} digits belong")
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise MalformedInput(field, "not a plain decimal number")
    return int(text)


def encode_storage_id(storage_id: bytes) -> str:
    """Text of a transaction id."""
    return encode_base64url(storage_id)


def decode_storage_id(text: object, field: str = "id") -> StorageId:
    """Inverse of ``encode_storage_id``. Raises MalformedInput."""
    data = decode_base64url(text, field, max_bytes=HASH_BYTES)
    if len(data) != HASH_BYTES:
        raise MalformedInput(field, f"{len(data)} bytes where {HASH_BYTES} belong")
    return StorageId(data)


def decode_json_object(text: bytes | str, what: str, *, max_bytes: int) -> dict[str, Any]:
    """One JSON object from outside, bounded. Raises MalformedInput."""
    if len(text) > max_bytes:
        raise MalformedInput(what, f"{len(text)} bytes exceed the limit of {max_bytes}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(what, "not JSON") from error
    if not isinstance(value, dict):
        raise MalformedInput(what, f"a JSON {type(value).__name__} where an object belongs")
    return value
