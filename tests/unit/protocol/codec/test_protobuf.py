from __future__ import annotations

from typing import Any

import pytest

from tests.builders import GENESIS_MS, a_key, a_message, a_p256_message, a_record, an_ml_dsa_message
from validator.protocol.codec import wire
from validator.protocol.codec.legacy_array import read_legacy_array, write_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.protobuf import MAX_BODY_BYTES, read_protobuf, write_protobuf
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    SignatureType,
)

EVM = SignatureType.ECDSA_SECP256K1_EVM
REQUEST = b"\x0a\x01r\x12\x01a\x1a\x01p\x22\x01k\x22\x00\x28\x01"


def parts_of(**fields: Any) -> dict[int, bytes]:
    """The top-level fields of a valid message, encoded, by number."""
    body = write_protobuf(a_message(signature_type=EVM, **fields))
    parts = {}
    for number, kind, value in wire.read_fields(body, "test"):
        if isinstance(value, int):
            parts[number] = wire.write_integer(number, value)
        else:
            assert kind == wire.BYTES
            parts[number] = wire.write_bytes(number, value)
    return parts


def join(parts: dict[int, bytes]) -> bytes:
    return b"".join(parts.values())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"partition": 99, "sequence_number": 2**31 - 1, "timestamp_ms": 2**53 - 1},
        {"timestamp_ms": 0},
        {"prev": MessageRef(0, 0)},
        {"prev": MessageRef(GENESIS_MS - 1, 3)},
        {"content": b""},
        {"content": b"\xff\x00", "content_type": ContentType.BINARY},
        {"encryption_type": EncryptionType.AES, "group_key_id": "", "content": b"\x01"},
        {"group_key_id": "k", "new_group_key": NewGroupKey("", b"")},
        {"group_key_id": "k", "new_group_key": NewGroupKey("n", bytes(48))},
        {"msg_chain_id": ""},
        {"message_type": MessageType.GROUP_KEY_REQUEST, "content_type": ContentType.BINARY, "content": REQUEST},
        {"message_type": MessageType.GROUP_KEY_RESPONSE, "content_type": ContentType.BINARY, "content": b""},
        {"signature_type": SignatureType.ECDSA_SECP256K1_LEGACY},
        {"signature_type": SignatureType.ERC_1271},
    ],
)
def test_what_is_written_is_read_again(fields: dict[str, Any]) -> None:
    message = a_message(**{"signature_type": EVM, **fields})
    assert read_protobuf(write_protobuf(message)) == message


def test_the_other_schemes_pass_through_the_wire() -> None:
    for message in (a_p256_message(), a_p256_message(compressed=False), an_ml_dsa_message()):
        again = read_protobuf(write_protobuf(message))
        assert again == message
        assert verify_message(again) is VALID


def test_the_largest_message_fits_the_body_limit() -> None:
    ids: dict[str, Any] = {"stream_id": "s" * 256, "msg_chain_id": "c" * 256, "group_key_id": "g" * 256}
    key = NewGroupKey("k" * 256, bytes(2048))
    message = an_ml_dsa_message(**ids, content=bytes(1 << 20), new_group_key=key, prev=MessageRef(1, 1))
    assert len(write_protobuf(message)) <= MAX_BODY_BYTES
    assert read_protobuf(write_protobuf(message)) == message


def test_order_and_unknown_fields_do_not_matter() -> None:
    parts = parts_of(prev=MessageRef(1, 1))
    message = read_protobuf(join(parts))
    backwards = b"".join(reversed(parts.values()))
    unknown = wire.write_integer(99, 7) + wire.write_bytes(100, b"x") + b"\xad\x06abcd" + b"\xb1\x06abcdefgh"
    assert read_protobuf(backwards) == read_protobuf(unknown + join(parts) + unknown) == message


def test_zero_values_may_be_written_out() -> None:
    message = a_message(signature_type=SignatureType.ECDSA_SECP256K1_LEGACY)
    body = write_protobuf(message) + b"\x20\x00"
    assert read_protobuf(body) == message


def test_an_empty_previous_reference_is_not_an_absent_one() -> None:
    parts = parts_of()
    parts[2] = wire.write_bytes(2, b"")
    assert read_protobuf(join(parts)).prev == MessageRef(0, 0)


def test_an_absent_key_id_is_not_an_empty_one() -> None:
    assert read_protobuf(join(parts_of())).group_key_id is None
    assert read_protobuf(join(parts_of(group_key_id=""))).group_key_id == ""


