"""Keystores: what wallets write is read, what we write they read, and a file may ask for anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import a_key
from tests.wallet import Account
from validator.net.signer.keystore import make_keystore, named_address, open_keystore
from validator.net.signer.source import KeyKind, kind_of, open_signer, shown_address
from validator.protocol.errors import ConfigError, MalformedInput

KEY = a_key(100)
SECRET = bytes.fromhex(KEY.secret_hex()[2:])
PASSWORD = "pässword of mine"
TEXT = make_keystore(SECRET, PASSWORD, salt=b"\x05" * 32, iv=b"\x06" * 16, uuid="an id", n=1 << 10)


def test_what_we_write_a_wallet_opens() -> None:
    assert bytes(Account.decrypt(TEXT, PASSWORD)) == SECRET
    assert named_address(TEXT) == KEY.address.hex()


@pytest.mark.parametrize(("kdf", "iterations"), [("scrypt", 1 << 10), ("pbkdf2", 1000)])
def test_what_a_wallet_writes_we_open(kdf: Any, iterations: int) -> None:
    written = json.dumps(Account.encrypt(SECRET, PASSWORD, kdf=kdf, iterations=iterations))
    assert open_keystore(written, PASSWORD) == SECRET
    assert open_keystore(written.replace('"crypto"', '"Crypto"'), PASSWORD) == SECRET


def test_the_vectors_of_the_definition_open() -> None:
    """The two of "Web3 Secret Storage Definition": password "testpassword"."""
    shared = {"version": 3, "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6"}
    pbkdf2 = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    }
    secret = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
    assert open_keystore(json.dumps({**shared, "crypto": pbkdf2}), "testpassword").hex() == secret


def test_a_wrong_password_is_told_and_not_shown() -> None:
    with pytest.raises(MalformedInput, match="the password is not its own") as caught:
        open_keystore(TEXT, "guess-of-a-password")
    assert "guess" not in str(caught.value)


def changed(**changes: Any) -> str:
    """The keystore with other members of ``crypto``, or of its ``kdfparams``."""
    store = json.loads(TEXT)
    for name, value in changes.items():
        inner = store["crypto"] if name in store["crypto"] else store["crypto"]["kdfparams"]
        (inner if name in inner else store)[name] = value
    return json.dumps(store)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "{" * 5000,
        '{"version": 3}',
        '{"version": 4, "crypto": {}}',
        changed(version=1),
        changed(crypto="text"),
        changed(cipher="aes-256-gcm"),
        changed(ciphertext="00"),
        changed(ciphertext=7),
        changed(kdf="argon2"),
        changed(kdfparams=[]),
        changed(cipherparams=None),
        changed(salt="xyz"),
        changed(dklen=1 << 40),
        changed(n=1 << 30),
        changed(n=1000),
        changed(n=1.5),
        changed(r=1 << 31),
        changed(p=1 << 20),
        changed(n=0),
        changed(mac="00" * 32),
        changed(address="11" * 20),
        changed(address=7),
        TEXT + " " * (1 << 15),
    ],
)
def test_what_is_no_keystore_or_costs_too_much_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        open_keystore(text, PASSWORD)
    with pytest.raises(ConfigError, match=r"^LOGSTORE_GAS_KEY: ") as caught:
        open_signer(text if text.startswith("{") else "{", "LOGSTORE_GAS_KEY", ask_password=lambda: PASSWORD)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (KEY.secret_hex(), KeyKind.HEX),
        (TEXT, KeyKind.KEYSTORE),
        ("\n  " + TEXT, KeyKind.KEYSTORE),
        (f"https://signer:9000/0x{KEY.address.hex()}\n", KeyKind.REMOTE),
        (f"http://u:p@10.0.0.1/some/where/0x{KEY.address.hex().upper()}/", KeyKind.REMOTE),
    ],
)
def test_a_key_is_recognised_by_its_content_and_shows_its_address(text: str, kind: KeyKind) -> None:
    assert kind_of(text) is kind
    assert shown_address(text, "LOGSTORE_GAS_KEY") == KEY.address


@pytest.mark.parametrize(
    "text",
    [
        "https:///0x12",
        "https://hidden",
        f"https://hidden:x/0x{KEY.address.hex()}",
        "https://hidden/0x12",
        "ftp://hidden",
    ],
)
def test_what_names_no_remote_signer_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^LOGSTORE_GAS_KEY: ") as caught:
        open_signer(text, "LOGSTORE_GAS_KEY", ask_password=lambda: PASSWORD)
    assert text not in str(caught.value)
