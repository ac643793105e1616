"""Keystores: a private key under a password, as web3 secret storage (version 3) writes it; geth, Web3Signer and wallets
read and write the same.

    derived key = scrypt or PBKDF2-HMAC-SHA-256 (password, salt), 32 bytes
    ciphertext  = AES-128-CTR (first half, iv) of the key
    mac         = keccak-256 (second half || ciphertext): tells a wrong password

web3's own library for it (eth-keyfile) is not used: its import takes a second and lets Python recurse 100 000 deep
(docs/decisions/0012). The ciphers are the libraries'.

The cost of opening one is bounded before it is paid: what a file asks for is refused beyond ``MAX_MEMORY`` and
``MAX_ITERATIONS``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR

from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256

VERSION = 3
MAX_TEXT = 16 << 10
MAX_MEMORY = 1 << 30
MAX_ITERATIONS = 10_000_000
SCRYPT_N = 1 << 18
"""As geth writes: 256 MiB and about a second for each try at a password."""
SCRYPT_R, SCRYPT_P = 8, 1
KEY_BYTES = 32


def is_keystore(text: str) -> bool:
    """Whether a key's text is meant as a keystore: it is a JSON object."""
    return text.lstrip().startswith("{")


def named_address(text: str) -> str:
    """The address that a keystore names, 40 hex digits; "" where it names none. Only the password can tell if it is so.

    Raises:
        MalformedInput: no keystore.
    """
    named = _load(text).get("address", "")
    if not isinstance(named, str):
        raise MalformedInput("keystore", "its address is no text")
    return named.lower().removeprefix("0x")


def open_keystore(text: str, password: str) -> bytes:
    """The private key, 32 bytes.

    Raises:
        MalformedInput: no keystore of version 3, one that costs too much to open, a wrong password, or another
            address's key. Shows neither password nor key.
    """
    store = _load(text)
    crypto = store.get("crypto", store.get("Crypto"))
    if not isinstance(crypto, dict):
        raise MalformedInput("keystore", "no member crypto")
    if crypto.get("cipher") != "aes-128-ctr":
        raise MalformedInput("keystore", "its cipher is not aes-128-ctr")
    ciphertext = _bytes(crypto, "ciphertext", KEY_BYTES)
    iv = _bytes(_object(crypto, "cipherparams"), "iv", 16)
    derived = _derive(crypto, password)
    if not hmac.compare_digest(keccak256(derived[16:32] + ciphertext), _bytes(crypto, "mac", 32)):
        raise MalformedInput("keystore", "the password is not its own")
    secret = _cipher(derived, iv, ciphertext)
    named = named_address(text)
    try:
        address = SigningKey(secret).address.hex()
    except ValueError:
        raise MalformedInput("keystore", "holds no private key of secp256k1") from None
    if named not in ("", address):
        raise MalformedInput("keystore", f"names the address 0x{named[:40]}, its key is that of 0x{address}")
    return secret


def make_keystore(secret: bytes, password: str, *, salt: bytes, iv: bytes, uuid: str, n: int = SCRYPT_N) -> str:
    """A keystore of the key. ``salt`` (32 bytes) and ``iv`` (16 bytes) are drawn at random, for this one only."""
    derived = _scrypt(password, salt, n, SCRYPT_R, SCRYPT_P)
    ciphertext = _cipher(derived, iv, secret)
    store = {
        "version": VERSION,
        "id": uuid,
        "address": SigningKey(secret).address.hex(),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "scrypt",
            "kdfparams": {"dklen": KEY_BYTES, "n": n, "r": SCRYPT_R, "p": SCRYPT_P, "salt": salt.hex()},
            "mac": keccak256(derived[16:32] + ciphertext).hex(),
        },
    }
    return json.dumps(store, indent=1) + "\n"


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise MalformedInput("keystore", f"more than {MAX_TEXT} characters")
    try:
        store = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedInput("keystore", "not JSON") from None
    if not isinstance(store, dict) or store.get("version") != VERSION:
        raise MalformedInput("keystore", f"not of version {VERSION}")
    return store


def _derive(crypto: dict[str, Any], password: str) -> bytes:
    params = _object(crypto, "kdfparams")
    salt = _bytes(params, "salt")
    if params.get("dklen") != KEY_BYTES:
        raise MalformedInput("keystore", f"dklen is not {KEY_BYTES}")
    if crypto.get("kdf") == "scrypt":
        n, r, p = (_count(params, name) for name in ("n", "r", "p"))
        if n & (n - 1) or n < 2 or 128 * r * (n + p) > MAX_MEMORY or p > 64:
            raise MalformedInput("keystore", f"scrypt of n {n}, r {r}, p {p} is none, or takes too much")
        return _scrypt(password, salt, n, r, p)
    if crypto.get("kdf") == "pbkdf2":
        count = _count(params, "c")
        if params.get("prf") != "hmac-sha256" or count > MAX_ITERATIONS:
            raise MalformedInput("keystore", f"pbkdf2 is not hmac-sha256, or takes more than {MAX_ITERATIONS} rounds")
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, count, KEY_BYTES)
    raise MalformedInput("keystore", "its kdf is neither scrypt nor pbkdf2")


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=KEY_BYTES, maxmem=MAX_MEMORY + (64 << 20))


def _cipher(derived: bytes, iv: bytes, data: bytes) -> bytes:
    both_ways = Cipher(AES128(derived[:16]), CTR(iv)).encryptor()
    return both_ways.update(data) + both_ways.finalize()


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise MalformedInput("keystore", f"no member {name}")
    return value


def _bytes(data: dict[str, Any], name: str, size: int | None = None) -> bytes:
    value = data.get(name)
    try:
        raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if not raw or (size is not None and len(raw) != size):
        raise MalformedInput("keystore", f"{name} is not {size or 'some'} bytes of hex")
    return raw


def _count(data: dict[str, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is not int or not 0 < value < 1 << 32:
        raise MalformedInput("keystore", f"{name} is no count")
    return value
