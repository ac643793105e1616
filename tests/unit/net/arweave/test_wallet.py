"""The wallet: a strict reader of JWK files, and signatures that come out the same every time."""

from __future__ import annotations

import copy
import json
import logging
import math
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import paths
from validator.net.arweave.client import compute_client_signature_data
from validator.net.arweave.wallet import ArweaveWallet, generate_wallet
from validator.protocol.codec import arweave
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_text import decode_base64url, encode_base64url
from validator.protocol.errors import ConfigError, InvariantError, MalformedInput

VECTORS: dict[str, Any] = json.loads((paths.VECTORS / "arweave.json").read_text())
JWK: dict[str, str] = VECTORS["keys"]["rsa"]
PRIVATE = ("d", "p", "q", "dp", "dq", "qi")


@pytest.fixture(scope="module")
def wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(JWK)


def transaction_of(case: dict[str, Any]) -> Transaction:
    tags = [
        {"name": encode_base64url(t["name"].encode()), "value": encode_base64url(t["value"].encode())}
        for t in case["tags"]
    ]
    return arweave.decode_transaction({**case["fields"], "tags": tags, **case["signatures"]["salt0"]})


@pytest.mark.parametrize("case", VECTORS["transactions"], ids=lambda c: str(c["name"]))
def test_signatures_and_ids_are_reproduced(case: dict[str, Any], wallet: ArweaveWallet) -> None:
    tx = transaction_of(case)
    signature = wallet.sign(bytes.fromhex(case["signature_data"]))
    assert arweave.attach_signature(tx, signature) == tx
    assert wallet.owner == tx.owner


@pytest.mark.parametrize("case", VECTORS["transactions"], ids=lambda c: str(c["name"]))
def test_the_client_would_sign_the_same_bytes(case: dict[str, Any], wallet: ArweaveWallet) -> None:
    jwk = wallet.public_jwk
    assert compute_client_signature_data(transaction_of(case), jwk).hex() == case["signature_data"]
    assert jwk == wallet.public_jwk


def test_the_client_refuses_a_key_that_is_not_the_owners(wallet: ArweaveWallet) -> None:
    tx = Transaction(owner=bytes(512), last_tx=b"", reward=1)
    with pytest.raises(InvariantError, match="address"):
        compute_client_signature_data(tx, wallet.public_jwk)


def flip(text: str) -> str:
    data = bytearray(decode_base64url(text, "x", max_bytes=512))
    data[len(data) // 2] ^= 1
    return encode_base64url(bytes(data))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kty": "EC"}, "kty: not RSA"),
        ({"kty": None}, "kty: not RSA"),
        ({"e": "Aw"}, "e: not 65537"),
        ({"n": JWK["n"] + "="}, "n: "),
        ({"n": JWK["n"][:680]}, "n: not 4096 bits"),
        ({"n": "A" + JWK["n"][1:]}, "n: not 4096 bits"),
        ({"n": flip(JWK["n"])}, "wallet: the numbers are no RSA key"),
        ({"d": flip(JWK["d"])}, "wallet: the numbers are no RSA key"),
        ({"p": JWK["q"]}, "wallet: the numbers are no RSA key"),
        ({"p": "AQ"}, "wallet: the numbers are no RSA key"),
        ({"dp": flip(JWK["dp"])}, "wallet: the numbers are no RSA key"),
        ({"dq": flip(JWK["dq"])}, "wallet: the numbers are no RSA key"),
        ({"qi": flip(JWK["qi"])}, "wallet: the numbers are no RSA key"),
        ({"qi": None}, "qi: NoneType where"),
        ({"d": 5}, "d: int where"),
    ],
)
def test_a_jwk_that_is_no_wallet_is_refused_and_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedInput, match=reason):
        ArweaveWallet.from_jwk({**JWK, **change})


