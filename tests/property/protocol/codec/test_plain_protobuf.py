"""The quick way through many protobuf messages gives what the general way gives, or leaves the message to it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_key, a_message, flip_s
from validator.protocol.codec.limits import MAX_ID_BYTES, MAX_PARTITION
from validator.protocol.codec.message import record_of_read
from validator.protocol.codec.plain_protobuf import read_plain_bodies
from validator.protocol.codec.protobuf import read_any_protobuf, write_protobuf
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    NewGroupKey,
    Record,
    SignatureType,
)

LIMIT = 1 << 20
TEXT, BYTES = SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ECDSA_SECP256K1_EVM
BROADCAST_MS = 1_760_000_000_000
times = st.one_of(st.integers(0, 2**53 - 1), st.integers(1 << 35, (1 << 42) - 1))
numbers = st.one_of(st.integers(0, 3), st.integers(100, 300), st.integers(16_000, 17_000), st.integers(0, 2**31 - 1))
confusing = st.sampled_from(
    ["\x18", "\x1aA", "\x12\x07\x08", " \x01", "*\x14" + "a" * 20, "\x10\x01", "2\x00", "\n", "ä"]
)
texts = st.lists(st.one_of(confusing, st.text("ab/0x", max_size=20)), max_size=6).map("".join)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Most are plain."""
    timestamp, sequence = draw(times), draw(numbers)
    prev = draw(st.none() | st.builds(MessageRef, st.one_of(st.integers(0, timestamp), st.just(timestamp)), numbers))
    if prev is not None and (prev.timestamp_ms, prev.sequence_number) >= (timestamp, sequence):
        prev = None
    kind = draw(st.sampled_from([TEXT, BYTES, BYTES, SignatureType.ERC_1271]))
    text = st.text("x\x10\x01\x18ä", max_size=40).map(str.encode)
    sizes = st.integers(100, 300).map(lambda size: b"y" * size + b"\x10\x01")
    anything = st.one_of(st.binary(max_size=40), text, sizes)
    aes = draw(st.sampled_from([False, False, False, True]))
    return a_message(
        a_key(draw(st.integers(1, 3))),
        stream_id=draw(texts.filter(bool)),
        partition=draw(st.integers(0, 99)),
        timestamp_ms=timestamp,
        sequence_number=sequence,
        msg_chain_id=draw(texts),
        prev=prev,
        content=draw(st.one_of(text, sizes) if kind is TEXT else anything),
        content_type=draw(st.sampled_from(ContentType)),
        encryption_type=EncryptionType.AES if aes else EncryptionType.NONE,
        group_key_id="key" if aes else None,
        new_group_key=NewGroupKey("next", b"z" * 32) if aes and draw(st.booleans()) else None,
        signature_type=kind,
    )


def read_generally(body: bytes) -> Record | None:
    try:
        return record_of_read(read_any_protobuf(body))
    except MalformedInput:
        return None


def read_those_plain(bodies: list[bytes], limit: int = LIMIT) -> list[int]:
    """Numbers of the plain ones: each equals what the general way makes of it."""
    plain = read_plain_bodies(bodies, limit)
    assert len(plain) == len(bodies)
    for record, body in zip(plain, bodies, strict=True):
        assert record is None or record == read_generally(body)
    return [number for number, record in enumerate(plain) if record is not None]


def is_ordinary(m: Message) -> bool:
    early = m.timestamp_ms < 1 << 35 or (m.prev is not None and m.prev.timestamp_ms < 1 << 35)
    late = m.timestamp_ms >= 1 << 42
    long = m.sequence_number > 16_383 or (m.prev is not None and m.prev.sequence_number > 16_383)
    return (
        not (early or late or long or m.encryption_type)
        and m.signature_type is not SignatureType.ERC_1271
        and bool(m.content)
        and not any(mark in m.stream_id + m.msg_chain_id for mark in ("\x18", "\x1aA", "\x12\x07\x08"))
    )


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(messages(), max_size=6))
def test_what_is_plain_is_read_as_the_general_way_reads_it(batch: list[Message]) -> None:
    plain = read_those_plain(list(map(write_protobuf, batch)))
    assert set(plain) >= {number for number, message in enumerate(batch) if is_ordinary(message)}


inserted = st.sampled_from([b"\x10\x01", b"\x10\x00", b"\x18\x00", b"\x20\x01", b"\x00", b"\x80"])


@settings(max_examples=250, deadline=None)
@given(message=messages(), data=st.data())
def test_of_altered_bytes_nothing_else_is_read(message: Message, data: st.DataObject) -> None:
    body = bytearray(write_protobuf(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["set", "shift", "cut", "insert", "delete", "repeat"]))
        if change == "set":
            body[at] = data.draw(st.integers(0, 255))
        elif change == "shift":
            body[at] = (body[at] + data.draw(st.sampled_from([-2, -1, 1, 2]))) % 256
        elif change == "cut" and at:
            del body[at:]
        elif change == "insert":
            body[at:at] = data.draw(inserted)
        elif change == "repeat":
            body[at:at] = body[at : at + data.draw(st.integers(1, 30))]
        elif len(body) > 1:
            del body[at]
    read_those_plain([bytes(body)])


