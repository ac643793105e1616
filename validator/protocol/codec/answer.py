"""What a broker says of an answer: the request it is to, where it goes on, and the signed trailer at its end.

    request   SHA-256 labelled "logstore/query1" over canonical CBOR ["query/1", stream id, partition, from ms, until
              ms]: the half-open span that was asked for. Page size, format and proofs do not change what is asked.
    cursor    ["cursor/1", asOf or null, timestamp, sequence number, publisher, chain id, leaf, request digest],
              base64url without padding where it is text: the sort key of the last message that was given. The answer to
              it begins behind that message, at whichever broker. Nobody signs it: a forged one asks for other messages
              of the same span, which anybody may.
    trailer   ["answer/1", …the fields of ``Answer`` in their order…, signature]; signed is EIP-712
              Answer(bytes32 request,string streamId,uint32 partition,uint64 fromMs,uint64 untilMs,bytes after,
                     bytes next,
                     uint64 count,uint64 signedBytes,bytes32 root,bool hasAsOf,uint64 asOf,uint64 completeTo,
                     uint8 flags,Claim[] claims,uint64 timeMs)Claim(address broker,bytes claim)
              in the domain (LogStoreAnswer, 1, chain id, ReportManager).

The root is the RFC 9162 root over the leaves of the messages given, in canonical order: where an answer is a whole
entry, it is the entry's. A root over sorted leaves makes an omission provable: two adjacent leaves enclose the missing
one. ``claims`` name what each responsible broker says of the same span, in its own signed words; empty: unreachable.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u63
from validator.protocol.codec.limits import (
    MAX_ID_BYTES,
    MAX_PARTITION,
    MAX_PUBLISHER_BYTES,
    MAX_SEQUENCE,
    MAX_TIMESTAMP_MS,
    check_id,
)
from validator.protocol.codec.secp256k1 import Signer, verify_signature
from validator.protocol.codec.statement import SigningContext
from validator.protocol.codec.typed_data import Struct, payload
from validator.protocol.errors import MalformedInput, require
from validator.protocol.hashing import hash_labelled, keccak256
from validator.protocol.model import Address, Digest, Flag, Root, StreamPart

REQUEST_LABEL = "logstore/query1"
REQUEST_KIND = "query/1"
CURSOR_KIND = "cursor/1"
ANSWER_KIND = "answer/1"
MAX_CURSOR_BYTES = 512 + MAX_PUBLISHER_BYTES + MAX_ID_BYTES
MAX_ANSWER_BYTES = 256 << 10
MAX_CLAIMS = 64
MAX_CLAIM_BYTES = 2048
PURPOSE = "Answer"

_CLAIM = Struct("Claim", (("address", "broker"), ("bytes", "claim")))
_ANSWER = Struct(
    "Answer",
    (
        ("bytes32", "request"),
        ("string", "streamId"),
        ("uint32", "partition"),
        ("uint64", "fromMs"),
        ("uint64", "untilMs"),
        ("bytes", "after"),
        ("bytes", "next"),
        ("uint64", "count"),
        ("uint64", "signedBytes"),
        ("bytes32", "root"),
        ("bool", "hasAsOf"),
        ("uint64", "asOf"),
        ("uint64", "completeTo"),
        ("uint8", "flags"),
        ("Claim[]", "claims"),
        ("uint64", "timeMs"),
    ),
    (_CLAIM,),
)
ANSWER_FIELDS = 16


@dataclass(frozen=True, slots=True)
class Request:
    """The messages of a stream partition with a timestamp in [from_ms, until_ms)."""

    stream_id: str
    partition: int
    from_ms: int
    until_ms: int

    @property
    def stream_part(self) -> StreamPart:
        return (self.stream_id, self.partition)

    def digest(self) -> Digest:
        what = cbor.encode_object(REQUEST_KIND, self.stream_id, self.partition, self.from_ms, self.until_ms)
        return hash_labelled(REQUEST_LABEL, what)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Behind which message an answer goes on, of which request, with which certified history (None: with none)."""

    as_of: int | None
    timestamp_ms: int
    sequence_number: int
    publisher_id: bytes
    msg_chain_id: str
    leaf: Digest
    request: Digest


def encode_cursor(cursor: Cursor) -> bytes:
    c = cursor
    return cbor.encode_object(
        CURSOR_KIND,
        c.as_of,
        c.timestamp_ms,
        c.sequence_number,
        c.publisher_id,
        c.msg_chain_id,
        c.leaf,
        c.request,
    )


def decode_cursor(data: bytes, request: Request) -> Cursor:
    """The cursor of these bytes, which was given for ``request``.

    Raises:
        MalformedInput: "cursor": unknown, or of another request.
    """
    try:
        fields = cbor.decode_object(data, CURSOR_KIND, 7, max_bytes=MAX_CURSOR_BYTES)
        as_of = None if fields[0] is None else read_u63(fields[0], "asOf")
        timestamp_ms, sequence = read_u63(fields[1], "timestamp"), read_u63(fields[2], "sequence number")
        require(timestamp_ms <= MAX_TIMESTAMP_MS, "timestamp", "out of range")
        require(sequence <= MAX_SEQUENCE, "sequence number", "out of range")
        publisher = read_blob(fields[3], "publisher")
        require(len(publisher) <= MAX_PUBLISHER_BYTES, "publisher", "too long")
        require(isinstance(fields[4], str), "chain id", "not a text")
        check_id("chain id", fields[4])
        leaf, of = read_bytes(fields[5], 32, "leaf"), read_bytes(fields[6], 32, "request")
    except MalformedInput as error:
        raise MalformedInput("cursor", f"unknown: {error.message}") from error
    if of != request.digest():
        raise MalformedInput("cursor", "of another request")
    if not request.from_ms <= timestamp_ms < request.until_ms:
        raise MalformedInput("cursor", "outside the span that was asked for")
    return Cursor(as_of, timestamp_ms, sequence, publisher, fields[4], Digest(leaf), Digest(of))


