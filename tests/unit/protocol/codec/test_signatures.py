from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from tests.builders import a_key, a_message, a_p256_message, a_record, an_ml_dsa_message
from validator.protocol.codec.message import make_record
from validator.protocol.codec.payload import digest_of_payload, signature_payload
from validator.protocol.codec.secp256k1 import CURVE_ORDER, recover_address
from validator.protocol.codec.signatures import (
    VALID,
    Verdict,
    publish_message,
    resolve_erc1271,
    sign_message,
    verify_batch,
    verify_message,
    verify_together,
)
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageType,
    NewGroupKey,
    Reason,
    SignatureType,
)

BAD = Reason.BAD_SIGNATURE
RECOVERED = [
    SignatureType.ECDSA_SECP256K1_LEGACY,
    SignatureType.ECDSA_SECP256K1_EVM,
    SignatureType.ARRAY_ETH,
    SignatureType.ARRAY_ETH_LEGACY,
]


@cache
def the_others() -> list[Message]:
    return [a_message(content=b'{"i":%d}' % i) for i in range(70)]


def every_verdict(message: Message) -> set[Verdict]:
    """What each way of asking says of one message, alone and amid others, as message and as record."""
    others = the_others()
    verdicts = {
        verify_message(message),
        verify_batch([*others, message, *others], threads=1)[70],
        verify_batch([*others, message, *others], threads=2)[70],
        verify_together([*others, message, *others, *others], {})[70],
    }
    try:
        record = make_record(message)
    except MalformedInput:
        return verdicts
    records = [make_record(other) for other in others]
    return verdicts | {
        verify_batch([record])[0],
        verify_batch([*records, record, *records], threads=2)[70],
        verify_message(record.message),
    }


def altered(change: str) -> Message:
    good = a_message()
    r, s, v = good.signature[:32], good.signature[32:64], good.signature[64:]
    low = int.from_bytes(s, "big")
    zero, order = bytes(32), CURVE_ORDER.to_bytes(32, "big")
    beyond, largest = (CURVE_ORDER + 1).to_bytes(32, "big"), b"\xff" * 32
    other_v = bytes([55 - v[0]])
    signatures = {
        "flipped v": r + s + other_v,
        "high s, v kept": r + (CURVE_ORDER - low).to_bytes(32, "big") + v,
        "v 0 or 1": r + s + bytes([v[0] - 27]),
        "v 29 or 30": r + s + bytes([v[0] + 2]),
        "v 37 or 38": r + s + bytes([v[0] + 10]),
        "v 255": r + s + b"\xff",
        "r zero": zero + s + v,
        "s zero": r + zero + v,
        "both zero": zero + zero + v,
        "r the order": order + s + v,
        "s the order": r + order + v,
        "r beyond the order": beyond + s + v,
        "s beyond the order": r + beyond + v,
        "r largest": largest + s + v,
        "s largest": r + largest + v,
        "r and s exchanged": s + r + v,
        "a byte short": good.signature[:64],
        "a byte long": good.signature + b"\0",
        "one byte": b"\x1b",
        "one bit of r": bytes([r[0] ^ 1]) + r[1:] + s + v,
        "one bit of s": r + s[:-1] + bytes([s[-1] ^ 1]) + v,
        "of another message": a_message(content=b"{}").signature,
        "of another key": sign_message(a_key(2), good).signature,
    }
    return replace(good, signature=signatures[change])


@pytest.mark.parametrize(
    "change",
    [
        "flipped v",
        "high s, v kept",
        "v 0 or 1",
        "v 29 or 30",
        "v 37 or 38",
        "v 255",
        "r zero",
        "s zero",
        "both zero",
        "r the order",
        "s the order",
        "r beyond the order",
        "s beyond the order",
        "r largest",
        "s largest",
        "r and s exchanged",
        "a byte short",
        "a byte long",
        "one byte",
        "one bit of r",
        "one bit of s",
        "of another message",
        "of another key",
    ],
)
def test_every_path_refuses_an_altered_signature(change: str) -> None:
    assert every_verdict(altered(change)) == {BAD}


@pytest.mark.parametrize("kind", RECOVERED)
def test_every_path_accepts_the_publishers_signature_and_its_twin(kind: SignatureType) -> None:
    message = a_message(signature_type=kind, content=b"\xef\xbb\xbf{}" if kind is SignatureType.ARRAY_ETH else b"{}")
    s = CURVE_ORDER - int.from_bytes(message.signature[32:64], "big")
    twin = message.signature[:32] + s.to_bytes(32, "big") + bytes([55 - message.signature[64]])
    assert every_verdict(message) == {VALID}
    assert every_verdict(replace(message, signature=twin)) == {VALID}


@pytest.mark.parametrize("kind", [*RECOVERED, SignatureType.ERC_1271])
def test_a_message_without_signature_is_unsigned(kind: SignatureType) -> None:
    assert every_verdict(replace(a_message(signature_type=kind), signature=b"")) == {Reason.UNSIGNED}


def test_the_other_schemes_are_unsigned_without_signature_too() -> None:
    assert every_verdict(replace(a_p256_message(), signature=b"")) == {Reason.UNSIGNED}
    assert every_verdict(replace(an_ml_dsa_message(), signature=b"")) == {Reason.UNSIGNED}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream_id", "other.eth/x"),
        ("partition", 1),
        ("timestamp_ms", 1),
        ("sequence_number", 1),
        ("publisher_id", a_key(2).address),
        ("msg_chain_id", "other"),
        ("content", b'{"temperature":21.6,"unit":"C"}'),
        ("new_group_key", NewGroupKey("", b"")),
    ],
)
@pytest.mark.parametrize("kind", [SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ECDSA_SECP256K1_EVM])
def test_every_signed_field_is_covered(kind: SignatureType, field: str, value: Any) -> None:
    changed = replace(a_message(signature_type=kind), **{field: value})
    if kind is SignatureType.ECDSA_SECP256K1_EVM and field == "new_group_key":
        assert every_verdict(changed) == {VALID}  # empty id and data add no bytes: a variant, not a forgery
    else:
        assert every_verdict(changed) == {BAD}


