"""Plain messages in protobuf, read many at a time: what they hold, their canonical bytes and their hashes.

Plain here are nearly all messages that the network carries: an unencrypted one of type 0 or 1 over less than 16 KiB,
low s, a time between 1971 and 2109, fields in ascending order as all writers have them. One expression finds the
fields, and every length is compared with what it measures, so what is found is what the general way reads; what the
messages of a chain share is read once. Then it goes column by column (``plain_messages``), for half of what the
general way costs (``read_protobuf``, then ``record_of_read``). Everything else, and all that looks wrong, is left to
that way: every refusal has its reason from one place (tests/property/protocol/codec/test_plain_protobuf.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from validator.protocol.codec.conversion import BOM
from validator.protocol.codec.heads import ENUMERATIONS, NULL
from validator.protocol.codec.kinds import EVM, LEGACY, NONE, STORED
from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_PARTITION
from validator.protocol.codec.payload import HALF_K1
from validator.protocol.codec.plain_messages import (
    Chain,
    Reference,
    encode_plain,
    hash_plain,
    make_chain,
    signature_head,
)
from validator.protocol.codec.quick_protobuf import read_id
from validator.protocol.hashing import keccak256
from validator.protocol.model import ContentType, Digest, Message, MessageRef, Record, SignatureType

_LONGEST = 17_000
"""Bytes of a body: a length of two bytes allows for no longer content."""
_TIME = rb"[\x80-\xff]{5}[\x01-\x7f]"
_NUMBER = rb"[\x01-\x7f]|[\x80-\xff][\x01-\x7f]"
_find: Final = re.compile(
    rb"(?>(\x0a.{4,263}?)\x18(" + _TIME + rb")(?:\x20(" + _NUMBER + rb"))?(?=\x2a\x14))(.{22,281}?)"
    rb"(?:\x12([\x07\x09\x0a])\x08(" + _TIME + rb")(?:\x10(" + _NUMBER + rb"))?)?"
    rb"\x1a\x41(.{65})(\x20\x01)?\x2a(" + _NUMBER + rb")\x0a(" + _NUMBER + rb")(.+)",
    re.DOTALL,
).fullmatch
"""Fields before the time; time; number; publisher and chain; the previous reference's length, time and number;
signature; type 1; lengths of the content with its fields, and of itself; content, and what is behind it. The first
that looks like a time is one, or nothing is found: else who sends many would make us try them all."""
_unpack_times: Final = Struct("<BBI").iter_unpack
_SOME_TIME = b"\x18\x80\x80\x80\x80\x80\x01"
_SOME_NUMBER = (b"", b"\x20\x01", b"\x20\x80\x01")
_BINARY = b"\x10\x01"
_REFERENCE_BYTES: Final = {b"\x07": 0, b"\x09": 1, b"\x0a": 2}
_MIDDLES: Final = {kind: ENUMERATIONS[STORED, kind, NONE] + NULL + NULL for kind in ContentType}
_ChainText = tuple[Chain, str]
_Row = tuple[int, _ChainText, bytes, int, bytes | None, int, bytes, ContentType, bytes]
"""Number of the body, chain, time, sequence number, the same two of the previous reference, signature, type of the
content, content."""


def read_plain_bodies(bodies: Sequence[bytes], limit: int) -> list[Record | None]:
    """``record_of_read(read_protobuf(body))`` of each that is plain, and whose canonical bytes, of which there are more
    than signed ones, are no more than ``limit``; else None. Raises nothing.
    """
    records: list[Record | None] = [None] * len(bodies)
    texts, others = _pick(bodies)
    for kind, rows in (LEGACY, texts), (EVM, others):
        for row, record in zip(rows, _make_records(kind, rows) if rows else (), strict=True):
            if len(record.canonical) <= limit and _is_in_order(record.message):
                records[row[0]] = record
    return records


def _pick(bodies: Sequence[bytes]) -> tuple[list[_Row], list[_Row]]:
    """Those that are plain: of type 0, of type 1."""
    texts: list[_Row] = []
    others: list[_Row] = []
    for number, body in enumerate(bodies):
        found = _find(body) if len(body) <= _LONGEST else None
        if found is None:
            continue
        head, time, count, tail, size, before, before_count, signature, kind, outer, inner, rest = found.groups()
        chain = _read_chain(head, 0 if count is None else len(count), tail)
        content_type = _type_of(outer, inner, len(rest))
        if chain is None or content_type is None or signature[32:64] > HALF_K1:
            continue
        if content_type:
            if rest[-2:] != _BINARY:
                continue
            rest = rest[:-2]
        if before is not None and _REFERENCE_BYTES[size] != len(before_count or b""):
            continue
        if kind is None and not (rest.isascii() or _is_text(rest)):
            continue
        sequence = 0 if count is None else _integer(count)
        before_sequence = 0 if before_count is None else _integer(before_count)
        row = number, chain, time, sequence, before, before_sequence, signature, content_type, rest
        (texts if kind is None else others).append(row)
    return texts, others


def _make_records(kind: SignatureType, rows: Sequence[_Row]) -> list[Record]:
    _, named, times, sequences, befores, before_sequences, signatures, types, contents = zip(*rows, strict=True)
    chains = [chain for chain, _ in named]
    timestamps = _read_times(times)
    references = _pair(befores, before_sequences)
    middles = map(_MIDDLES.__getitem__, types)
    canonical = encode_plain(
        chains, timestamps, sequences, references, middles, contents, signatures, signature_head(kind)
    )
    leaves = hash_plain(chains, timestamps, sequences, contents, canonical)
    headers = [
        f"{chain.signed_part}{timestamp}{sequence}{chain.signed_chain}".encode()
        if prev is None
        else f"{chain.signed_part}{timestamp}{sequence}{chain.signed_chain}{prev[0]}{prev[1]}".encode()
        for chain, timestamp, sequence, prev in zip(chains, timestamps, sequences, references, strict=True)
    ]
    sizes = [len(header) + len(content) for header, content in zip(headers, contents, strict=True)]
    digests = [
        keccak256(b"\x19Ethereum Signed Message:\n%d%b%b" % item) for item in zip(sizes, headers, contents, strict=True)
    ]
    messages = [
        Message(
            chain.stream_part[0],
            chain.stream_part[1],
            timestamp,
            sequence,
            chain.publisher_id,
            chain_id,
            None if prev is None else MessageRef(prev[0], prev[1]),
            STORED,
            content_type,
            NONE,
            None,
            None,
            content,
            kind,
            signature,
        )
        for (chain, chain_id), timestamp, sequence, prev, content_type, content, signature in zip(
            named, timestamps, sequences, references, types, contents, signatures, strict=True
        )
    ]
    return list(map(Record, messages, canonical, map(Digest, leaves), digests, sizes))


@lru_cache(maxsize=4096)
def _read_chain(head: bytes, count_bytes: int, tail: bytes) -> _ChainText | None:
    """What a chain's messages share, from the bytes before the time, and behind the number of so many bytes."""
    body = head + _SOME_TIME + _SOME_NUMBER[count_bytes] + tail
    try:
        found = read_id(body)
        if found is None or found[-1] != len(body):
            return None
        stream_id, partition, _, _, publisher, chain_id, _ = found
        if not 0 < len(stream_id) <= MAX_ID_BYTES or len(chain_id) > MAX_ID_BYTES or partition > MAX_PARTITION:
            return None
        text = chain_id.decode()
        return make_chain(stream_id.decode(), partition, publisher, text), text
    except (IndexError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=4096)