@pytest.mark.parametrize(
    ("number", "encoded", "field", "verdict"),
    [
        (1, b"", "messageId", Reason.MALFORMED),
        (1, wire.write_bytes(1, b""), "stream_id", Reason.MALFORMED),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"\xff")), "stream_id", Reason.MALFORMED),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") * 2), "messageId", Reason.MALFORMED),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") + wire.write_integer(2, 100)), "partition", None),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") + wire.write_integer(2, 2**64 - 1)), "partition", None),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") + wire.write_integer(3, 2**53)), "timestamp", None),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") + wire.write_integer(4, 2**31)), "sequence_number", None),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a") + wire.write_bytes(2, b"")), "messageId", None),
        (1, wire.write_bytes(1, wire.write_bytes(1, b"a")), "publisher_id", None),
        (2, wire.write_bytes(2, wire.write_integer(1, GENESIS_MS)), "prev", None),
        (3, wire.write_bytes(3, bytes(5000)), "signature", Reason.TOO_LARGE),
        (4, wire.write_integer(4, 5), "signature_type", Reason.UNKNOWN_SIGNATURE_TYPE),
        (4, wire.write_integer(4, 31), "signature_type", Reason.UNKNOWN_SIGNATURE_TYPE),
        (4, wire.write_integer(4, 32), "signature_type", Reason.UNKNOWN_SIGNATURE_TYPE),
        (4, wire.write_bytes(4, b""), "protobuf", Reason.MALFORMED),
        (5, b"", "body", Reason.MALFORMED),
        (5, wire.write_bytes(5, b"") + wire.write_bytes(6, b""), "body", Reason.MALFORMED),
        (5, wire.write_bytes(5, b"") * 2, "protobuf", Reason.MALFORMED),
        (5, wire.write_bytes(5, wire.write_integer(2, 2)), "content_type", Reason.MALFORMED),
        (5, wire.write_bytes(5, wire.write_integer(3, 2)), "encryption_type", Reason.MALFORMED),
        (5, wire.write_bytes(5, wire.write_integer(3, 1)), "group_key_id", Reason.MALFORMED),
        (5, wire.write_bytes(5, wire.write_bytes(4, b"\xff")), "group_key_id", Reason.MALFORMED),
        (5, wire.write_bytes(5, wire.write_bytes(4, b"k" * 257)), "group_key_id", Reason.TOO_LARGE),
        (5, wire.write_bytes(5, wire.write_bytes(5, b"\x0a\x01\xff")), "new_group_key.id", Reason.MALFORMED),
        (5, wire.write_bytes(6, b"\x28\x02"), "groupKey.encryptionType", Reason.MALFORMED),
        (5, wire.write_bytes(6, b"\x0a\x01\xff"), "requestId", Reason.MALFORMED),
        (5, wire.write_bytes(6, b"\x22\x00" * 1025), "groupKeyIds", Reason.MALFORMED),
        (5, wire.write_bytes(7, b"\x1a\x00" * 1025), "groupKeys", Reason.MALFORMED),
        (5, wire.write_bytes(7, b"\x1a\x02\x0a\x05"), "groupKeys", Reason.MALFORMED),
    ],
)
def test_a_wrong_field_is_named(number: int, encoded: bytes, field: str, verdict: Reason | None) -> None:
    parts = parts_of()
    parts[number] = encoded
    with pytest.raises(MalformedInput) as refusal:
        read_protobuf(join(parts))
    assert refusal.value.field == field
    if verdict is not None:
        assert reason_of(refusal.value) is verdict


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x00",
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x08" + b"\xff" * 9 + b"\x02",
        b"\x08" + b"\x80" * 11,
        b"\x0b\x0c",
        b"\x0e",
        b"\x98\x06\x01" * 5000,
        b"\x80" * 1_000_000,
    ],
)
def test_what_is_not_the_wire_format_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_protobuf(body)


def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedInput) as refusal:
        read_protobuf(bytes(MAX_BODY_BYTES + 1))
    assert reason_of(refusal.value) is Reason.TOO_LARGE


def test_every_cut_of_a_message_is_refused() -> None:
    body = write_protobuf(a_message(signature_type=EVM, prev=MessageRef(1, 1)))
    for size in range(len(body)):
        with pytest.raises(MalformedInput):
            read_protobuf(body[:size])


def test_array_forms_have_no_protobuf() -> None:
    with pytest.raises(MalformedInput, match="not on this wire"):
        write_protobuf(a_message(signature_type=SignatureType.ARRAY_ETH_LEGACY))


def test_both_eras_give_one_canonical_form() -> None:
    message = a_message(a_key(3), new_group_key=NewGroupKey("k", b"\x01"))
    by_array = read_legacy_array(write_legacy_array(message))
    by_protobuf = read_protobuf(write_protobuf(message))
    assert (
        make_record(by_array).canonical
        == make_record(by_protobuf).canonical
        == a_record(a_key(3), new_group_key=NewGroupKey("k", b"\x01")).canonical
    )