def test_factors_that_are_no_primes_are_refused_however_well_the_numbers_fit() -> None:
    p = q = 1
    while (p * q).bit_length() < 4_096:
        halves = [rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_numbers() for _ in range(2)]
        p, q = (half.p * half.q for half in halves)
    d = pow(65_537, -1, math.lcm(p - 1, q - 1))
    numbers = {"n": p * q, "d": d, "p": p, "q": q, "dp": d % (p - 1), "dq": d % (q - 1), "qi": pow(q, -1, p)}
    encoded = {name: encode_base64url(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in numbers.items()}
    with pytest.raises(MalformedInput, match="wallet: the numbers are no RSA key"):
        ArweaveWallet.from_jwk({"kty": "RSA", "e": "AQAB", **encoded})


def test_a_wallet_file_that_does_not_work_is_a_setting_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    with pytest.raises(ConfigError, match=r"wallet\.json: No such file"):
        ArweaveWallet.from_file(path)
    for text in ("", "[]", "x" * 20_000, json.dumps({**JWK, "kty": "oct"})):
        path.write_text(text)
        with pytest.raises(ConfigError, match="RSA-4096 JWK belongs here"):
            ArweaveWallet.from_file(path)
    path.write_text(json.dumps(JWK))
    assert encode_base64url(ArweaveWallet.from_file(path).address) == VECTORS["addresses"][0]["address"]


def test_a_key_of_2048_bits_is_refused() -> None:
    numbers = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_numbers()
    names = {"n": numbers.public_numbers.n, "d": numbers.d, "p": numbers.p, "q": numbers.q}
    names |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    encoded = {name: encode_base64url(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in names.items()}
    with pytest.raises(ConfigError, match=r"LOGSTORE_WALLET: n: not 4096 bits; an RSA-4096 JWK belongs here"):
        ArweaveWallet.from_text(json.dumps({"kty": "RSA", "e": "AQAB", **encoded}).encode(), "LOGSTORE_WALLET")


SPOILT: list[Callable[[str], str]] = [
    lambda text: text[:-1],
    lambda text: text + "}",
    lambda text: text.replace('"d"', '"D"'),
    *(lambda text, name=name: text.replace(JWK[name], JWK[name] + "==") for name in PRIVATE),
    *(lambda text, name=name: text.replace(JWK[name], flip(JWK[name])) for name in PRIVATE),
    *(lambda text, name=name: text.replace(f'"{JWK[name]}"', f'["{JWK[name]}"]') for name in PRIVATE),
    lambda text: text * 40,
]
"""What may be wrong with a wallet's text that is a wallet's all the same."""


def test_no_private_part_is_in_a_log_an_error_or_a_text_whatever_is_wrong(
    wallet: ArweaveWallet, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the traceback of the error either, with its causes, and not in what a logger would write of it."""
    assert repr(wallet) == str(wallet) == f"ArweaveWallet({VECTORS['addresses'][0]['address']})"
    said = []
    for spoil in SPOILT:
        with pytest.raises(ConfigError) as caught:
            ArweaveWallet.from_text(spoil(json.dumps(JWK)).encode(), "LOGSTORE_WALLET")
        logging.getLogger("worker").error("it does not start", exc_info=caught.value)
        said += [repr(caught.value), repr(caught.value.fields), *traceback.format_exception(caught.value)]
    text = "".join(said) + caplog.text
    assert "LOGSTORE_WALLET" in text
    pieces = {JWK[name][at : at + 20] for name in PRIVATE for at in (0, 100)}
    assert not [piece for piece in pieces if piece in text]


def test_a_wallet_is_never_copied_or_sent(wallet: ArweaveWallet) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(wallet)
    with pytest.raises(TypeError):
        copy.copy(wallet)


def test_a_generated_wallet_signs_what_verifies() -> None:
    wallet = ArweaveWallet.from_jwk(generate_wallet())
    assert arweave.is_signature_valid(wallet.owner, b"text", wallet.sign(b"text"))
    assert not arweave.is_signature_valid(wallet.owner, b"other", wallet.sign(b"text"))
