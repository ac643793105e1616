from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import cbor2
import pytest
from msgspec.structs import asdict, replace

from tests import paths
from tests.builders import CHAIN_ID, GENESIS_MS, a_key, a_message, a_p256_message, a_record, an_ml_dsa_message
from tests.conformance.__main__ import main as run_conformance
from validator.protocol.codec import cbor
from validator.protocol.codec.conversion import normalise_stream_id
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES, MAX_CONTENT_BYTES, MAX_NEW_KEY_BYTES
from validator.protocol.codec.message import (
    decode_message,
    encode_message,
    leaf_of_canonical,
    make_record,
    record_from_canonical,
)
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.payload import SECP256R1_N, normalise_signature, signature_payload, signed_digest
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    Record,
    SignatureType,
)

VECTORS = paths.VECTORS
EVM = SignatureType.ECDSA_SECP256K1_EVM


def fields_of(message: Message) -> list[Any]:
    value = cbor2.loads(encode_message(message))
    assert isinstance(value, list)
    return value


def canonical_with(position: int, value: object) -> bytes:
    """Canonical bytes of a valid message in which one element is replaced; 0 is the kind."""
    fields = fields_of(a_message(prev=MessageRef(GENESIS_MS - 1, 0)))
    fields[position] = value
    return cbor2.dumps(fields)


def test_every_streamr_vector_agrees() -> None:
    assert run_conformance(["streamr", str(VECTORS / "streamr.jsonl")]) == 0


@pytest.mark.parametrize(
    ("subject", "name"), [("canonical", "canonical.json"), ("canonical", "merkle.json"), ("leaves", "leaves.json")]
)
def test_our_published_vectors_still_hold(subject: str, name: str) -> None:
    assert run_conformance([subject, str(VECTORS / name)]) == 0


def test_a_changed_leaf_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = json.loads((VECTORS / "leaves.json").read_text())
    changed = [
        vectors["messages"][0],
        vectors["windows"][1],
        vectors["windows"][2]["entries"][0],
        vectors["bundles"][0],
    ]
    for vector in changed:
        name = "root" if "root" in vector and "config_digest" in vector else "leaf"
        vector[name] = "00" + vector[name][2:]
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(vectors))
    assert run_conformance(["leaves", str(forged)]) == 1
    said = capsys.readouterr().out
    assert said.count(": leaf differs") == 2
    assert "leaf of (" in said
    assert ": root differs" in said


def test_a_changed_vector_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (VECTORS / "streamr.jsonl").read_text().split("\n")[0]
    forged = tmp_path / "forged.jsonl"
    forged.write_text(text.replace("temperature", "temperaturf") + "\n")
    assert run_conformance(["streamr", str(forged)]) == 1
    assert "0 of 1 agree" in capsys.readouterr().out


