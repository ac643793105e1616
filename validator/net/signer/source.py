"""What a key's text says. One setting per key, three kinds of content, told apart by how they begin:

{…}                                a keystore (``keystore``), opened with a password
https://signer.example:9000/0x…    a remote signer (``remote``); the last part is the address, the rest its URL
64 hex digits                      the key itself, for development networks only
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from enum import StrEnum

from validator.net.http.urls import OperatorUrl, read_operator_url
from validator.net.signer.keystore import is_keystore, named_address, open_keystore
from validator.net.signer.remote import RemoteSigner
from validator.protocol.codec.secp256k1 import CURVE_ORDER, Signer, SigningKey
from validator.protocol.errors import ConfigError, MalformedInput
from validator.protocol.model import Address

_REMOTE = re.compile(r"(https?://[^\s?#]+)/0x([0-9a-fA-F]{40})/?", re.ASCII)


class KeyKind(StrEnum):
    """Where the key is that a text names."""

    HEX = "hex"
    KEYSTORE = "keystore"
    REMOTE = "remote signer"


def kind_of(text: str) -> KeyKind:
    if is_keystore(text):
        return KeyKind.KEYSTORE
    return KeyKind.REMOTE if text.strip().startswith(("http://", "https://")) else KeyKind.HEX


def open_signer(
    text: str, what: str, *, ask_password: Callable[[], str], tls: Callable[[], ssl.SSLContext | None] = lambda: None
) -> Signer:
    """The signer that a key's text names; no server is asked. ``what``: the setting, for errors.

    Raises:
        ConfigError: none of the three, or a keystore that does not open; shows neither text nor password.
    """
    kind = kind_of(text)
    if kind is KeyKind.REMOTE:
        url, address = read_remote(text, what)
        return RemoteSigner(url, address, tls=tls() if url.origin.scheme == "https" else None)
    return SigningKey(read_secret(text, what, ask_password=ask_password))


def read_secret(text: str, what: str, *, ask_password: Callable[[], str]) -> bytes:
    """The 32 bytes of a key whose text is hex or a keystore. Raises ConfigError as ``open_signer``."""
    if kind_of(text) is KeyKind.KEYSTORE:
        try:
            return open_keystore(text, ask_password())
        except MalformedInput as error:
            raise ConfigError(f"{what}: the keystore does not open: {error.reason}", field=what) from None
    return _read_hex(text, what)


def read_remote(text: str, what: str) -> tuple[OperatorUrl, Address]:
    """URL and address of a remote signer. Raises ConfigError."""
    found = _REMOTE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError("write the signer's URL, a slash, and the address, such as https://signer:9000/0x…")
        return read_operator_url(found[1]), Address(bytes.fromhex(found[2]))
    except ValueError as error:
        raise ConfigError(f"{what}: no remote signer: {error}", field=what) from None


def shown_address(text: str, what: str) -> Address | None:
    """The address that a key's text shows without a password; None where a keystore names none. Raises ConfigError."""
    kind = kind_of(text)
    if kind is KeyKind.REMOTE:
        return read_remote(text, what)[1]
    if kind is KeyKind.HEX:
        return SigningKey(_read_hex(text, what)).address
    try:
        named = named_address(text)
        return Address(bytes.fromhex(named)) if len(named) == 40 else None
    except (MalformedInput, ValueError):
        raise ConfigError(f"{what}: no keystore of version 3", field=what) from None


def _read_hex(text: str, what: str) -> bytes:
    try:
        secret = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise ConfigError(f"{what}: not 32 bytes of hex, a keystore, or a remote signer's URL", field=what)
    if not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
        raise ConfigError(f"{what}: no private key of secp256k1", field=what)
    return secret
