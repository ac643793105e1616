"""Plain messages in arrays of version 32, read many at a time and without an object for each.

Nearly all messages of a window are alike: type 27, signed with type 2, low s, content a text or lower-case hex,
no rotated key, a time after February 1970. Those are read, encoded and hashed here in one pass, for less than half
of what the general way costs (``read_legacy_array``, then ``record_of_read``). Everything else, and all that looks
wrong, is left to the general way: every refusal has its reason from one place, and what is read here is what the
general way makes of the same bytes (tests/property/codec/test_plain_arrays.py).
"""

from __future__ import annotations

import struct
from binascii import hexlify, unhexlify
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from validator.codec.legacy_array import MAX_LINE_BYTES, read_address
from validator.codec.message import (
    BOM,
    ENUMERATIONS,
    HALF_K1,
    MAX_CONTENT_BYTES,
    MAX_ID_BYTES,
    MAX_PARTITION,
    MAX_SEQUENCE,
    MAX_TIMESTAMP_MS,
    NULL,
    PAIR,
    chain_bytes,
    integer_bytes,
    normalise_stream_id,
    part_bytes,
    string_bytes,
    text_bytes,
)
from validator.errors import MalformedInput
from validator.hashing import keccak256, sha256
from validator.model import ContentType, Digest, EncryptionType, MessageType, SignatureType, StreamPart


@dataclass(eq=False, frozen=True, slots=True)
class Chain:
    """What the messages of one publisher's chain in one stream partition share."""

    stream_part: StreamPart
    publisher_id: bytes
    msg_chain_id: bytes
    """UTF-8: what canonical order compares."""
    part_head: bytes
    """Canonical bytes before the timestamp."""
    chain_head: bytes
    """Canonical bytes between the sequence number and the previous reference."""
    signed_part: str
    """Signed text before the timestamp."""
    signed_chain: str
    """Signed text behind the sequence number."""


Plain = tuple[Chain, int, int, bytes, bytes, Digest, int, bytes, int]
"""A plain message, its signature unchecked.

(chain, timestamp ms, sequence number, canonical bytes, leaf, signed digest, signed size in bytes, signature, number of
the line). A bare tuple: making one takes an eighth of the time of a named one.
"""

_Array = tuple[
    Literal[32],
    tuple[
        str,
        Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITION)],
        Annotated[int, msgspec.Meta(ge=1 << 32, le=MAX_TIMESTAMP_MS)],
        Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)],
        str,
        str,
    ],
    tuple[Annotated[int, msgspec.Meta(ge=1 << 32)], Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]] | None,
    Literal[27],
    Literal[0],
    Literal[0, 2],
    str | None,
    Annotated[str, msgspec.Meta(min_length=1)],
    None,
    Literal[2],
    Annotated[str, msgspec.Meta(min_length=132, max_length=132)],
]
"""Timestamps below 2^32 ms have a shorter encoding."""
_decode: Final = msgspec.json.Decoder(_Array).decode
_long_integer: Final = struct.Struct(">BQ").pack
_TEXT: Final = ENUMERATIONS[MessageType.MESSAGE, ContentType.JSON, EncryptionType.NONE] + NULL + NULL
_CIPHER: Final = ENUMERATIONS[MessageType.MESSAGE, ContentType.JSON, EncryptionType.AES]
_SIGNATURE: Final = integer_bytes(SignatureType.ECDSA_SECP256K1_LEGACY) + string_bytes(bytes(65))[:-65]
_SEQUENCES: Final = tuple(map(integer_bytes, range(1024)))
_CONTENT_HEADS: Final = tuple(string_bytes(bytes(size))[: -size or None] for size in range(4096))


