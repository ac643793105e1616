"""Messages drawn at random, and published vectors damaged at random: nothing but named refusals may happen."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import cbor2
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests import paths
from tests.builders import a_key, a_message
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.message import decode_message, encode_message, make_record, record_from_canonical
from validator.protocol.codec.message_rules import check_message, reason_of
from validator.protocol.codec.payload import signature_payload
from validator.protocol.codec.protobuf import read_protobuf, write_protobuf
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.codec.signatures import VALID, sign_message, verify_batch, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    SignatureType,
)

VECTORS = paths.VECTORS / "streamr.jsonl"
LEGACY = SignatureType.ECDSA_SECP256K1_LEGACY
ARRAYS = (SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY)
Reader = Callable[[bytes], Message]

texts = st.text(max_size=40)
ids = st.text(max_size=60)
domains = st.sampled_from(["a.eth/", "sub.a.eth/", "0x" + "ab" * 20 + "/", ""])
numbers = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 9, 10, 23, 24, 255, 256, 65535, 65536, 2**31 - 1]))
times = st.one_of(st.integers(0, 2**53 - 1), st.sampled_from([0, 23, 24, 2**32 - 1, 2**32, 2**53 - 1]))


@cache
def small_vectors() -> list[tuple[bytes, Reader]]:
    """Bytes of every vector below 20 kB with the reader of its form."""
    found: list[tuple[bytes, Reader]] = []
    for line in VECTORS.read_bytes().splitlines():
        vector = json.loads(line)
        array = vector["format"] == "legacy-json"
        body = vector["serialized"].encode() if array else base64.b64decode(vector["serializedBase64"])
        if len(body) < 20_000:
            found.append((body, read_legacy_array if array else read_protobuf))
    return found


@st.composite
def unsigned_messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from([LEGACY, SignatureType.ECDSA_SECP256K1_EVM, SignatureType.ERC_1271, *ARRAYS]))
    stream_id = draw(domains) + draw(texts).replace("/", "-")
    encrypted = draw(st.booleans())
    content = draw(texts).encode() if kind in (LEGACY, *ARRAYS) and not encrypted else draw(st.binary(max_size=80))
    if kind in ARRAYS and encrypted:
        content = draw(st.sampled_from([content.hex().upper(), content.hex() + "0", "x" + content.hex()])).encode()
    key = draw(st.none() | st.builds(NewGroupKey, ids, st.binary(max_size=50)))
    if key is not None and kind in ARRAYS:
        key = NewGroupKey("", json.dumps([key.id, key.data.hex()], ensure_ascii=draw(st.booleans())).encode())
    time, sequence = draw(times), draw(numbers)
    prev = draw(st.none() | st.builds(MessageRef, times, numbers))
    message = Message(
        stream_id,
        draw(st.integers(0, 99)),
        time,
        sequence,
        a_key(draw(st.integers(1, 3))).address,
        draw(ids),
        prev if prev is not None and prev < MessageRef(time, sequence) else None,
        MessageType.MESSAGE,
        ContentType.JSON if kind in ARRAYS else draw(st.sampled_from(ContentType)),
        EncryptionType.AES if encrypted else EncryptionType.NONE,
        draw(ids) if encrypted else draw(st.none() | ids),
        key,
        content,
        kind,
        b"",
    )
    try:
        check_message(message)
    except MalformedInput:
        assume(False)
    return message


messages = st.builds(lambda message: sign_message(a_key(1), message), unsigned_messages())


@given(message=messages)
@settings(max_examples=250, deadline=None)
def test_every_message_survives_its_canonical_bytes(message: Message) -> None:
    record = make_record(message)
    assert decode_message(record.canonical) == message
    assert record_from_canonical(record.canonical) == record
    assert cbor2.dumps(cbor2.loads(record.canonical)) == record.canonical


@given(message=messages)
@settings(max_examples=250, deadline=None)
def test_every_message_survives_the_forms_that_can_carry_it(message: Message) -> None:
    for write, read in ((write_legacy_array, read_legacy_array), (write_protobuf, read_protobuf)):
        try:
            body = write(message)
        except MalformedInput:
            continue
        assert read(body) == message
        assert signature_payload(read(body)) == signature_payload(message)


@given(message=messages)
@settings(max_examples=150, deadline=None)
def test_a_message_is_valid_exactly_if_recovery_gives_its_publisher(message: Message) -> None:
    record = make_record(message)
    recovered = recover_address(record.signed_digest, record.message.signature)
    if message.signature_type is SignatureType.ERC_1271:
        expected = Reason.ERC1271_UNKNOWN
        assert verify_message(message) is expected
    else:
        assert (verify_message(message) is VALID) == (recovered == message.publisher_id)


@given(signatures=st.lists(st.binary(min_size=63, max_size=66) | st.binary(max_size=3), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_invented_signatures_are_judged_alike_one_by_one_and_in_a_batch(signatures: list[bytes]) -> None:
    batch = [replace(a_message(), signature=signature) for signature in signatures]
    assert verify_batch(batch) == [verify_message(message) for message in batch]
    assert VALID not in verify_batch(batch)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_vectors_are_refused_by_name_or_judged(data: st.DataObject) -> None:
    body, read = data.draw(st.sampled_from(small_vectors()))
    outcome = judge(damage(body, data), read)
    assert outcome is VALID or isinstance(outcome, Reason)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_canonical_bytes_are_refused_or_are_another_messages(data: st.DataObject) -> None:
    canonical = encode_message(data.draw(messages))
    damaged = damage(canonical, data)
    try:
        message = decode_message(damaged)
    except MalformedInput:
        return
    assert encode_message(message) == damaged


@given(body=st.binary(max_size=200), read=st.sampled_from([read_legacy_array, read_protobuf, decode_message]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_by_name(body: bytes, read: Reader) -> None:
    assert isinstance(judge(body, read), Reason)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(elements=st.dictionaries(st.integers(0, 10), json_values, max_size=3), extra=st.lists(json_values, max_size=2))
@settings(max_examples=300, deadline=None)
def test_an_array_of_any_json_is_refused_by_name_or_judged(elements: dict[int, Any], extra: list[Any]) -> None:
    array = json.loads(write_legacy_array(a_message()))
    for position, value in elements.items():
        array[position] = value
    judge(json.dumps([*array, *extra]).encode(), read_legacy_array)


def test_every_bit_of_an_array_and_a_protobuf_matters_or_changes_nothing_signed() -> None:
    message = a_message(prev=MessageRef(1, 1))
    for write, read in ((write_legacy_array, read_legacy_array), (write_protobuf, read_protobuf)):
        body = write(message)
        for at in range(len(body)):
            flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            try:
                other = read(flipped)
            except MalformedInput:
                continue
            same = signature_payload(other) == signature_payload(message) and other.signature == message.signature
            assert (verify_message(other) is VALID) == (same and other.publisher_id == message.publisher_id)


def judge(body: bytes, read: Reader) -> Reason | object:
    """Read, record and verify; the refusal's name, or the verdict."""
    try:
        message = read(body)
        record = make_record(message)
    except MalformedInput as refusal:
        assert refusal.field
        assert refusal.reason
        return reason_of(refusal)
    verdict = verify_batch([record])[0]
    assert verify_message(message) is verdict
    assert record_from_canonical(record.canonical) == record
    return verdict


def damage(body: bytes, data: st.DataObject) -> bytes:
    """A few cuts, insertions, repetitions and changed bytes."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        end = min(len(body), at + data.draw(st.integers(0, 12)))
        how = data.draw(st.sampled_from(["cut", "insert", "repeat", "change"]))
        if how == "cut":
            body = body[:at] + body[end:]
        elif how == "insert":
            body = body[:at] + data.draw(st.binary(max_size=6)) + body[at:]
        elif how == "repeat":
            body = body[:end] + body[at:end] + body[end:]
        elif at < len(body):
            body = body[:at] + data.draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :]
    return body