def _type_of(outer: bytes, inner: bytes, rest: int) -> ContentType | None:
    """Of a content that is all the rest, or all but the two bytes that say binary."""
    size = _integer(inner)
    if _integer(outer) != 1 + len(inner) + rest:
        return None
    return ContentType.JSON if size == rest else ContentType.BINARY if size == rest - len(_BINARY) else None


def _integer(varint: bytes) -> int:
    return varint[0] if len(varint) == 1 else varint[0] & 127 | varint[1] << 7


def _read_times(varints: Sequence[bytes]) -> list[int]:
    """Varints of six bytes; the upper four change every sixteen seconds."""
    upper: dict[int, int] = {}
    times = []
    for first, second, rest in _unpack_times(b"".join(varints)):
        above = upper.get(rest)
        if above is None:
            a, b, c, d = rest.to_bytes(4, "little")
            above = (a & 127) << 14 | (b & 127) << 21 | (c & 127) << 28 | d << 35
            above = upper[rest] = above - 128 - (128 << 7)
        times.append(above + first + (second << 7))
    return times


def _pair(times: Sequence[bytes | None], sequences: Sequence[int]) -> list[Reference | None]:
    """References, where there are some."""
    known = iter(_read_times([time for time in times if time is not None]))
    return [None if time is None else (next(known), number) for time, number in zip(times, sequences, strict=True)]


def _is_in_order(m: Message) -> bool:
    return m.prev is None or (m.prev.timestamp_ms, m.prev.sequence_number) < (m.timestamp_ms, m.sequence_number)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return not content.startswith(BOM)
