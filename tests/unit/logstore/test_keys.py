"""Whose key signs: where it may lie, and what an object of the caller's must be able to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coincurve
import pytest

from logstore.keys import ForeignSigner, find_signer, require_signer
from tests.builders import a_key
from validator.protocol.codec.secp256k1 import SigningKey, recover_address
from validator.protocol.errors import ConfigError
from validator.protocol.hashing import keccak256

KEY = a_key(5)


def test_a_file_the_environment_the_key_itself_and_a_network_that_runs_here(tmp_path: Path) -> None:
    file, other = tmp_path / "key", tmp_path / "other"
    file.write_text(KEY.secret_hex() + "\n")
    other.write_text(a_key(6).secret_hex())
    environment = {"LOGSTORE_KEY_FILE": str(file), "LOGSTORE_KEY": a_key(6).secret_hex()}
    found = [
        find_signer(file, {}),
        find_signer(str(file), {"LOGSTORE_KEY_FILE": str(other)}),
        find_signer(None, environment),
        find_signer(None, {"LOGSTORE_KEY": KEY.secret_hex()}),
        find_signer(KEY.secret_hex(), {}),
        find_signer(None, {}, newcomer=str(file)),
        find_signer(KEY, {}),
    ]
    assert [None if each is None else each.address for each in found] == [KEY.address] * 7
    assert find_signer(None, {}) is None
    with pytest.raises(ConfigError, match="--key FILE, or LOGSTORE_KEY_FILE"):
        require_signer(None)


class Own:
    """A caller's signer."""

    def __init__(self, key: SigningKey, address: Any, v: int = 0) -> None:
        self.key = key
        self.address = address
        self.v = v

    def sign(self, digest: bytes) -> bytes:
        signature: bytes = coincurve.PrivateKey.from_hex(self.key.secret_hex()[2:]).sign_recoverable(digest, None)
        return signature[:64] + bytes([signature[64] + self.v])


@pytest.mark.parametrize("address", [KEY.address, f"0x{KEY.address.hex().upper()}"])
@pytest.mark.parametrize("v", [0, 27])
def test_an_object_that_signs(address: Any, v: int) -> None:
    signer = find_signer(Own(KEY, address, v), {})
    assert signer is not None
    assert recover_address(keccak256(b"said"), signer.sign_payload(b"said")) == signer.address == KEY.address


def test_an_object_that_signs_as_somebody_else_is_caught() -> None:
    with pytest.raises(ConfigError, match="not as its address"):
        ForeignSigner(Own(KEY, a_key(6).address)).sign_payload(b"said")
    with pytest.raises(ConfigError, match="no signature of 65 bytes"):
        ForeignSigner(Own(KEY, KEY.address, v=4)).sign_payload(b"said")
    with pytest.raises(ConfigError, match="address is neither"):
        ForeignSigner(Own(KEY, "somebody"))


@pytest.mark.parametrize("text", ["", "0x12", "not a key", "0x" + "00" * 32])
def test_what_is_no_key_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_signer(file, {})
    assert str(file) in str(caught.value)
    assert not text or text not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="nowhere: No such file"):
        find_signer("nowhere", {})
