from __future__ import annotations

import pytest

from tests.builders import a_key, flip_s
from validator.protocol.codec.secp256k1 import HALF_ORDER, SigningKey, is_low_s, recover_address, verify_signature
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Digest

DIGEST = keccak256(b"digest")


def test_the_address_of_a_key_is_the_known_one() -> None:
    assert a_key(1).address.hex() == "7e5f4552091a69125d5dfcb7b8c2659029395bdf"


def test_signing_is_deterministic_low_and_recovers_the_signer() -> None:
    for number in range(1, 20):
        signature = a_key(number).sign(DIGEST)
        assert signature == a_key(number).sign(DIGEST)
        assert len(signature) == 65
        assert is_low_s(signature)
        assert signature[64] in (27, 28)
        assert recover_address(DIGEST, signature) == a_key(number).address


def test_another_digest_recovers_somebody_else() -> None:
    assert recover_address(Digest(bytes(32)), a_key().sign(DIGEST)) != a_key().address


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(66), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1b"])
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(MalformedInput, match="signature"):
        recover_address(DIGEST, signature)


@pytest.mark.parametrize("v", [0, 1, 26, 29, 30, 255])
def test_v_is_27_or_28(v: int) -> None:
    with pytest.raises(MalformedInput, match="recovery value"):
        recover_address(DIGEST, a_key().sign(DIGEST)[:64] + bytes([v]))


def test_one_function_says_what_the_contract_accepts() -> None:
    good = a_key().sign(DIGEST)
    verify_signature(DIGEST, good, a_key().address)
    for bad, reason in (
        (flip_s(good), "high s"),
        (good[:64], "64 bytes"),
        (good + b"\0", "66 bytes"),
        (good[:64] + b"\0", "recovery value 0"),
        (a_key(2).sign(DIGEST), "not of the named signer"),
        (a_key().sign(Digest(bytes(32))), "not of the named signer"),
    ):
        with pytest.raises(MalformedInput, match=reason):
            verify_signature(DIGEST, bad, a_key().address)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32])
def test_what_is_no_key_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError):
        SigningKey(secret)


def test_a_key_does_not_print_its_secret() -> None:
    key = SigningKey(b"\x77" * 32)
    assert "77" * 4 not in repr(key)
    assert key.secret_hex() == "0x" + "77" * 32
    assert a_key(1).secret_hex() == "0x" + "0" * 63 + "1"


def test_half_the_order_is_still_low() -> None:
    assert is_low_s(bytes(32) + HALF_ORDER.to_bytes(32, "big"))
    assert not is_low_s(bytes(32) + (HALF_ORDER + 1).to_bytes(32, "big"))
