"""The two eras: how what an array said is said today, and where it cannot be."""

from __future__ import annotations

import binascii
import json
import re
from functools import lru_cache

from validator.protocol.codec.kinds import NONE, STORED
from validator.protocol.codec.limits import MAX_ID_BYTES
from validator.protocol.errors import MalformedInput
from validator.protocol.model import EncryptionType, MessageType, NewGroupKey, Reason

BOM = b"\xef\xbb\xbf"
_LOWER_HEX = re.compile(rb"(?:[0-9a-f]{2})+")
_LOWER_HEX_TEXT = re.compile(r"(?:[0-9a-f]{2})*")
_ADDRESS_DOMAIN = re.compile(r"0x[0-9a-fA-F]{40}")


def normalise_stream_id(text: str) -> str:
    """A stream id as the array era reads it: the domain in lower case, the path untouched.

    Raises:
        MalformedInput: empty, without a domain, or a domain that is neither ENS name nor address.
    """
    if len(text) > MAX_ID_BYTES:  # before anything is remembered
        raise MalformedInput("stream_id", f"longer than {MAX_ID_BYTES} bytes", verdict=Reason.TOO_LARGE)
    return _normalise_stream_id(text)


@lru_cache(maxsize=4096)
def _normalise_stream_id(text: str) -> str:
    if not text:
        raise MalformedInput("stream_id", "empty")
    domain, slash, path = text.partition("/")
    if not slash:
        return text
    if not domain:
        raise MalformedInput("stream_id", "a path without a domain")
    if domain.find(".") > 0 or _ADDRESS_DOMAIN.fullmatch(domain):
        return f"{domain.lower()}/{path}"
    raise MalformedInput("stream_id", "the domain is neither an ENS name nor an address")


def compact_key_text(key: NewGroupKey) -> str:
    """``["id","hex"]`` as JSON.stringify writes it: the signed text of a rotated key of type 0."""
    return json.dumps([key.id, key.data.hex()], ensure_ascii=False, separators=(",", ":"))


def read_key_text(text: bytes) -> tuple[str, str]:
    """Id and hex of an array's new group key text. Raises MalformedInput unless it is a JSON array of two texts."""
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedInput("new_group_key", "not JSON") from error
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(item, str) for item in value):
        raise MalformedInput("new_group_key", "not a JSON array of two texts")
    return value[0], value[1]


def convert_exactly(
    message_type: MessageType, encryption_type: EncryptionType, content: bytes, key_text: bytes | None
) -> tuple[bytes, NewGroupKey | None] | None:
    """Content and new group key of type 0 if they rebuild the text that an array's type 2 signed, else None.

    Not exact are: key exchange, a leading byte order mark, ciphertext that is not lower-case hex, a new group key
    text that is not compact JSON. Source: reference of Streamr, conversion of 8.5 to 100.0.

    Raises:
        MalformedInput: the new group key text is no JSON array of two texts.
    """
    key = None
    if key_text is not None:
        key_id, ciphertext = read_key_text(key_text)
        if not _LOWER_HEX_TEXT.fullmatch(ciphertext):
            return None
        key = NewGroupKey(key_id, binascii.unhexlify(ciphertext))
        if compact_key_text(key).encode("utf-8", "surrogatepass") != key_text:
            return None
    if message_type is not STORED:
        return None
    if encryption_type is NONE:
        return None if content.startswith(BOM) else (content, key)
    return (binascii.unhexlify(content), key) if _LOWER_HEX.fullmatch(content) else None