def write_text(data: bytes) -> str:
    """Base64url without padding: how cursors, trailers and tokens stand in URLs and headers."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read_text(text: str, field: str, *, max_bytes: int) -> bytes:
    """Inverse of ``write_text``. Raises MalformedInput that names the field."""
    if len(text) > max_bytes * 4 // 3 + 4:
        raise MalformedInput(field, f"longer than {max_bytes} bytes")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedInput(field, "not base64url") from error
    if write_text(data) != text:
        raise MalformedInput(field, "not base64url as it is written here")
    return data


@dataclass(frozen=True, slots=True)
class Claim:
    """What another broker says of the same span, in its own signed bytes; none: it could not be reached in time."""

    broker: Address
    claim: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """The trailer: what was given of a request. ``after``, ``next``: encoded cursors, empty at the span's ends.

    ``as_of``: number of the newest verified bundle that certified history was read with; ``complete_to``: certificates
    cover the partition up to this time, so 0 where nothing is certified. ``signature`` is 65 bytes r, s, v.
    """

    request: Request
    after: bytes
    next: bytes
    count: int
    signed_bytes: int
    root: Root
    as_of: int | None
    complete_to: int
    flags: Flag
    claims: tuple[Claim, ...]
    time_ms: int
    broker: Address
    signature: bytes = b""


def answer_payload(answer: Answer, context: SigningContext) -> bytes:
    """What the broker signs."""
    a = answer
    return payload(
        context.domain(PURPOSE),
        _ANSWER,
        {
            "request": a.request.digest(),
            "streamId": a.request.stream_id,
            "partition": a.request.partition,
            "fromMs": a.request.from_ms,
            "untilMs": a.request.until_ms,
            "after": a.after,
            "next": a.next,
            "count": a.count,
            "signedBytes": a.signed_bytes,
            "root": a.root,
            "hasAsOf": a.as_of is not None,
            "asOf": a.as_of or 0,
            "completeTo": a.complete_to,
            "flags": int(a.flags),
            "claims": [{"broker": claim.broker, "claim": claim.claim} for claim in a.claims],
            "timeMs": a.time_ms,
        },
    )


def sign_answer(answer: Answer, key: Signer, context: SigningContext) -> Answer:
    return replace(answer, signature=key.sign_payload(answer_payload(answer, context)))


def verify_answer(answer: Answer, context: SigningContext) -> None:
    """Raises MalformedInput unless the broker that it names has signed it."""
    verify_signature(keccak256(answer_payload(answer, context)), answer.signature, answer.broker)


def encode_answer(answer: Answer) -> bytes:
    a = answer
    r = a.request
    return cbor.encode_object(
        ANSWER_KIND,
        r.stream_id,
        r.partition,
        r.from_ms,
        r.until_ms,
        a.after,
        a.next,
        a.count,
        a.signed_bytes,
        a.root,
        a.as_of,
        a.complete_to,
        int(a.flags),
        [[claim.broker, claim.claim] for claim in a.claims],
        a.time_ms,
        a.broker,
        a.signature,
    )


def decode_answer(data: bytes) -> Answer:
    """Inverse of ``encode_answer``; says nothing about the signature. Raises MalformedInput."""
    f = cbor.decode_object(data, ANSWER_KIND, ANSWER_FIELDS, max_bytes=MAX_ANSWER_BYTES)
    require(isinstance(f[0], str), "stream_id", "not a text")
    check_id("stream_id", f[0])
    partition, from_ms, until_ms = (read_u63(f[at], name) for at, name in ((1, "partition"), (2, "from"), (3, "until")))
    require(partition <= MAX_PARTITION, "partition", "out of range")
    after, following = _cursor_bytes(f[4], "after"), _cursor_bytes(f[5], "next")
    count, signed_bytes = read_u63(f[6], "count"), read_u63(f[7], "signed bytes")
    root = Root(read_bytes(f[8], 32, "root"))
    as_of = None if f[9] is None else read_u63(f[9], "asOf")
    complete_to, flags = read_u63(f[10], "completeTo"), read_u63(f[11], "flags")
    require(flags <= int(~Flag(0)), "flags", "unknown")
    claims = read_list(f[12], "claims")
    require(len(claims) <= MAX_CLAIMS, "claims", f"more than {MAX_CLAIMS}")
    return Answer(
        Request(f[0], partition, from_ms, until_ms),
        after,
        following,
        count,
        signed_bytes,
        root,
        as_of,
        complete_to,
        Flag(flags),
        tuple(_read_claim(item) for item in claims),
        read_u63(f[13], "time"),
        Address(read_bytes(f[14], 20, "broker")),
        read_bytes(f[15], 65, "signature"),
    )


def _cursor_bytes(value: Any, what: str) -> bytes:
    data = read_blob(value, what)
    require(len(data) <= MAX_CURSOR_BYTES, what, "too long")
    return data


def _read_claim(value: Any) -> Claim:
    broker, claim = read_list(value, "claim", 2)
    data = read_blob(claim, "claim")
    require(len(data) <= MAX_CLAIM_BYTES, "claim", "too long")
    return Claim(Address(read_bytes(broker, 20, "claim's broker")), data)
