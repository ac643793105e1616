"""Plain messages in arrays of version 32, read many at a time and without an object for each.

Nearly all messages of a window are alike: type 27, signed with type 2, low s, content a text or lower-case hex,
no rotated key, a time after February 1970. Those are read, encoded and hashed here column by column, for half of what
the general way costs (``read_legacy_array``, then ``record_of_read``). Everything else, and all that looks wrong, is
left to the general way: every refusal has its reason from one place, and what is read here is what the general way
makes of the same bytes (tests/property/protocol/codec/test_plain_arrays.py).
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from operator import lt
from typing import Annotated, Final, Literal

import msgspec

from validator.protocol.codec.conversion import normalise_stream_id
from validator.protocol.codec.heads import (
    ENUMERATIONS,
    NULL,
    text_bytes,
)
from validator.protocol.codec.legacy_array import read_address
from validator.protocol.codec.limits import (
    MAX_CONTENT_BYTES,
    MAX_ID_BYTES,
    MAX_PARTITION,
    MAX_SEQUENCE,
    MAX_TIMESTAMP_MS,
)
from validator.protocol.codec.payload import HALF_K1
from validator.protocol.codec.plain_messages import EARLIEST_MS, TEXT, Chain, encode_plain, hash_plain, make_chain
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import ContentType, Digest, EncryptionType, MessageType, StreamPart


@dataclass(frozen=True, slots=True)
class PlainBatch:
    """Plain messages, their signatures unchecked, column by column: place i of each belongs to message i."""

    numbers: Sequence[int] = ()
    """Which lines they are, ascending."""
    chains: Sequence[Chain] = ()
    timestamps_ms: Sequence[int] = ()
    sequence_numbers: Sequence[int] = ()
    canonical: Sequence[bytes] = ()
    leaves: Sequence[bytes] = ()
    digests: Sequence[Digest] = ()
    signed_sizes: Sequence[int] = ()
    """Bytes of the signed text."""
    signatures: Sequence[bytes] = ()


_Reference = tuple[Annotated[int, msgspec.Meta(ge=EARLIEST_MS)], Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]]
_Array = tuple[
    Literal[32],
    tuple[
        str,
        Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITION)],
        Annotated[int, msgspec.Meta(ge=EARLIEST_MS, le=MAX_TIMESTAMP_MS)],
        Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)],
        str,
        str,
    ],
    _Reference | None,
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
_Picked = tuple[Sequence[int], list[_Array], list[bytes], list[Chain]]
"""(numbers of the lines, what stands in them, signatures, chains)."""
_decode: Final = msgspec.json.Decoder(_Array).decode
_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError)
_CIPHER: Final = ENUMERATIONS[MessageType.MESSAGE, ContentType.JSON, EncryptionType.AES]
_BOM = "\ufeff"


def read_plain(part: StreamPart, lines: Sequence[bytes], from_ms: int, until_ms: int, limit: int) -> PlainBatch:
    """What is plain of ``part`` in [from_ms, until_ms). Raises nothing.

    Lines longer than ``limit`` bytes are not; canonical and signed bytes are always shorter than the line.
    """
    longest = min(limit, MAX_CONTENT_BYTES)
    picked = _pick_all(part, lines, from_ms, until_ms, longest)
    if picked is None:
        picked = _pick_some(part, lines, from_ms, until_ms, longest)
    numbers, arrays, signatures, chains = picked
    if not arrays:
        return PlainBatch()
    _, names, references, _, _, encryptions, key_ids, texts, _, _, _ = zip(*arrays, strict=True)
    _, _, timestamps, sequences, _, _ = zip(*names, strict=True)
    payloads = [
        f"{chain.signed_part}{timestamp}{sequence}{chain.signed_chain}{text}".encode()
        if prev is None
        else f"{chain.signed_part}{timestamp}{sequence}{chain.signed_chain}{prev[0]}{prev[1]}{text}".encode()
        for chain, timestamp, sequence, prev, text in zip(chains, timestamps, sequences, references, texts, strict=True)
    ]
    contents = list(map(str.encode, texts))
    middles: Iterable[bytes] = repeat(TEXT, len(contents))
    if any(encryptions):
        contents = [unhexlify(c) if aes else c for c, aes in zip(contents, encryptions, strict=True)]
        middles = [TEXT if key_id is None else _CIPHER + text_bytes(key_id) + NULL for key_id in key_ids]
    canonical = encode_plain(chains, timestamps, sequences, references, middles, contents, signatures)
    sizes = list(map(len, payloads))
    return PlainBatch(
        numbers,
        chains,
        timestamps,
        sequences,
        canonical,
        hash_plain(chains, timestamps, sequences, contents, canonical),
        [keccak256(b"\x19Ethereum Signed Message:\n%d%b" % item) for item in zip(sizes, payloads, strict=True)],
        sizes,
        signatures,
    )


def _pick_all(part: StreamPart, lines: Sequence[bytes], from_ms: int, until_ms: int, longest: int) -> _Picked | None:
    """All lines, if all are plain texts: what ``_is_plain`` asks of each is asked of whole columns here."""
    if not lines or len(max(lines, key=len)) > longest:
        return None
    try:
        arrays = list(map(_decode, lines))
        _, names, references, _, _, encryptions, key_ids, texts, _, _, signed = zip(*arrays, strict=True)
        signatures = [unhexlify(text[2:]) for text in signed]
    except _FAULTS:
        return None
    stream_ids, partitions, timestamps, sequences, publishers, chain_ids = zip(*names, strict=True)
    before = [(0, 0) if prev is None else prev for prev in references]
    chains = list(filter(None, map(_read_chain, repeat(part[0]), repeat(part[1]), publishers, chain_ids)))
    if (
        set(stream_ids) != {part[0]}
        or set(partitions) != {part[1]}
        or min(timestamps) < from_ms
        or max(timestamps) >= until_ms
        or any(encryptions)
        or set(key_ids) != {None}
        or any(map(str.startswith, texts, repeat(_BOM)))
        or not all(map(str.startswith, signed, repeat("0x")))
        or max([signature[32:64] for signature in signatures]) > HALF_K1
        or not all(map(lt, before, zip(timestamps, sequences, strict=True)))
        or len(chains) != len(lines)
    ):
        return None
    return range(len(lines)), arrays, signatures, chains


def _pick_some(part: StreamPart, lines: Sequence[bytes], from_ms: int, until_ms: int, longest: int) -> _Picked:
    """The lines that are plain, one by one."""
    numbers: list[int] = []
    arrays: list[_Array] = []
    signatures: list[bytes] = []
    chains: list[Chain] = []
    for number, line in enumerate(lines):
        if len(line) > longest:
            continue
        try:
            array = _decode(line)
            signature = unhexlify(array[10][2:])
        except _FAULTS:
            continue
        chain = _read_chain(*part, *array[1][4:])
        if (
            chain is not None
            and from_ms <= array[1][2] < until_ms
            and signature[32:64] <= HALF_K1
            and _is_plain(part, array)
        ):
            numbers.append(number)
            arrays.append(array)
            signatures.append(signature)
            chains.append(chain)
    return numbers, arrays, signatures, chains


def _is_plain(part: StreamPart, array: _Array) -> bool:
    """Whether what the decoder lets through is a plain message of the partition; time, s and chain aside."""
    _, names, prev, _, _, encryption, key_id, text, _, _, signed = array
    stream_id, partition, timestamp_ms, sequence_number, _, _ = names
    return (
        (stream_id, partition) == part
        and signed.startswith("0x")
        and (prev is None or prev < (timestamp_ms, sequence_number))
        and (_is_cipher(key_id, text) if encryption else key_id is None and not text.startswith(_BOM))
    )


def _is_cipher(key_id: str | None, text: str) -> bool:
    """Lower-case hex, other digits are signed as they are, and the id of a key."""
    if key_id is None or len(key_id.encode()) > MAX_ID_BYTES:
        return False
    try:
        return hexlify(unhexlify(text)).decode() == text
    except ValueError:
        return False


@lru_cache(maxsize=20_000)
def _read_chain(stream_id: str, partition: int, publisher: str, msg_chain_id: str) -> Chain | None:
    """What a chain's messages share, remembered; None where a field is not plain."""
    try:
        address = read_address(publisher)
        if normalise_stream_id(stream_id) != stream_id:
            return None
    except MalformedInput:
        return None
    if len(stream_id.encode()) > MAX_ID_BYTES or len(msg_chain_id.encode()) > MAX_ID_BYTES:
        return None
    return make_chain(stream_id, partition, address, msg_chain_id)
