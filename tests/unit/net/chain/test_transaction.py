"""Transactions as bytes, by the word of a wallet library that shares no code with ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_key
from tests.wallet import Account
from validator.net.chain.transaction import Transaction, parse_raw
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.errors import InvariantError
from validator.protocol.hashing import keccak256

KEY = a_key(700)
SOME = Transaction(137, 5, 30 * 10**9, 90 * 10**9, 21_000, a_key(1).address, 10**18, b"\x01\x02")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": 0, "value": 0, "data": b""},
        {"nonce": 127},
        {"nonce": 128},
        {"data": b"\x7f"},
        {"data": b"\x80"},
        {"data": bytes(55)},
        {"data": bytes(56)},
        {"data": bytes(1 << 16)},
        {"to": None, "data": b"\x60\x00"},
        {"chain_id": 80002, "max_fee": 1 << 70, "gas": 16_000_000},
    ],
)
def test_a_transaction_is_what_a_wallet_makes_of_its_fields(changes: dict[str, Any]) -> None:
    ours = replace(SOME, **changes)
    fields = {
        "type": 2,
        "chainId": ours.chain_id,
        "nonce": ours.nonce,
        "maxPriorityFeePerGas": ours.tip,
        "maxFeePerGas": ours.max_fee,
        "gas": ours.gas,
        "value": ours.value,
        "data": ours.data,
    }
    if ours.to is not None:
        fields["to"] = ours.to
    raw = ours.sign(KEY)
    assert raw == bytes(Account.sign_transaction(fields, KEY.secret_hex()).raw_transaction)
    assert Account.recover_transaction(raw) == Account.from_key(KEY.secret_hex()).address
    assert parse_raw(raw) == ours
    signature = KEY.sign_payload(ours.payload())
    assert recover_address(keccak256(ours.payload()), signature) == KEY.address


def test_signatures_whose_numbers_begin_with_zeros_are_written_without_them() -> None:
    class Short:
        address = KEY.address

        def sign_payload(self, payload: bytes) -> bytes:
            return bytes(31) + b"\x01" + bytes(30) + b"\x02\x03" + b"\x1b"

    raw = SOME.sign(Short())
    assert raw.endswith(bytes.fromhex("80 01 820203"))
    assert parse_raw(raw) == SOME


@pytest.mark.parametrize("raw", [b"\x01\xc0", b"\x02\xc0", b"\x02\xc0\x00", SOME.sign(KEY) + b"\x00", SOME.payload()])
def test_what_is_no_transaction_of_ours_is_refused(raw: bytes) -> None:
    with pytest.raises(InvariantError):
        parse_raw(raw)
