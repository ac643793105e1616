"""Claims: what a broker holds of a stream partition in a range of time, in its own signed words.

EIP-712 ``SliceClaim(address broker,string streamId,uint32 partition,uint64 fromMs,uint64 untilMs,uint64 count,
bytes32 root,uint64 timeMs)``, domain (LogStoreSlice, 1, chain id, ReportManager). The root is over the message leaves
in canonical order, as an agreed entry's. A claim stands for the time it names: two of one broker, range and time that
differ are evidence by themselves; an earlier one that has a message and a later one that has not, with the proofs of
both (protocol.omission), are evidence that a message was withheld. Wire form: canonical CBOR ["slice-claim/1", …] in
the order above, then the signature. Vectors: tests/vectors/slices.json.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_bytes, read_u63
from validator.protocol.codec.secp256k1 import Signer, verify_signature
from validator.protocol.codec.statement import SigningContext
from validator.protocol.codec.typed_data import Struct, payload
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import EMPTY_ROOT, keccak256
from validator.protocol.leaves import MAX_PARTITION
from validator.protocol.model import Address, Root, StreamPart

MAX_CLAIM_BYTES = 512
MAX_STREAM_ID_BYTES = 256
PURPOSE = "Slice"

_CLAIM = Struct(
    "SliceClaim",
    (
        ("address", "broker"),
        ("string", "streamId"),
        ("uint32", "partition"),
        ("uint64", "fromMs"),
        ("uint64", "untilMs"),
        ("uint64", "count"),
        ("bytes32", "root"),
        ("uint64", "timeMs"),
    ),
)


@dataclass(frozen=True, slots=True)
class SliceClaim:
    """``broker`` holds ``count`` messages of ``part`` in [from_ms, until_ms), with this root, at ``time_ms``."""

    broker: Address
    part: StreamPart
    from_ms: int
    until_ms: int
    count: int
    root: Root
    time_ms: int
    signature: bytes = b""


def claim_payload(claim: SliceClaim, context: SigningContext) -> bytes:
    return payload(
        context.domain(PURPOSE),
        _CLAIM,
        {
            "broker": claim.broker,
            "streamId": claim.part[0],
            "partition": claim.part[1],
            "fromMs": claim.from_ms,
            "untilMs": claim.until_ms,
            "count": claim.count,
            "root": claim.root,
            "timeMs": claim.time_ms,
        },
    )


def sign_claim(claim: SliceClaim, key: Signer, context: SigningContext) -> SliceClaim:
    if key.address != claim.broker:
        raise InvariantError("the key is not the claim's broker")
    return replace(claim, signature=key.sign_payload(claim_payload(claim, context)))


def verify_claim(claim: SliceClaim, context: SigningContext) -> None:
    """Raises MalformedInput, field "signature", unless the broker signed it; low s only."""
    verify_signature(keccak256(claim_payload(claim, context)), claim.signature, claim.broker)


def encode_claim(c: SliceClaim) -> bytes:
    signed = (c.broker, *c.part, c.from_ms, c.until_ms, c.count, c.root, c.time_ms)
    return cbor.encode_object("slice-claim/1", *signed, c.signature)


def decode_claim(data: bytes) -> SliceClaim:
    """Inverse of ``encode_claim``; the signature is not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, "slice-claim/1", 9, max_bytes=MAX_CLAIM_BYTES)
    claim = SliceClaim(
        broker=Address(read_bytes(f[0], 20, "claim.broker")),
        part=read_part(f[1], f[2]),
        from_ms=read_u63(f[3], "claim.from_ms"),
        until_ms=read_u63(f[4], "claim.until_ms"),
        count=read_u63(f[5], "claim.count"),
        root=Root(read_bytes(f[6], 32, "claim.root")),
        time_ms=read_u63(f[7], "claim.time_ms"),
        signature=read_bytes(f[8], 65, "claim.signature"),
    )
    if claim.until_ms < claim.from_ms:
        raise MalformedInput("claim.until_ms", "before the begin")
    if (claim.count == 0) != (claim.root == EMPTY_ROOT):
        raise MalformedInput("claim.root", "does not fit the count")
    return claim


def read_part(stream_id: object, partition: object) -> StreamPart:
    """A stream partition of a decoded object. Raises MalformedInput."""
    if not isinstance(stream_id, str) or not 0 < len(stream_id.encode()) <= MAX_STREAM_ID_BYTES:
        raise MalformedInput("stream_id", f"no text of 1 to {MAX_STREAM_ID_BYTES} bytes")
    if type(partition) is not int or not 0 <= partition <= MAX_PARTITION:
        raise MalformedInput("partition", "not an unsigned integer below 2^32")
    return (stream_id, partition)
