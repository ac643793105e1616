"""Data items and bundles against what the JavaScript libraries produced, and against what they wrongly accept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import Any

import coincurve
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import paths
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec import ans104
from validator.protocol.codec.ans104 import DataItem, ItemSignature
from validator.protocol.codec.arweave_text import decode_base64url, encode_base64url
from validator.protocol.codec.secp256k1 import HALF_ORDER, SigningKey
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import Digest

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "ans104.json").read_text())
ORDER = 2 * HALF_ORDER + 1


def b64(text: str) -> bytes:
    return decode_base64url(text, "vector", max_bytes=1 << 24)


def named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda c: str(c["name"]))


def tags_of(case: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    count = case.get("count", case.get("tags_count"))
    if count is not None:
        return [(b"n%d" % i, b"v%d" % i) for i in range(int(count))]
    return [(tag["name"].encode(), tag["value"].encode()) for tag in case["tags"]]


def data_of(spec: dict[str, Any]) -> bytes:
    if "text" in spec:
        return str(spec["text"]).encode()
    if "bundle" in spec:
        return b64(next(b["raw_b64"] for b in VECTORS["bundles"] if b["name"] == spec["bundle"]))
    return bytes((i * spec["mul"] + spec["add"]) % spec["mod"] for i in range(spec["size"]))


@cache
def wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(VECTORS["keys"]["arweave"])


def sign(item: DataItem) -> bytes:
    message = ans104.compute_signed_message(item)
    if item.signature_type is ItemSignature.ARWEAVE:
        return wallet().sign(message)
    if item.signature_type in (ItemSignature.ED25519, ItemSignature.SOLANA_HEX):
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["keys"]["ed25519_seed_hex"])).sign(message)
    return SigningKey(bytes.fromhex(VECTORS["keys"]["ethereum"].removeprefix("0x"))).sign(Digest(message))


def owner_of(kind: ItemSignature) -> bytes:
    secret = bytes.fromhex(VECTORS["keys"]["ethereum"].removeprefix("0x"))
    if kind is ItemSignature.ARWEAVE:
        return wallet().owner
    if kind is ItemSignature.ETHEREUM:
        return coincurve.PrivateKey(secret).public_key.format(compressed=False)
    if kind is ItemSignature.ETHEREUM_TYPED:
        return f"0x{SigningKey(secret).address.hex()}".encode()
    seed = bytes.fromhex(VECTORS["keys"]["ed25519_seed_hex"])
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


@cache
def built_item(name: str) -> DataItem:
    case = next(c for c in VECTORS["items"] if c["name"] == name)
    kind = ItemSignature(case["signature_type"])
    item = DataItem(
        kind,
        owner_of(kind),
        ans104.encode_avro_tags(tags_of(case)),
        data_of(case["data"]),
        b64(case["target"]),
        case["anchor_ascii"].encode(),
    )
    return replace(item, signature=sign(item))


WRITTEN = [case for case in VECTORS["items"] if not case.get("verify_only")]


@named(VECTORS["avro_tags"])
def test_tags_are_written_and_read_like_avro(case: dict[str, Any]) -> None:
    tags = tags_of(case)
    assert ans104.encode_avro_tags(tags) == b64(case["avro_b64"])
    assert ans104.decode_avro_tags(b64(case["avro_b64"])) == tuple(tags)


@named(VECTORS["avro_decode_only"])
def test_tags_in_other_legal_forms_are_read(case: dict[str, Any]) -> None:
    assert ans104.decode_avro_tags(b64(case["avro_b64"])) == tuple(tags_of(case))


@named(WRITTEN)
def test_items_are_reproduced_byte_for_byte(case: dict[str, Any]) -> None:
    item = built_item(case["name"])
    raw = ans104.encode_data_item(item)
    assert ans104.compute_signature_data(item).hex() == case["signature_data"]
    assert item.signature == b64(case["signature"])
    assert encode_base64url(item.id) == case["id"]
    assert str(len(raw)) == str(case["size"])
    assert raw[: int(case["data_start"])] == b64(case["header_b64"])
    assert hashlib.sha256(raw).hexdigest() == case["sha256"]
    assert ans104.decode_data_item(raw) == item


@named([case for case in VECTORS["items"] if "alt_signature_max_salt" in case])
def test_an_rsa_signature_with_any_salt_is_taken(case: dict[str, Any]) -> None:
    other = replace(built_item(case["name"]), signature=b64(case["alt_signature_max_salt"]["signature"]))
    assert ans104.decode_data_item(ans104.encode_data_item(other)) == other


@named([case for case in VECTORS["items"] if case.get("verify_only")])
def test_an_item_with_tags_in_block_form_is_read(case: dict[str, Any]) -> None:
    item = ans104.decode_data_item(b64(case["raw_b64"]))
    assert item.tags == tuple(tags_of(case))
    assert encode_base64url(item.id) == case["id"]
    assert ans104.encode_data_item(item) == b64(case["raw_b64"])


@named(VECTORS["invalid_items"])
def test_each_broken_item_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput):
        ans104.decode_data_item(b64(case["raw_b64"]))


@named(VECTORS["bundles"])
def test_bundles_are_reproduced_and_read(case: dict[str, Any]) -> None:
    items = tuple(built_item(name) for name in case["items"])
    raw = ans104.encode_bundle(items)
    assert raw[: len(b64(case["header_b64"]))] == b64(case["header_b64"])
    assert str(len(raw)) == str(case["size"])
    assert hashlib.sha256(raw).hexdigest() == case["sha256"]
    assert ans104.decode_bundle(raw) == items
    for entry, item in zip(case["entries"], items, strict=True):
        start = int(entry["offset"])
        assert ans104.decode_data_item(raw[start : start + int(entry["size"])]) == item


@named(VECTORS["invalid_bundles"])
def test_each_broken_bundle_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput):
        ans104.decode_bundle(b64(case["raw_b64"]))


def test_every_truncation_of_an_item_or_bundle_is_refused() -> None:
    raw = ans104.encode_data_item(built_item("ethereum/target_anchor"))
    bundle = ans104.encode_bundle([built_item("ethereum/plain")])
    for end in range(len(raw)):
        with pytest.raises(MalformedInput):
            ans104.decode_data_item(raw[:end])
    for end in range(len(bundle)):
        with pytest.raises(MalformedInput):
            ans104.decode_bundle(bundle[:end])


def test_a_mirrored_signature_gives_no_second_id() -> None:
    item = built_item("ethereum/plain")
    s = ORDER - int.from_bytes(item.signature[32:64], "big")
    mirrored = item.signature[:32] + s.to_bytes(32, "big") + bytes([55 - item.signature[64]])
    with pytest.raises(MalformedInput, match="signature"):
        ans104.decode_data_item(ans104.encode_data_item(replace(item, signature=mirrored)))


def test_an_owner_in_another_form_gives_no_second_item() -> None:
    typed = built_item("typed_ethereum/plain")
    shouted = replace(typed, owner=typed.owner.upper().replace(b"0X", b"0x"))
    assert not ans104.is_item_signature_valid(shouted)
    key = built_item("ethereum/plain")
    hybrid = replace(key, owner=b"\x06" + key.owner[1:])
    assert not ans104.is_item_signature_valid(replace(hybrid, signature=sign(hybrid)))


@pytest.mark.parametrize(
    "data", [b"\x02", b"\xff" * 11, b"\x02\x01", b"\x01\x10", b"\x03\x02\x02a\x02b\x00", b"\xfe" * 9 + b"\x01"]
)
def test_tags_that_are_no_avro_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        ans104.decode_avro_tags(data)


def test_fields_of_wrong_length_are_never_written() -> None:
    item = built_item("ethereum/plain")
    for wrong in (replace(item, signature=b""), replace(item, target=b"x"), replace(item, owner=b"")):
        with pytest.raises(InvariantError):
            ans104.encode_data_item(wrong)