def test_no_byte_may_be_another() -> None:
    for content_type, prev in ((ContentType.BINARY, MessageRef(BROADCAST_MS, 1)), (ContentType.JSON, None)):
        message = a_message(
            timestamp_ms=BROADCAST_MS,
            sequence_number=300,
            prev=prev,
            content=b"[1]",
            content_type=content_type,
            signature_type=BYTES,
        )
        body = write_protobuf(message)
        for at, byte in enumerate(body):
            values = {byte - 3, byte - 2, byte - 1, byte + 1, byte + 2, byte + 3, 0, 1, 7, 9, 10, 18, 128} - {byte}
            read_those_plain([body[:at] + bytes([value % 256]) + body[at + 1 :] for value in values])


def test_ordinary_messages_of_both_types_are_plain() -> None:
    for kind in (TEXT, BYTES):
        for prev in (None, MessageRef(BROADCAST_MS - 1, 0), MessageRef(BROADCAST_MS, 1)):
            for content_type in ContentType:
                message = a_message(
                    timestamp_ms=BROADCAST_MS,
                    sequence_number=2,
                    prev=prev,
                    content=b'"gr\xc3\xbcn"',
                    content_type=content_type,
                    signature_type=kind,
                )
                assert read_those_plain([write_protobuf(message)]) == [0]


def test_what_the_rules_refuse_or_rewrite_is_left_to_them() -> None:
    message = a_message(timestamp_ms=BROADCAST_MS, prev=MessageRef(BROADCAST_MS - 1, 0))
    body = write_protobuf(message)
    high = body.replace(message.signature, flip_s(message.signature))
    marked = body.replace(message.content, b"\xef\xbb\xbf" + message.content[3:])
    binary = body.replace(message.content, b"\xff" + message.content[1:])
    bodies = [high, marked, binary, body[:-1], body + b"\x10\x02", b""]
    assert all(changed != body for changed in bodies)
    assert read_those_plain(bodies) == []
    assert read_generally(high) == read_generally(body)  # the twin with low s


def test_what_is_out_of_bounds_is_left_to_the_rules() -> None:
    stream, chain = b"s" * MAX_ID_BYTES, b"c" * MAX_ID_BYTES
    first, last = (
        write_protobuf(
            a_message(
                timestamp_ms=BROADCAST_MS, stream_id=stream.decode(), msg_chain_id=chain.decode(), partition=partition
            )
        )
        for partition in (0, MAX_PARTITION)
    )
    assert read_those_plain([first, last]) == [0, 1]
    size, longer = b"\x80\x02", b"\x81\x02"  # 256 and 257
    for altered in (
        alter_id(last, b"\x10" + bytes([MAX_PARTITION]), b"\x10" + bytes([MAX_PARTITION + 1])),
        alter_id(first, size + stream, longer + b"s" + stream),
        alter_id(last, b"\x0a" + size + stream, b""),
        alter_id(first, size + chain, longer + b"c" + chain),
    ):
        assert (read_those_plain([altered]), read_generally(altered)) == ([], None)


def alter_id(body: bytes, old: bytes, new: bytes) -> bytes:
    """The message with other bytes in its id, whose length takes two bytes."""
    assert body.count(old) == 1
    size = (body[1] & 127 | body[2] << 7) + len(new) - len(old)
    return body[:1] + bytes([size & 127 | 128, size >> 7]) + body[3:].replace(old, new)


def test_a_message_that_follows_itself_is_left_to_the_rules() -> None:
    body = write_protobuf(a_message(timestamp_ms=BROADCAST_MS, prev=MessageRef(BROADCAST_MS - 1, 0)))
    reference = write_protobuf(a_message(timestamp_ms=BROADCAST_MS + 1, prev=MessageRef(BROADCAST_MS, 0)))
    at = body.index(b"\x12\x07\x08")
    altered = body[:at] + reference[reference.index(b"\x12\x07\x08") :][:9] + body[at + 9 :]
    assert altered != body
    assert (read_those_plain([altered, body]), read_generally(altered)) == ([1], None)


def test_no_more_bytes_than_allowed() -> None:
    body = write_protobuf(a_message(timestamp_ms=BROADCAST_MS, content=b"x" * 1_000))
    record = read_generally(body)
    assert record is not None
    size = max(len(record.canonical), record.signed_bytes)
    assert read_those_plain([body], size) == [0]
    assert read_those_plain([body], size - 1) == []
    longest = [write_protobuf(a_message(timestamp_ms=BROADCAST_MS, content=b"x" * size)) for size in (16_000, 20_000)]
    assert read_those_plain(longest) == [0]
