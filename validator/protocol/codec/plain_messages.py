"""Plain messages put together column by column: their canonical bytes and leaves, without an object for each.

Plain are nearly all messages of a window: type 0 over a text or a ciphertext, low s, no rotated key, a time after
February 1970. Whoever calls this has seen to it; ``plain_arrays`` reads them from brokers, ``plain_protobuf`` from the
network (there also of type 1), ``bundle_plain`` from the rows of a bundle's file. What comes out is what
``message.record_of_read`` makes of the same message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from validator.protocol.codec.heads import (
    ENUMERATIONS,
    NULL,
    chain_bytes,
    integer_bytes,
    part_bytes,
    string_bytes,
)
from validator.protocol.hashing import hash_each
from validator.protocol.leaves import hash_publisher, hash_stream_id, message_front, pack_message
from validator.protocol.model import ContentType, EncryptionType, MessageType, SignatureType, StreamPart

EARLIEST_MS = 1 << 32
"""An earlier timestamp has a shorter encoding."""
TEXT: Final = ENUMERATIONS[MessageType.MESSAGE, ContentType.JSON, EncryptionType.NONE] + NULL + NULL
"""Between reference and content, of a text."""
_timestamp: Final = struct.Struct(">BQ").pack
_reference: Final = struct.Struct(">BBQ").pack
_PAIR, _LONG = 0x82, 0x1B


def signature_head(kind: SignatureType) -> bytes:
    """Between content and a signature of 65 bytes."""
    return integer_bytes(kind) + string_bytes(bytes(65))[:-65]


SIGNATURE_HEAD: Final = signature_head(SignatureType.ECDSA_SECP256K1_LEGACY)
_SEQUENCES: Final = tuple(map(integer_bytes, range(1024)))

_CONTENT_HEADS: Final = tuple(string_bytes(bytes(size))[: -size or None] for size in range(4096))


def content_head(size: int) -> bytes:
    """Before a content of so many bytes."""
    return _CONTENT_HEADS[size] if size < len(_CONTENT_HEADS) else string_bytes(bytes(size))[:-size]


Reference = tuple[int, int]
"""Timestamp and sequence number."""


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
    leaf_front: bytes
    """What the leaf has before the timestamp."""
    publisher_hash: bytes
    """As it stands in the leaf."""
    signed_part: str
    """Signed text before the timestamp."""
    signed_chain: str
    """Signed text behind the sequence number."""
    signed_bytes: int
    """Of both."""
    stream_id: bytes
    """UTF-8."""


def make_chain(stream_id: str, partition: int, address: bytes, msg_chain_id: str) -> Chain:
    signed_part, signed_chain = f"{stream_id}{partition}", f"0x{address.hex()}{msg_chain_id}"
    return Chain(
        (stream_id, partition),
        address,
        msg_chain_id.encode(),
        part_bytes(stream_id, partition),
        chain_bytes(address, msg_chain_id),
        message_front(hash_stream_id(stream_id), partition),
        hash_publisher(address),
        signed_part,
        signed_chain,
        len((signed_part + signed_chain).encode()),
        stream_id.encode(),
    )


def encode_plain(
    chains: Sequence[Chain],
    timestamps: Sequence[int],
    sequences: Sequence[int],
    references: Sequence[Reference | None],
    middles: Iterable[bytes],
    contents: Sequence[bytes],
    signatures: Sequence[bytes],
    before_signature: bytes = SIGNATURE_HEAD,
) -> list[bytes]:
    """Canonical bytes; ``middles`` stand between reference and content, ``before_signature`` behind the content."""
    return [
        b"".join(
            (
                chain.part_head,
                _timestamp(_LONG, timestamp),
                _SEQUENCES[sequence] if sequence < 1024 else integer_bytes(sequence),
                chain.chain_head,
                NULL if prev is None else _reference(_PAIR, _LONG, prev[0]),
                b"" if prev is None else _SEQUENCES[prev[1]] if prev[1] < 1024 else integer_bytes(prev[1]),
                middle,
                _CONTENT_HEADS[len(content)] if len(content) < 4096 else content_head(len(content)),
                content,
                before_signature,
                signature,
            )
        )
        for chain, timestamp, sequence, prev, middle, content, signature in zip(
            chains, timestamps, sequences, references, middles, contents, signatures, strict=True
        )
    ]


def hash_plain(
    chains: Sequence[Chain],
    timestamps: Sequence[int],
    sequences: Sequence[int],
    contents: Sequence[bytes],
    canonical: Sequence[bytes],
) -> list[bytes]:
    """Leaf hashes of plain messages; one loop for each hash takes a tenth less time than one for all."""
    leaves = map(
        pack_message,
        [chain.leaf_front for chain in chains],
        timestamps,
        sequences,
        [chain.publisher_hash for chain in chains],
        hash_each(contents),
        hash_each(canonical),
    )
    return hash_each(leaves)
