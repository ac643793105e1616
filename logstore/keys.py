"""Whose key signs: from a file, the environment, a keystore, a remote signer, or any object that signs.

    a path                  a file with one of the three texts of ``net.signer.source``: hex, keystore, remote signer
    0x and 64 hex digits    the key itself
    an object               with ``address`` (20 bytes, or 0x text) and ``sign(digest: bytes) -> bytes`` of 65: r, s, v
    nothing                 LOGSTORE_KEY_FILE, or LOGSTORE_KEY, or the newcomer's of a network that runs here

A keystore's password lies in the file that LOGSTORE_KEY_PASSWORD_FILE names; who sits at a terminal is asked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from validator.protocol.codec.secp256k1 import Signer, recover_address
from validator.protocol.errors import ConfigError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest

MAX_KEY_BYTES = 16 << 10
NO_KEY = (
    "no key is named: use --key FILE, or LOGSTORE_KEY_FILE, or key= in Python; a new one is 32 random bytes:"
    " openssl rand -hex 32 > my.key"
)
_HEX = re.compile(r"(0x)?[0-9a-fA-F]{64}", re.ASCII)


class SignsDigests(Protocol):
    """What a caller's own signer must have."""

    @property
    def address(self) -> Any:
        """20 bytes, or a text of 0x and 40 hex digits."""

    def sign(self, digest: bytes, /) -> bytes:
        """65 bytes r, s, v over the digest itself: v 27 or 28 (0 or 1 will do), low s."""


Key = str | Path | SignsDigests | Signer


class ForeignSigner:
    """A caller's object as a ``Signer``. What it signs is checked once for each signature that it makes."""

    def __init__(self, signer: Any) -> None:
        address = signer.address
        try:
            raw = bytes.fromhex(address.removeprefix("0x")) if isinstance(address, str) else bytes(address)
        except (TypeError, ValueError):
            raw = b""
        if len(raw) != 20:
            raise ConfigError("key: its address is neither 20 bytes nor 0x and 40 hex digits", field="key")
        self.address = Address(raw)
        self._signer = signer

    def sign_payload(self, payload: bytes) -> bytes:
        """Raises ConfigError: it signed with another key, or in another form."""
        digest = Digest(keccak256(payload))
        signature = bytes(self._signer.sign(digest))
        if len(signature) == 65 and signature[64] < 2:
            signature = signature[:64] + bytes([signature[64] + 27])
        try:
            signer = recover_address(digest, signature)
        except MalformedInput as error:
            raise ConfigError(f"key: its sign() gave no signature of 65 bytes r, s, v: {error}", field="key") from error
        if signer != self.address:
            raise ConfigError(f"key: its sign() signs as 0x{signer.hex()}, not as its address", field="key")
        return signature


def find_signer(key: Key | None, environment: Mapping[str, str] = os.environ, newcomer: str = "") -> Signer | None:
    """Who signs; None where nobody is named. ``newcomer``: the key's file of a network that runs here.

    Raises:
        ConfigError: what is named is no key, or does not open; never shows it.
    """
    if key is None:
        named = environment.get("LOGSTORE_KEY_FILE")
        text = environment.get("LOGSTORE_KEY", "")
        if named:
            return _open(_read_file(Path(named), "LOGSTORE_KEY_FILE"), "LOGSTORE_KEY_FILE", environment)
        if text:
            return _open(text, "LOGSTORE_KEY", environment)
        return _open(_read_file(Path(newcomer), newcomer), newcomer, environment) if newcomer else None
    if isinstance(key, str | Path):
        if isinstance(key, str) and _HEX.fullmatch(key):
            return _open(key, "key", environment)
        return _open(_read_file(Path(key), f"--key: {key}"), f"--key: {key}", environment)
    return cast("Signer", key) if hasattr(key, "sign_payload") else ForeignSigner(key)


def require_signer(signer: Signer | None) -> Signer:
    """Raises ConfigError, with the remedy, where there is none."""
    if signer is None:
        raise ConfigError(NO_KEY, field="key")
    return signer


def _open(text: str, what: str, environment: Mapping[str, str]) -> Signer:
    from validator.net.signer.source import open_signer

    return open_signer(text, what, ask_password=lambda: _ask_password(what, environment))


def _read_file(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise ConfigError(f"{what}: {reason}", field="key") from error


def _ask_password(what: str, environment: Mapping[str, str]) -> str:
    named = environment.get("LOGSTORE_KEY_PASSWORD_FILE")
    if named:
        return _read_file(Path(named), "LOGSTORE_KEY_PASSWORD_FILE").rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError(f"{what}: a keystore; name its password's file in LOGSTORE_KEY_PASSWORD_FILE", field="key")
    import getpass

    return getpass.getpass(f"Password of {what}: ")