def test_recovery_says_the_same_one_by_one() -> None:
    messages = [a_message(a_key(1 + i % 3), content=b'{"i":%d}' % i) for i in range(6)]
    messages += [altered("flipped v"), altered("r zero"), altered("high s, v kept")]
    for message, verdict in zip(messages, verify_batch(messages), strict=True):
        digest = digest_of_payload(message.signature_type, signature_payload(message))
        try:
            recovered = recover_address(digest, message.signature) == message.publisher_id
        except MalformedInput:
            recovered = False
        assert (verdict is VALID) == recovered


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_verdicts_come_in_the_order_of_the_messages(threads: int) -> None:
    records = [a_record(content=b'{"i":%d}' % i) for i in range(200)]
    forged = {3, 63, 64, 128, 199}
    batch = [
        replace(r, message=replace(r.message, publisher_id=a_key(2).address)) if i in forged else r
        for i, r in enumerate(records)
    ]
    verdicts = verify_batch(batch, threads=threads)
    assert {i for i, verdict in enumerate(verdicts) if verdict is not VALID} == forged


def test_an_empty_batch_has_no_verdicts() -> None:
    assert verify_batch([], threads=4) == []


def test_a_contract_signature_waits_for_the_contract() -> None:
    message = a_message(signature_type=SignatureType.ERC_1271, publisher_id=b"\x11" * 20)
    assert every_verdict(message) == {Reason.ERC1271_UNKNOWN}
    assert resolve_erc1271(message, None) is Reason.ERC1271_UNKNOWN
    assert resolve_erc1271(message, is_valid=True) is VALID
    assert resolve_erc1271(message, is_valid=False) is BAD


def test_the_contract_is_not_asked_about_a_signature_without_signer() -> None:
    message = a_message(signature_type=SignatureType.ERC_1271)
    for signature in (bytes(65), message.signature[:64], message.signature[:64] + b"\0", bytes(200)):
        assert every_verdict(replace(message, signature=signature)) == {BAD}
        assert resolve_erc1271(replace(message, signature=signature), is_valid=True) is BAD


def test_a_contracts_answer_changes_nothing_for_other_types() -> None:
    assert resolve_erc1271(altered("flipped v"), is_valid=True) is BAD
    assert resolve_erc1271(a_message(), is_valid=False) is VALID


@pytest.mark.parametrize("compressed", [True, False])
def test_p256_covers_every_byte(compressed: bool) -> None:
    message = a_p256_message(compressed=compressed)
    assert every_verdict(message) == {VALID}
    assert every_verdict(replace(message, content=b"{}")) == {BAD}
    assert every_verdict(replace(message, publisher_id=a_p256_message(2, compressed=compressed).publisher_id)) == {BAD}


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(63), bytes(65), b"\x30\x44" + bytes(68)])
def test_odd_p256_signatures_are_bad(signature: bytes) -> None:
    assert every_verdict(replace(a_p256_message(), signature=signature)) == {BAD}


@pytest.mark.parametrize(
    "key", [bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(64), b"\x06" + bytes(64), b"\x05" + bytes(32), b"\x00"]
)
def test_what_is_no_p256_point_is_bad(key: bytes) -> None:
    assert verify_message(replace(a_p256_message(), publisher_id=key)) is BAD


def test_hybrid_p256_points_are_bad_though_openssl_reads_them() -> None:
    message = a_p256_message(compressed=False)
    hybrid = bytes([6 + (message.publisher_id[-1] & 1)]) + message.publisher_id[1:]
    assert verify_message(a_p256_message(publisher_id=hybrid)) is BAD


def test_ml_dsa_covers_every_byte() -> None:
    message = an_ml_dsa_message()
    assert every_verdict(message) == {VALID}
    assert every_verdict(replace(message, content=b"{}")) == {BAD}
    assert every_verdict(replace(message, signature=message.signature[:-1])) == {BAD}
    assert every_verdict(replace(message, publisher_id=bytes(2592))) == {BAD}


def test_a_key_exchange_is_judged_by_its_members() -> None:
    body = b"\x0a\x01r\x12\x01a\x1a\x01p\x22\x01k"
    message = a_message(
        signature_type=SignatureType.ECDSA_SECP256K1_EVM,
        message_type=MessageType.GROUP_KEY_REQUEST,
        content_type=ContentType.BINARY,
        content=body,
    )
    assert signature_payload(message).endswith(b"rapk")
    assert every_verdict(message) == {VALID}
    assert verify_message(replace(message, content=b"\x0a\xff")) is Reason.MALFORMED


def test_what_is_not_signed_may_change_without_notice() -> None:
    message = a_message(signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    changed = replace(message, encryption_type=EncryptionType.AES, group_key_id="any", content_type=ContentType.BINARY)
    assert every_verdict(changed) == {VALID}
    assert make_record(changed).identity == make_record(message).identity
    assert make_record(changed).leaf != make_record(message).leaf


@pytest.mark.parametrize("kind", [SignatureType.ECDSA_SECP256R1, SignatureType.ML_DSA_87])
def test_a_key_signs_only_what_it_can(kind: SignatureType) -> None:
    with pytest.raises(ValueError, match=kind.name):
        publish_message(a_key(), stream_id="a", timestamp_ms=0, content=b"{}", signature_type=kind)
