"""The quick reader of protobuf against the general one: whatever it reads, the other reads alike; it never decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_key, a_message
from validator.protocol.codec.protobuf import read_any_protobuf, read_protobuf, write_protobuf
from validator.protocol.codec.quick_protobuf import read_plain_protobuf
from validator.protocol.errors import MalformedInput
from validator.protocol.model import ContentType, Message, MessageRef, SignatureType

times = st.one_of(st.integers(0, 2**53 - 1), st.integers(1 << 35, (1 << 42) - 1))
numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=150).filter(lambda t: len(t.encode()) <= 256)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    timestamp, sequence = draw(times), draw(numbers)
    prev = draw(st.none() | st.builds(MessageRef, st.integers(0, timestamp), numbers))
    if prev is not None and (prev.timestamp_ms, prev.sequence_number) >= (timestamp, sequence):
        prev = None
    return a_message(
        a_key(draw(st.integers(1, 3))),
        stream_id=draw(texts.filter(bool)),
        partition=draw(st.integers(0, 99)),
        timestamp_ms=timestamp,
        sequence_number=sequence,
        msg_chain_id=draw(texts),
        prev=prev,
        content=draw(st.one_of(st.binary(max_size=40), st.binary(min_size=100, max_size=400))),
        content_type=draw(st.sampled_from(ContentType)),
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
    )


def outcome(read: object, body: bytes) -> object:
    try:
        return read(body)  # type: ignore[operator]
    except MalformedInput as error:
        return error.message


@settings(max_examples=200, deadline=None)
@given(message=messages())
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    body = write_protobuf(message)
    assert read_protobuf(body) == read_any_protobuf(body) == message


def test_ordinary_messages_are_read_quickly() -> None:
    for kind in (SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ECDSA_SECP256K1_EVM):
        prev = MessageRef(1_700_000_000_000, 3)
        message = a_message(timestamp_ms=1_760_000_000_000, sequence_number=2, prev=prev, signature_type=kind)
        assert read_plain_protobuf(write_protobuf(message)) == message


@settings(max_examples=500, deadline=None)
@given(message=messages(), data=st.data())
def test_altered_bytes_have_one_reading(message: Message, data: st.DataObject) -> None:
    body = bytearray(write_protobuf(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "insert", "delete"]))
        if change == "set":
            body[at] = data.draw(st.integers(0, 255))
        elif change == "cut" and at:
            del body[at:]
        elif change == "insert":
            body[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        elif len(body) > 1:
            del body[at]
    assert outcome(read_protobuf, bytes(body)) == outcome(read_any_protobuf, bytes(body))
