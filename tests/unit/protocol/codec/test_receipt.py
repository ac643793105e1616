"""Receipts: form, signature, and that anything else is not charged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from tests import paths
from validator.protocol.codec.receipt import (
    Receipt,
    parse_receipt,
    receipt_digest,
    receipt_of,
    sign_receipt,
    verify_receipt,
    write_receipt,
)
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address, ContentType, EncryptionType

VECTORS = json.loads((paths.VECTORS / "receipt.json").read_text())["cases"]
CONSUMER = SigningKey(b"\x11" * 32)
BROKER = SigningKey(b"\x12" * 32)
QUERY_MANAGER = Address(b"\x33" * 20)
SYSTEM = "0x" + "44" * 20 + "/system"


def hexed(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def a_receipt(cumulative_bytes: int = 1000, max_price: int = 5) -> Receipt:
    return sign_receipt(
        CONSUMER, BROKER.address, 3, cumulative_bytes, max_price, chain_id=31337, query_manager=QUERY_MANAGER
    )


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: c["cumulative_bytes"])
def test_digest_signature_and_content_equal_those_of_another_implementation(case: dict[str, Any]) -> None:
    key = SigningKey(hexed(case["secret"]))
    manager = Address(hexed(case["query_manager"]))
    broker = Address(hexed(case["broker"]))
    receipt = sign_receipt(
        key,
        broker,
        int(case["epoch"]),
        int(case["cumulative_bytes"]),
        int(case["max_price"]),
        chain_id=case["chain_id"],
        query_manager=manager,
    )
    assert receipt_digest(receipt, case["chain_id"], manager) == hexed(case["digest"])
    assert receipt.signature == hexed(case["signature"])
    assert write_receipt(receipt) == case["content"].encode()
    assert parse_receipt(case["content"].encode(), broker) == receipt
    assert verify_receipt(receipt, case["chain_id"], manager)


def test_white_space_of_json_between_elements_changes_nothing() -> None:
    spaced = json.dumps(json.loads(write_receipt(a_receipt())), indent=2).encode()
    assert parse_receipt(spaced, BROKER.address) == a_receipt()


def other_forms() -> list[bytes]:
    good: list[Any] = json.loads(write_receipt(a_receipt()))
    changed = [
        [1, *good[1:]],
        [2, 7, *good[2:]],
        [*good, "more"],
        good[:-1],
        [2, 8, good[2].upper().replace("0X", "0x"), *good[3:]],
        [2, 8, good[2][2:], *good[3:]],
        [2, 8, good[2], 3, *good[4:]],
        [2, 8, good[2], "03", *good[4:]],
        [2, 8, good[2], good[3], "-1", *good[5:]],
        [2, 8, good[2], good[3], "1e3", *good[5:]],
        [2, 8, good[2], str(1 << 63), *good[4:]],
        [2, 8, good[2], good[3], str(1 << 63), *good[5:]],
        [2, 8, good[2], *good[4:]],
        [2, 8, good[2], good[3], "1000", str(1 << 96), good[6]],
        [2, 8, good[2], good[3], "1000", "", good[6]],
        [*good[:6], good[6] + "00"],
        [*good[:6], good[6][:-2]],
        [*good[:6], None],
        {"receipt": good},
        json.dumps(good),
    ]
    forms = [json.dumps(form, separators=(",", ":")).encode() for form in changed]
    text = write_receipt(a_receipt())
    escaped = text.replace(b'"0x', b'"\\u0030x', 1)
    return [
        *forms,
        escaped,
        text + b"x",
        b"",
        b"[2,8",
        text.replace(b"2,8", b"2.0,8"),
        b" " * 1024 + text,
        b"\xff" + text,
    ]


@pytest.mark.parametrize("content", other_forms())
def test_any_other_form_is_no_receipt(content: bytes) -> None:
    assert parse_receipt(content, BROKER.address) is None


def test_a_signature_counts_for_one_broker_one_chain_one_contract_and_these_numbers_only() -> None:
    receipt = a_receipt()
    assert verify_receipt(receipt, 31337, QUERY_MANAGER)
    assert not verify_receipt(receipt, 31338, QUERY_MANAGER)
    assert not verify_receipt(receipt, 31337, Address(b"\x34" * 20))
    assert not verify_receipt(replace(receipt, broker=CONSUMER.address), 31337, QUERY_MANAGER)
    assert not verify_receipt(replace(receipt, epoch=4), 31337, QUERY_MANAGER)
    assert not verify_receipt(replace(receipt, cumulative_bytes=1001), 31337, QUERY_MANAGER)
    assert not verify_receipt(replace(receipt, max_price=6), 31337, QUERY_MANAGER)
    assert not verify_receipt(replace(receipt, consumer=BROKER.address), 31337, QUERY_MANAGER)
    assert not verify_receipt(replace(receipt, signature=bytes(65)), 31337, QUERY_MANAGER)


def test_only_a_plain_json_message_carries_a_receipt() -> None:
    message = publish_message(
        BROKER, stream_id=SYSTEM, timestamp_ms=1, content=write_receipt(a_receipt()), msg_chain_id="a" * 20
    )
    assert receipt_of(message, 31337, QUERY_MANAGER) == a_receipt()
    assert receipt_of(structs.replace(message, encryption_type=EncryptionType.AES), 31337, QUERY_MANAGER) is None
    assert receipt_of(structs.replace(message, content_type=ContentType.BINARY), 31337, QUERY_MANAGER) is None
    assert receipt_of(structs.replace(message, publisher_id=CONSUMER.address), 31337, QUERY_MANAGER) is None
    assert receipt_of(structs.replace(message, publisher_id=b"\x02" + bytes(32)), 31337, QUERY_MANAGER) is None
    assert receipt_of(structs.replace(message, content=b"[]"), 31337, QUERY_MANAGER) is None


def test_numbers_out_of_range_are_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        Receipt(CONSUMER.address, BROKER.address, 0, 1 << 63, 0)
    with pytest.raises(InvariantError):
        Receipt(CONSUMER.address, BROKER.address, 1 << 63, 0, 0)
    with pytest.raises(InvariantError):
        Receipt(CONSUMER.address, BROKER.address, 0, 0, 1 << 96)
