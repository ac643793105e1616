"""The wallet that pays for uploads: an RSA key of 4096 bits in a JWK file.

Loading takes 10 ms: the numbers must fit each other, and a trial signature must verify, which shows that the factors
are primes. OpenSSL's own test of the primes takes 0.35 s, in every process that starts. Nothing here prints or logs the
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from validator.protocol.codec.arweave import OWNER_BYTES, PUBLIC_EXPONENT, compute_address
from validator.protocol.codec.arweave_text import decode_base64url, decode_json_object, encode_base64url
from validator.protocol.errors import ConfigError, MalformedInput

MAX_FILE_BYTES = 16 * 1024
_PRIVATE_FIELDS = ("d", "p", "q", "dp", "dq", "qi")
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=0)


class ArweaveWallet:
    """Key, owner (the modulus) and address (its SHA-256). Immutable; ``sign`` may be called from any thread."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        numbers = key.public_key().public_numbers()
        self.owner: bytes = numbers.n.to_bytes(OWNER_BYTES, "big")
        self.address: bytes = compute_address(self.owner)
        self._key = key

    def __repr__(self) -> str:
        return f"ArweaveWallet({encode_base64url(self.address)})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a wallet is not copied or sent anywhere")

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return {"kty": "RSA", "n": encode_base64url(self.owner), "e": "AQAB"}

    @classmethod
    def from_file(cls, path: Path) -> ArweaveWallet:
        """Wallet from a JWK file. Raises ConfigError that names the file and what is wrong with it."""
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"wallet file {path}: {error.strerror}; name a readable JWK file") from error
        return cls.from_text(text, f"wallet file {path}")

    @classmethod
    def from_text(cls, text: bytes, where: str) -> ArweaveWallet:
        """Wallet from the text of a JWK. Raises ConfigError that says where it came from and what is wrong with it."""
        try:
            return cls.from_jwk(decode_json_object(text, "wallet", max_bytes=MAX_FILE_BYTES))
        except MalformedInput as error:
            raise ConfigError(f"{where}: {error}; an RSA-4096 JWK belongs here") from error

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> ArweaveWallet:
        """Wallet from a parsed JWK. Raises MalformedInput: another kind or size of key, or numbers that do not fit."""
        if jwk.get("kty") != "RSA":
            raise MalformedInput("kty", "not RSA")
        if jwk.get("e") != "AQAB":
            raise MalformedInput("e", "not 65537")
        modulus = decode_base64url(jwk.get("n"), "n", max_bytes=OWNER_BYTES)
        if len(modulus) != OWNER_BYTES or modulus[0] < 0x80:
            raise MalformedInput("n", "not 4096 bits")
        raw = {name: decode_base64url(jwk.get(name), name, max_bytes=OWNER_BYTES) for name in _PRIVATE_FIELDS}
        d, p, q, dp, dq, qi = (int.from_bytes(raw[name], "big") for name in _PRIVATE_FIELDS)
        public = rsa.RSAPublicNumbers(PUBLIC_EXPONENT, int.from_bytes(modulus, "big"))
        halves = ((p, dp), (q, dq))
        fit = all(f > 1 and PUBLIC_EXPONENT * d % (f - 1) == 1 and part == d % (f - 1) for f, part in halves)
        if not fit or qi * q % p != 1:
            raise MalformedInput("wallet", "the numbers are no RSA key")
        try:
            numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public)
            wallet = cls(numbers.private_key(unsafe_skip_rsa_key_validation=True))
            wallet._require_trial_signature()
        except (ValueError, InvalidSignature) as error:
            raise MalformedInput("wallet", "the numbers are no RSA key") from error
        return wallet

    def sign(self, message: bytes) -> bytes:
        """RSA-PSS over SHA-256, without salt: the same fields always give the same signature and id."""
        return self._key.sign(message, _PSS, hashes.SHA256())

    def _require_trial_signature(self) -> None:
        """Raises InvalidSignature where a factor is no prime: the private exponent undoes nothing then."""
        self._key.public_key().verify(self.sign(b"trial"), b"trial", _PSS, hashes.SHA256())


def generate_wallet() -> dict[str, str]:
    """A fresh private JWK; takes 0.3 to 2 s. For development networks."""
    numbers = rsa.generate_private_key(public_exponent=PUBLIC_EXPONENT, key_size=8 * OWNER_BYTES).private_numbers()
    values = {
        "n": numbers.public_numbers.n,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    encoded = {
        name: encode_base64url(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in values.items()
    }
    return {"kty": "RSA", "e": "AQAB", **encoded}