def read_plain(
    part: StreamPart, lines: Sequence[bytes], from_ms: int, until_ms: int, limit: int
) -> tuple[list[Plain], list[int]]:
    """Plain messages of ``part`` in [from_ms, until_ms), and the numbers of all other lines.

    ``limit``: of canonical and signed bytes, and half of that of a line. Raises nothing.
    """
    stream_id, partition = part
    plain: list[Plain] = []
    others: list[int] = []
    longest = min(2 * limit, MAX_LINE_BYTES)
    for number, line in enumerate(lines):
        others.append(number)  # until it is known to be plain
        if len(line) > longest:
            continue
        try:
            _, names, prev, _, _, encryption, key_id, text, _, _, signed = _decode(line)
            signature = unhexlify(signed[2:])
        except (msgspec.DecodeError, ValueError, RecursionError):
            continue
        own_stream_id, own_partition, timestamp_ms, sequence_number, publisher, chain_id = names
        if (
            own_stream_id != stream_id
            or own_partition != partition
            or not from_ms <= timestamp_ms < until_ms
            or signed[:2] != "0x"
            or signature[32:64] > HALF_K1
        ):
            continue
        chain = _read_chain(stream_id, partition, publisher, chain_id)
        if chain is None:
            continue
        signed_content = text.encode()
        if prev is None:
            before = NULL
            payload = f"{chain.signed_part}{timestamp_ms}{sequence_number}{chain.signed_chain}{text}".encode()
        else:
            prev_ms, prev_sequence = prev
            if prev_ms >= timestamp_ms and (prev_ms > timestamp_ms or prev_sequence >= sequence_number):
                continue
            before = PAIR + _long_integer(0x1B, prev_ms) + integer_bytes(prev_sequence)
            payload = (
                f"{chain.signed_part}{timestamp_ms}{sequence_number}{chain.signed_chain}{prev_ms}{prev_sequence}{text}"
            ).encode()
        if encryption == 0:
            if key_id is not None or signed_content.startswith(BOM):
                continue
            content = signed_content
            middle = _TEXT
        else:
            middle, content = _read_cipher(key_id, signed_content)
            if not content:
                continue
        size = len(content)
        signed_bytes = len(payload)
        canonical = b"".join(
            (
                chain.part_head,
                _long_integer(0x1B, timestamp_ms),
                _SEQUENCES[sequence_number] if sequence_number < 1024 else integer_bytes(sequence_number),
                chain.chain_head,
                before,
                middle,
                _CONTENT_HEADS[size] if size < 4096 else string_bytes(content)[:-size],
                content,
                _SIGNATURE,
                signature,
            )
        )
        if signed_bytes > limit or len(canonical) > limit or len(signed_content) > MAX_CONTENT_BYTES:
            continue
        plain.append(
            (
                chain,
                timestamp_ms,
                sequence_number,
                canonical,
                sha256(b"\x00" + canonical).digest(),
                keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (signed_bytes, payload)),
                signed_bytes,
                signature,
                others.pop(),
            )
        )
    return plain, others


@lru_cache(maxsize=20_000)
def _read_chain(stream_id: str, partition: int, publisher: str, msg_chain_id: str) -> Chain | None:
    """What a chain's messages share, remembered; None where a field is not plain."""
    try:
        address = read_address(publisher)
        if normalise_stream_id(stream_id) != stream_id:
            return None
    except MalformedInput:
        return None
    chain_id = msg_chain_id.encode()
    if len(stream_id.encode()) > MAX_ID_BYTES or len(chain_id) > MAX_ID_BYTES:
        return None
    return Chain(
        (stream_id, partition),
        address,
        chain_id,
        part_bytes(stream_id, partition),
        chain_bytes(address, msg_chain_id),
        f"{stream_id}{partition}",
        f"0x{address.hex()}{msg_chain_id}",
    )


def _read_cipher(key_id: str | None, signed_content: bytes) -> tuple[bytes, bytes]:
    """Canonical bytes between the previous reference and the content, and the content; it is empty if not plain."""
    if key_id is None or len(key_id.encode()) > MAX_ID_BYTES:
        return b"", b""
    try:
        content = unhexlify(signed_content)
    except ValueError:
        return b"", b""
    if hexlify(content) != signed_content:  # upper-case digits are signed as they are
        return b"", b""
    return _CIPHER + text_bytes(key_id) + NULL, content
