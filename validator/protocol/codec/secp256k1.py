"""Sign 32-byte digests and recover the signer: r (32) || s (32) || v (27 or 28), low s.

libsecp256k1 through coincurve. Signing is deterministic (RFC 6979), recovery accepts exactly what Ethereum's
``ecrecover`` accepts with v 27 or 28.
"""

from __future__ import annotations

from typing import Protocol

import coincurve

from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1: a private key lies between 0 and this (SEC 2, section 2.4.1)."""
HALF_ORDER = CURVE_ORDER // 2


class Signer(Protocol):
    """Signs with one secp256k1 key, which may lie in another machine: so it is given the bytes, never their hash alone.

    ``SigningKey`` is the one whose key is here, ``net.signer.RemoteSigner`` asks a server.
    """

    @property
    def address(self) -> Address: ...

    def sign_payload(self, payload: bytes) -> bytes:
        """65 bytes r, s, v over keccak-256 of ``payload``: v 27 or 28, low s, and recovery gives ``address``.

        Raises, where the key is elsewhere:
            TransientError: the server does not answer, does not hold the key, or its answer is no such signature.
        """


class SigningKey:
    """A secp256k1 private key. Its repr shows the address only."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        """``secret``: 32 bytes. Raises ValueError if it is no valid key."""
        if len(secret) != 32:
            raise ValueError(f"a private key has 32 bytes, not {len(secret)}")
        self._key = coincurve.PrivateKey(secret)
        self.address = address_of_public_key(self._key.public_key.format(compressed=False))

    def sign(self, digest: Digest) -> bytes:
        """65 bytes r, s, v over the digest itself (no further hashing)."""
        signature: bytes = self._key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def sign_payload(self, payload: bytes) -> bytes:
        """As ``Signer``."""
        return self.sign(keccak256(payload))

    def secret_hex(self) -> str:
        """For files of the development network and for keystores; never logged."""
        secret: str = self._key.to_hex()
        return "0x" + secret.rjust(64, "0")

    def __repr__(self) -> str:
        return f"SigningKey(0x{self.address.hex()})"


def address_of_public_key(uncompressed: bytes) -> Address:
    """Last 20 bytes of keccak-256 of the 64-byte public key (leading 0x04 given)."""
    return Address(keccak256(uncompressed[1:])[-20:])


def recover_address(digest: Digest, signature: bytes) -> Address:
    """Signer of ``digest``.

    Raises:
        MalformedInput: wrong length, v other than 27 or 28, r or s out of range, or no such point.
    """
    if len(signature) != 65:
        raise MalformedInput("signature", f"{len(signature)} bytes where 65 belong")
    if signature[64] not in (27, 28):
        raise MalformedInput("signature", f"recovery value {signature[64]} is not 27 or 28")
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception and ValueError alike
        raise MalformedInput("signature", "no public key can be recovered") from error
    return address_of_public_key(key.format(compressed=False))


def verify_signature(digest: Digest, signature: bytes, signer: Address) -> None:
    """Whether a signature is one that our contracts accept as ``signer``'s: the one answer for the door, for what is
    loaded, and for what is packed into a report.

    Raises:
        MalformedInput: field "signature": 65 bytes, v 27 or 28, s in the lower half, and recovery gives the signer.
    """
    recovered = recover_address(digest, signature)
    if not is_low_s(signature):
        raise MalformedInput("signature", "high s")
    if recovered != signer:
        raise MalformedInput("signature", "not of the named signer")


def is_low_s(signature: bytes) -> bool:
    return int.from_bytes(signature[32:64], "big") <= HALF_ORDER
