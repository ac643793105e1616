from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import CHAIN_ID, GENESIS_MS, a_message
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.object_form import read_object
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.model import EncryptionType, Message, MessageRef, NewGroupKey, Reason, SignatureType

EVM = SignatureType.ECDSA_SECP256K1_EVM


def old_store_object(m: Message) -> dict[str, Any]:
    """The old Log Store's shape: metadata and parsed content."""
    encrypted = m.encryption_type is EncryptionType.AES
    key = m.new_group_key
    prev = m.prev
    return {
        "metadata": {
            "id": {
                "streamId": m.stream_id,
                "streamPartition": m.partition,
                "timestamp": m.timestamp_ms,
                "sequenceNumber": m.sequence_number,
                "publisherId": "0x" + m.publisher_id.hex(),
                "msgChainId": m.msg_chain_id,
            },
            "prevMsgRef": prev and {"timestamp": prev.timestamp_ms, "sequenceNumber": prev.sequence_number},
            "messageType": 27,
            "contentType": 0,
            "encryptionType": 2 if encrypted else 0,
            "groupKeyId": m.group_key_id,
            "newGroupKey": key and [key.id, key.data.hex()],
            "signature": "0x" + m.signature.hex(),
        },
        "content": m.content.hex() if encrypted else json.loads(m.content),
    }


def flat_object(m: Message) -> dict[str, Any]:
    """Streamr's later shape, with the two members that it really lacks."""
    prev, key = m.prev, m.new_group_key
    return {
        "streamId": m.stream_id,
        "streamPartition": m.partition,
        "timestamp": m.timestamp_ms,
        "sequenceNumber": m.sequence_number,
        "publisherId": "0x" + m.publisher_id.hex(),
        "msgChainId": m.msg_chain_id,
        "messageType": 0,
        "contentType": int(m.content_type),
        "encryptionType": int(m.encryption_type),
        "content": m.content.hex() if m.encryption_type is EncryptionType.AES else json.loads(m.content),
        "signatureType": int(m.signature_type),
        "signature": m.signature.hex(),
        "prevMsgRef": prev and {"timestamp": prev.timestamp_ms, "sequenceNumber": prev.sequence_number},
        "newGroupKey": key and [key.id, key.data.hex()],
    } | ({} if m.group_key_id is None else {"groupKeyId": m.group_key_id})


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


CASES: list[dict[str, Any]] = [
    {},
    {"prev": MessageRef(GENESIS_MS - 1, 2), "sequence_number": 3},
    {"content": '{"ü":[1,2.5,null]}'.encode()},
    {"encryption_type": EncryptionType.AES, "group_key_id": "k", "content": bytes(range(20))},
    {"group_key_id": "k", "new_group_key": NewGroupKey("n", b"\x01\x02")},
]


@pytest.mark.parametrize("fields", CASES)
def test_the_old_stores_object_is_verified_where_content_was_printed_as_signed(fields: dict[str, Any]) -> None:
    message = a_message(**fields)
    again = read_object(dump(old_store_object(message)))
    assert again == message
    assert verify_message(again) is VALID


@pytest.mark.parametrize("fields", CASES)
@pytest.mark.parametrize("kind", [EVM, SignatureType.ECDSA_SECP256K1_LEGACY])
def test_a_flat_object_that_carries_every_signed_field_is_verified(kind: SignatureType, fields: dict[str, Any]) -> None:
    message = a_message(signature_type=kind, **fields)
    again = read_object(dump(flat_object(message)))
    assert again == message
    assert verify_message(again) is VALID


@pytest.mark.parametrize("name", ["prevMsgRef", "newGroupKey"])
@pytest.mark.parametrize("shape", [old_store_object, flat_object])
def test_what_lacks_is_named_and_never_guessed(name: str, shape: Any) -> None:
    value = shape(a_message(signature_type=SignatureType.ECDSA_SECP256K1_LEGACY))
    value.get("metadata", value).pop(name)
    with pytest.raises(MalformedInput, match="cannot be verified") as refusal:
        read_object(dump(value))
    assert refusal.value.field == name


def test_content_printed_anew_fails_the_signature_and_nothing_else() -> None:
    message = a_message(content=b'{"a": 1.0}')
    assert verify_message(read_object(dump(old_store_object(message)))) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("name", "value", "field", "verdict"),
    [
        ("messageType", 28, "messageType", Reason.UNSUPPORTED_MESSAGE_TYPE),
        ("messageType", "0", "messageType", Reason.MALFORMED),
        ("signatureType", 9, "signatureType", Reason.UNKNOWN_SIGNATURE_TYPE),
        ("signatureType", 32, "signatureType", Reason.UNKNOWN_SIGNATURE_TYPE),
        ("contentType", 2, "contentType", Reason.MALFORMED),
        ("encryptionType", 2, "encryptionType", Reason.MALFORMED),
        ("encryptionType", 1, "content", Reason.MALFORMED),
        ("streamPartition", 100, "partition", Reason.PARTITION_OUT_OF_RANGE),
        ("timestamp", 1.5, "timestamp", Reason.MALFORMED),
        ("publisherId", "zz", "publisherId", Reason.MALFORMED),
        ("publisherId", "0x00", "publisher_id", Reason.MALFORMED),
        ("signature", None, "signature", Reason.MALFORMED),
        ("prevMsgRef", {"timestamp": 1}, "prevMsgRef", Reason.MALFORMED),
        ("prevMsgRef", [1, 2], "prevMsgRef", Reason.MALFORMED),
        ("newGroupKey", {"id": "k"}, "newGroupKey", Reason.MALFORMED),
        ("newGroupKey", ["k", "x"], "newGroupKey", Reason.MALFORMED),
        ("msgChainId", None, "msgChainId", Reason.MALFORMED),
        ("groupKeyId", 5, "groupKeyId", Reason.MALFORMED),
    ],
)
def test_a_wrong_member_is_named(name: str, value: object, field: str, verdict: Reason) -> None:
    with pytest.raises(MalformedInput) as refusal:
        read_object(dump(flat_object(a_message(signature_type=EVM)) | {name: value}))
    assert refusal.value.field == field
    assert reason_of(refusal.value) is verdict


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b'{"metadata":5}', b'{"metadata":{}}', b'{"a":', b"\xff", b'{"a":' * 100_000, b"5"],
)
def test_other_bytes_are_refused_without_a_crash(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        read_object(data)


def test_members_cannot_smuggle_elements_into_the_array() -> None:
    message = a_message()
    value = old_store_object(message)
    value["metadata"]["signature"] = ["x"]
    value["metadata"]["groupKeyId"] = {"a": CHAIN_ID}
    with pytest.raises(MalformedInput):
        read_object(dump(value))