def test_an_empty_file_of_vectors_does_not_count_as_agreement(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert run_conformance(["streamr", str(tmp_path / "empty")]) == 1


def test_the_encoding_is_what_the_general_encoder_writes() -> None:
    for message in (
        a_message(),
        a_message(signature_type=EVM, content=bytes(70_000), content_type=ContentType.BINARY),
        a_message(
            encryption_type=EncryptionType.AES,
            group_key_id="g" * 24,
            new_group_key=NewGroupKey("n", bytes(300)),
            content=b"\x00",
        ),
        a_message(sequence_number=70_000, prev=MessageRef(300, 256), timestamp_ms=65_536),
        a_p256_message(compressed=False),
        an_ml_dsa_message(),
    ):
        canonical = encode_message(message)
        assert canonical == cbor.encode(cbor.decode(canonical, max_bytes=MAX_CANONICAL_BYTES))
        assert decode_message(canonical) == message


def test_a_record_holds_what_is_computed_from_the_message() -> None:
    record = a_record()
    payload = signature_payload(record.message)
    assert record.leaf == leaf_of_canonical(record.canonical)
    assert record.signed_digest == keccak256(b"\x19Ethereum Signed Message:\n%d" % len(payload) + payload)
    assert record.signed_bytes == len(payload)
    assert record_from_canonical(record.canonical) == record


def test_a_message_that_was_read_is_like_any_other() -> None:
    made = a_message(prev=MessageRef(1, 1))
    record = make_record(made)
    read = record_from_canonical(record.canonical)
    assert (type(read), type(read.message)) == (Record, Message)
    assert (read, hash(read), repr(read)) == (record, hash(record), repr(record))
    assert read.message == Message(**asdict(made))
    assert pickle.loads(pickle.dumps(read)) == copy.deepcopy(read) == replace(read) == record
    for frozen, name in ((read, "leaf"), (read.message, "content")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(frozen, name, b"")


def test_the_payload_has_no_separators_and_counts_bytes() -> None:
    message = a_message(
        stream_id="ä.eth/x", partition=7, sequence_number=2, prev=MessageRef(5, 6), content="ü".encode()
    )
    address = "0x" + a_key().address.hex()
    expected = f"ä.eth/x7{GENESIS_MS}2{address}{CHAIN_ID}56ü".encode()
    assert signature_payload(message) == expected
    assert make_record(message).signed_bytes == len(expected)


def test_high_s_is_normalised_with_v_and_stays_valid() -> None:
    low = a_message()
    high = replace(low, signature=twin_of(low.signature))
    assert verify_message(high) is VALID
    assert make_record(high) == make_record(low)
    with pytest.raises(MalformedInput, match="s is not low"):
        encode_message(high)


@pytest.mark.parametrize("kind", [SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY, EVM])
def test_every_own_curve_type_is_normalised(kind: SignatureType) -> None:
    signature = a_message().signature
    assert normalise_signature(kind, twin_of(signature)) == signature


def test_contract_signatures_are_never_touched() -> None:
    high = twin_of(a_message().signature)
    assert normalise_signature(SignatureType.ERC_1271, high) is high
    message = replace(a_message(signature_type=SignatureType.ERC_1271), signature=high)
    assert decode_message(make_record(message).canonical).signature == high


def test_p256_is_normalised_and_stays_valid() -> None:
    message = a_p256_message()
    s = int.from_bytes(message.signature[32:], "big")
    twin = replace(message, signature=message.signature[:32] + (SECP256R1_N - s).to_bytes(32, "big"))
    assert verify_message(twin) is VALID
    assert make_record(twin) == make_record(message)


@pytest.mark.parametrize("s", [CURVE_ORDER, CURVE_ORDER + 1, 2**256 - 1])
def test_s_beyond_the_order_is_left_to_the_verdict(s: int) -> None:
    signature = a_message().signature
    odd = signature[:32] + s.to_bytes(32, "big") + signature[64:]
    assert normalise_signature(EVM, odd) is odd
    message = replace(a_message(), signature=odd)
    assert verify_message(make_record(message).message) is Reason.BAD_SIGNATURE


def test_signed_digest_of_p256_is_sha256_of_the_payload() -> None:
    message = a_p256_message()
    assert signed_digest(message) == hashlib.sha256(signature_payload(message)).digest()


@pytest.mark.parametrize(
    ("field", "changes", "verdict"),
    [
        ("stream_id", {"stream_id": ""}, Reason.MALFORMED),
        ("stream_id", {"stream_id": "ä" * 129}, Reason.TOO_LARGE),
        ("stream_id", {"stream_id": "\ud800"}, Reason.MALFORMED),
        ("msg_chain_id", {"msg_chain_id": "c" * 257}, Reason.TOO_LARGE),
        ("group_key_id", {"group_key_id": "k" * 257}, Reason.TOO_LARGE),
        ("group_key_id", {"encryption_type": EncryptionType.AES}, Reason.MALFORMED),
        ("partition", {"partition": 100}, Reason.PARTITION_OUT_OF_RANGE),
        ("partition", {"partition": -1}, Reason.PARTITION_OUT_OF_RANGE),
        ("timestamp", {"timestamp_ms": 2**53}, Reason.MALFORMED),
        ("timestamp", {"timestamp_ms": -1}, Reason.MALFORMED),
        ("sequence_number", {"sequence_number": 2**31}, Reason.MALFORMED),
        ("sequence_number", {"sequence_number": -1}, Reason.MALFORMED),
        ("prev", {"prev": MessageRef(GENESIS_MS, 0)}, Reason.MALFORMED),
        ("prev", {"prev": MessageRef(GENESIS_MS + 1, 0)}, Reason.MALFORMED),
        ("prev", {"prev": MessageRef(-1, 0)}, Reason.MALFORMED),
        ("prev", {"prev": MessageRef(0, 2**31)}, Reason.MALFORMED),
        ("publisher_id", {"publisher_id": bytes(21)}, Reason.MALFORMED),
        ("content", {"content": bytes(MAX_CONTENT_BYTES + 1), "signature_type": EVM}, Reason.TOO_LARGE),
        (
            "content",
            {"content": bytes(MAX_CONTENT_BYTES // 2 + 1), "encryption_type": EncryptionType.AES, "group_key_id": "k"},
            Reason.TOO_LARGE,
        ),
        ("content", {"content": b"\xef\xbb\xbf{}"}, Reason.MALFORMED),
        ("content", {"content": b"\xff"}, Reason.MALFORMED),
        ("signature", {"signature": bytes(4628)}, Reason.TOO_LARGE),
        ("new_group_key", {"new_group_key": NewGroupKey("k", bytes(MAX_NEW_KEY_BYTES + 1))}, Reason.TOO_LARGE),
        ("new_group_key.id", {"new_group_key": NewGroupKey("k" * 257, b"")}, Reason.TOO_LARGE),
        ("message_type", {"message_type": MessageType.GROUP_KEY_REQUEST}, Reason.UNSUPPORTED_MESSAGE_TYPE),
        ("signature_type", {"signature_type": SignatureType.ARRAY_ETH}, Reason.MALFORMED),
        (
            "new_group_key.id",
            {"signature_type": SignatureType.ARRAY_ETH, "new_group_key": NewGroupKey("k", b'["k" ,""]')},
            Reason.MALFORMED,
        ),
        (
            "new_group_key",
            {"signature_type": SignatureType.ARRAY_ETH, "new_group_key": NewGroupKey("", b"[]")},
            Reason.MALFORMED,
        ),
        ("stream_id", {"signature_type": SignatureType.ARRAY_ETH_LEGACY, "stream_id": "A.eth/x"}, Reason.MALFORMED),
        ("content", {"signature_type": SignatureType.ARRAY_ETH, "content": b""}, Reason.MALFORMED),
        (
            "content_type",
            {"signature_type": SignatureType.ARRAY_ETH, "content_type": ContentType.BINARY},
            Reason.MALFORMED,
        ),
        (
            "content",
            {
                "signature_type": EVM,
                "message_type": MessageType.GROUP_KEY_REQUEST,
                "content_type": ContentType.BINARY,
                "content": b"\x0a\x00",
            },
            Reason.MALFORMED,
        ),
    ],
)
def test_a_field_out_of_range_is_named(field: str, changes: dict[str, Any], verdict: Reason) -> None:
    message = replace(a_message(), **changes)
    for act in (encode_message, make_record):
        with pytest.raises(MalformedInput) as refusal:
            act(message)
        assert refusal.value.field == field
        assert reason_of(refusal.value) is verdict


@pytest.mark.parametrize(
    ("position", "value", "field"),
    [
        (0, "message/2", "message/1"),
        (1, b"stream", "stream_id"),
        (2, True, "partition"),
        (3, "1", "timestamp"),
        (4, -1, "sequence_number"),
        (5, "0x00", "publisher_id"),
        (6, None, "msg_chain_id"),
        (7, [1], "prev"),
        (7, [1, "2"], "prev"),
        (7, 5, "prev"),
        (8, 3, "message_type"),
        (9, 2, "content_type"),
        (10, 2, "encryption_type"),
        (11, 1, "group_key_id"),
        (12, ["k"], "new_group_key"),
        (12, ["k", "text"], "new_group_key"),
        (13, "text", "content"),
        (14, 5, "signature_type"),
        (14, 33, "signature_type"),
        (15, None, "signature"),
    ],
)
def test_the_decoder_names_the_field_of_a_wrong_type(position: int, value: object, field: str) -> None:
    with pytest.raises(MalformedInput) as refusal:
        decode_message(canonical_with(position, value))
    assert refusal.value.field == field


def test_the_decoder_refuses_other_encodings_of_the_same_message() -> None:
    canonical = encode_message(a_message())
    timestamp = canonical.index(b"\x1b" + GENESIS_MS.to_bytes(8, "big"))
    others = [
        canonical + b"\x00",
        canonical[:-1],
        b"\x98\x10" + canonical[1:],
        b"\x9f" + canonical[1:] + b"\xff",
        canonical[: timestamp - 1] + b"\x18\x00" + canonical[timestamp:],
        b"\xd9\xd9\xf7" + canonical,
        b"",
        b"\x82" * 500_000,
    ]
    for other in others:
        with pytest.raises(MalformedInput):
            decode_message(other)


def test_deep_nesting_inside_a_pair_is_refused_not_followed() -> None:
    canonical = encode_message(a_message())
    at = canonical.index(CHAIN_ID.encode()) + len(CHAIN_ID)
    for nest in (b"\x82\x00" * 200_000, b"\x82" * 200_000, b"\x81" * 200_000):
        with pytest.raises(MalformedInput):
            decode_message(canonical[:at] + nest + canonical[at + 1 :])


def test_the_largest_messages_stay_within_the_published_bounds() -> None:
    key_text = NewGroupKey("\x01" * 256, bytes(MAX_NEW_KEY_BYTES))
    wide: dict[str, Any] = {
        "stream_id": "s" * 256,
        "partition": 99,
        "timestamp_ms": 2**53 - 1,
        "sequence_number": 2**31 - 1,
        "msg_chain_id": "c" * 256,
        "prev": MessageRef(2**53 - 2, 2**31 - 1),
        "group_key_id": "g" * 256,
    }
    largest = [
        an_ml_dsa_message(
            **wide, content=bytes(MAX_CONTENT_BYTES), new_group_key=NewGroupKey("k" * 256, key_text.data)
        ),
        a_message(
            **wide,
            content=bytes(MAX_CONTENT_BYTES // 2),
            encryption_type=EncryptionType.AES,
            new_group_key=key_text,
        ),
        a_message(**wide, content=b"x" * MAX_CONTENT_BYTES, new_group_key=key_text),
    ]
    for message in largest:
        record = make_record(message)
        assert record.signed_bytes <= MAX_CONTENT_BYTES + (16 << 10)
        assert len(record.canonical) <= MAX_CANONICAL_BYTES
        assert record_from_canonical(record.canonical) == record


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A.ETH/X", "a.eth/X"),
        ("sub.X.eth//y", "sub.x.eth//y"),
        ("0x" + "AB" * 20 + "/P/q", "0x" + "ab" * 20 + "/P/q"),
        ("ABC", "ABC"),
    ],
)
def test_only_the_domain_of_a_stream_id_is_lower_cased(text: str, normal: str) -> None:
    assert normalise_stream_id(text) == normal


@pytest.mark.parametrize("text", [".eth/x", "a/b", "0X" + "ab" * 20 + "/p", "/p", "", "0x" + "ab" * 20 + "\n/p"])
def test_a_stream_id_without_a_good_domain_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="stream_id"):
        normalise_stream_id(text)


def twin_of(signature: bytes) -> bytes:
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
