"""Bounds of a message's fields, equal for every validator: what is beyond them is refused before it is remembered."""

from __future__ import annotations

from validator.protocol.errors import MalformedInput
from validator.protocol.model import Reason

MAX_PARTITION = 99
"""Streamr names stream parts ``id#0`` to ``id#99``."""
MAX_TIMESTAMP_MS = 2**53 - 1
"""Largest integer both eras' readers carry exactly."""
MAX_SEQUENCE = 2**31 - 1
MAX_ID_BYTES = 256
"""Bound of stream id, msg chain id, group key id and new group key id."""
MAX_NEW_KEY_BYTES = 2048
MAX_CONTENT_BYTES = 1 << 20
"""Bound of the content as it is signed (ciphertext of type 0 counts twice: it is signed as hex).

Streamr's transport refuses larger frames.
"""
MAX_CANONICAL_BYTES = MAX_CONTENT_BYTES + (16 << 10)
MAX_SIGNATURE_BYTES = 4627
MAX_PUBLISHER_BYTES = 2592
"""ML-DSA-87's; all other types are far below."""


def check_id(name: str, text: str) -> None:
    """At most ``MAX_ID_BYTES`` of UTF-8. Raises MalformedInput."""
    if len(text) <= MAX_ID_BYTES // 4 and text.isascii():
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise MalformedInput(name, "a lone surrogate has no UTF-8") from error
    if size > MAX_ID_BYTES:
        raise MalformedInput(name, f"{size} bytes exceed the limit of {MAX_ID_BYTES}", verdict=Reason.TOO_LARGE)
