"""The reader of data items refuses every second form that one item could have, and everything that breaks off."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests import paths
from tests.conformance.ans104 import Items, Signers
from validator.devnet.gateway import ans104
from validator.devnet.gateway.ans104 import DataItem
from validator.protocol.codec.secp256k1 import HALF_ORDER
from validator.protocol.errors import MalformedInput

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "ans104.json").read_text())
ORDER = 2 * HALF_ORDER + 1
ITEMS, SIGNERS = Items(VECTORS), Signers(VECTORS["keys"])


def item_bytes(name: str) -> bytes:
    return ITEMS.item_bytes(ITEMS.items[name])


def read_item(name: str) -> DataItem:
    return ans104.decode_data_item(item_bytes(name))


def test_every_truncation_of_an_item_or_bundle_is_refused() -> None:
    raw, bundle = item_bytes("ethereum/target_anchor"), ITEMS.bundle_bytes(ITEMS.bundles["one"])
    for end in range(len(raw)):
        with pytest.raises(MalformedInput):
            ans104.decode_data_item(raw[:end])
    for end in range(len(bundle)):
        with pytest.raises(MalformedInput):
            ans104.decode_bundle(bundle[:end])


def test_every_flipped_bit_of_an_item_or_bundle_is_refused() -> None:
    raw, bundle = item_bytes("ethereum/target_anchor"), ITEMS.bundle_bytes(ITEMS.bundles["one"])
    for place in range(len(raw)):
        with pytest.raises(MalformedInput):
            ans104.decode_data_item(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    for place in range(len(bundle)):
        with pytest.raises(MalformedInput):
            ans104.decode_bundle(bundle[:place] + bytes([bundle[place] ^ 128]) + bundle[place + 1 :])


def test_a_mirrored_signature_gives_no_second_id() -> None:
    raw, item = item_bytes("ethereum/plain"), read_item("ethereum/plain")
    s = ORDER - int.from_bytes(item.signature[32:64], "big")
    mirrored = item.signature[:32] + s.to_bytes(32, "big") + bytes([55 - item.signature[64]])
    with pytest.raises(MalformedInput, match="signature"):
        ans104.decode_data_item(raw[:2] + mirrored + raw[2 + len(mirrored) :])


def test_an_owner_in_another_form_gives_no_second_item() -> None:
    typed = read_item("typed_ethereum/plain")
    shouted = replace(typed, owner=typed.owner.upper().replace(b"0X", b"0x"))
    assert not ans104.is_item_signature_valid(shouted)
    key = read_item("ethereum/plain")
    hybrid = replace(key, owner=b"\x06" + key.owner[1:])
    assert not ans104.is_item_signature_valid(replace(hybrid, signature=SIGNERS.sign(hybrid)))


@pytest.mark.parametrize(
    "data", [b"\x02", b"\xff" * 11, b"\x02\x01", b"\x01\x10", b"\x03\x02\x02a\x02b\x00", b"\xfe" * 9 + b"\x01"]
)
def test_tags_that_are_no_avro_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        ans104.decode_avro_tags(data)
