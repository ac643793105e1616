"""The deployed contract's packing and hashes, against the worked example of its bytecode."""

from __future__ import annotations

import pytest

from validator.protocol.codec.legacy_report import (
    LegacyReport,
    compute_report_hash,
    compute_signed_digest,
    compute_time_hash,
    encode_amount_text,
    encode_pack,
)
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

A, B, C, D, E = (SigningKey(bytes([byte]) * 32) for byte in (0x11, 0x22, 0x33, 0x44, 0x55))
EXAMPLE = LegacyReport(
    id="1690000000",
    height=42,
    streams=(
        ("0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a/heartbeat", 49462093025057900000000000, 49542),
        ("example.eth/a", 0, 1),
    ),
    consumers=((D.address, 255, 4464),),
    nodes=((A.address, 1000), (B.address, -300)),
    delegates=((E.address, ((A.address, 256), (B.address, -1))),),
    treasury=-256,
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0x00"), (255, "0xff"), (256, "0x0100"), (-1, "-0x01"), (-256, "-0x0100"), (1000, "0x03e8")],
)
def test_amounts_are_written_with_the_fewest_whole_bytes(amount: int, text: str) -> None:
    assert encode_amount_text(amount).decode() == text


def test_the_packed_bytes_are_the_deployed_contracts() -> None:
    pack = encode_pack(EXAMPLE)
    assert len(pack) == 337
    assert keccak256(pack).hex() == "fca9befa5ad2805fe0f9affc889bb0e97ec6f6443b986151c42bb872818699ac"


def test_the_report_hash_is_that_of_the_example() -> None:
    assert compute_report_hash(EXAMPLE).hex() == "2f7f73bec55ab6d15ce81b436190a7d5b46a7c4697bacddce9d11882447b9be5"


@pytest.mark.parametrize(
    ("key", "time_ms", "time_hash", "signature"),
    [
        (
            A,
            1690000000123,
            "6c7f8c8e04842bd9073c95505215c672e41897a58e42c9e9906907207f93f8f5",
            "bda16b2b1a414428555eb16550f5794bbd86929ba687aec1544052b1c26ac7f037185c6a195c5eefcfcbd0e0462190639df0618465dec77b65c7b30b0f88f74d1b",
        ),
        (
            B,
            1690000000456,
            "2272bb0f17e6a0922c06cec2ca22818dea81f118f182c02d8490119116b73919",
            "6e93ba76bcca3638eb455a30048ebefd05c4fa9fddcbf698a029e45ee489b04c483e066f8562c69006084638d08cf278e78f9aa3ce0723c078edae02f10b95421c",
        ),
        (
            C,
            1690000000789,
            "ac7315603eded5a2f3e21d2536e1a287d1896325cab36d436271b6c6fb6a2667",
            "38b6642a5ecd99c55f972bc2bfe5c523a0cc8bbb1ed81b8f308a6d3c7bc5d76859702d4e3aacb60fb4b0f4cbe9f6a3f1e2630bc69e4376d437602f968d9e12c41b",
        ),
    ],
)
def test_reporters_sign_the_time_hash(key: SigningKey, time_ms: int, time_hash: str, signature: str) -> None:
    assert compute_time_hash(EXAMPLE, time_ms).hex() == time_hash
    assert key.sign(compute_signed_digest(EXAMPLE, time_ms)).hex() == signature


def test_the_signed_digest_wraps_the_time_hash() -> None:
    digest = compute_signed_digest(EXAMPLE, 1690000000123)
    assert digest.hex() == "208435491611e968cc217f78dede4d69113ac979cf4e9ec9d9512df45679c6a6"


def test_addresses_are_packed_raw() -> None:
    empty = LegacyReport("1", 1, (), (), ((Address(b"\1" * 20), 1),), (), 0)
    assert encode_pack(empty) == b"\1" * 20 + b"0x01"
