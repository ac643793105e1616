"""Keys of publishers, one class per way to sign that Streamr knows (reference of Streamr, section 6.3).

The message that a signer signs already names its publisher and signature type: ``unsigned`` made it so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from validator.devnet.process import read_address, read_key
from validator.protocol.codec.payload import SECP256R1_N, normalise_signature, signature_payload
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import sign_message
from validator.protocol.errors import ConfigError
from validator.protocol.hashing import hash_labelled
from validator.protocol.model import Message, SignatureType


class Scheme(StrEnum):
    """How a publisher signs, and how its public key is written where there are two ways."""

    LEGACY = "legacy"
    EVM = "evm"
    ERC_1271 = "erc-1271"
    P256 = "p-256"
    P256_UNCOMPRESSED = "p-256-uncompressed"
    ML_DSA_87 = "ml-dsa-87"

    @property
    def signature_type(self) -> SignatureType:
        return _TYPES[self]


_TYPES = {
    Scheme.LEGACY: SignatureType.ECDSA_SECP256K1_LEGACY,
    Scheme.EVM: SignatureType.ECDSA_SECP256K1_EVM,
    Scheme.ERC_1271: SignatureType.ERC_1271,
    Scheme.P256: SignatureType.ECDSA_SECP256R1,
    Scheme.P256_UNCOMPRESSED: SignatureType.ECDSA_SECP256R1,
    Scheme.ML_DSA_87: SignatureType.ML_DSA_87,
}


class PublisherConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A publisher in a config file: 32 bytes of secret as 0x hex, and the wallet that it signs for (ERC-1271 only)."""

    key: str
    scheme: Scheme = Scheme.LEGACY
    wallet: str | None = None


class Signer(Protocol):
    """Signs as one publisher."""

    @property
    def publisher_id(self) -> bytes:
        """The user id to which the stream registry gives permission."""

    @property
    def signature_type(self) -> SignatureType: ...

    def sign(self, message: Message) -> Message:
        """The same message with this key's signature over its payload, whoever is named as its publisher."""


class AccountSigner:
    """A secp256k1 key: of an account, or of the owner of a wallet that is the publisher."""

    def __init__(self, key: SigningKey, scheme: Scheme = Scheme.LEGACY, wallet: bytes | None = None) -> None:
        self.key = key
        self.publisher_id: bytes = key.address if wallet is None else wallet
        self.signature_type = scheme.signature_type

    def sign(self, message: Message) -> Message:
        return sign_message(self.key, message)


class P256Signer:
    """A P-256 key; the publisher is its public key, compressed or not."""

    signature_type = SignatureType.ECDSA_SECP256R1

    def __init__(self, secret: bytes, *, compressed: bool) -> None:
        self._key = ec.derive_private_key(int.from_bytes(secret, "big") % (SECP256R1_N - 1) + 1, ec.SECP256R1())
        form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
        self.publisher_id = self._key.public_key().public_bytes(Encoding.X962, form)

    def sign(self, message: Message) -> Message:
        scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self._key.sign(signature_payload(message), scheme))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return replace(message, signature=normalise_signature(self.signature_type, signature))


class MlDsaSigner:
    """An ML-DSA-87 key; the publisher is its public key of 2592 bytes."""

    signature_type = SignatureType.ML_DSA_87

    def __init__(self, secret: bytes) -> None:
        self._key = mldsa.MLDSA87PrivateKey.from_seed_bytes(secret)
        self.publisher_id = self._key.public_key().public_bytes_raw()

    def sign(self, message: Message) -> Message:
        return replace(message, signature=self._key.sign(signature_payload(message)))


def make_signer(config: PublisherConfig) -> Signer:
    """Raises ConfigError for a key that is none, and for a wallet where none belongs or is missing."""
    key = read_key(config.key, "publishers")
    if (config.wallet is not None) is not (config.scheme is Scheme.ERC_1271):
        raise ConfigError(f"publishers: scheme {config.scheme} and a wallet: both or neither", field="publishers")
    if config.scheme is Scheme.ML_DSA_87:
        return MlDsaSigner(bytes.fromhex(key.secret_hex()[2:]))
    if config.scheme in (Scheme.P256, Scheme.P256_UNCOMPRESSED):
        return P256Signer(bytes.fromhex(key.secret_hex()[2:]), compressed=config.scheme is Scheme.P256)
    wallet = None if config.wallet is None else read_address(config.wallet, "publishers")
    return AccountSigner(key, config.scheme, wallet)


def make_stranger(signer: Signer, seed: int) -> Signer:
    """A key that signs in the same way, and is nobody's."""
    key = SigningKey(hash_labelled("logstore/devnet/stranger", str(seed).encode()))
    secret = bytes.fromhex(key.secret_hex()[2:])
    if isinstance(signer, MlDsaSigner):
        return MlDsaSigner(secret)
    if isinstance(signer, P256Signer):
        return P256Signer(secret, compressed=len(signer.publisher_id) == 33)
    scheme = Scheme.LEGACY if signer.signature_type is SignatureType.ECDSA_SECP256K1_LEGACY else Scheme.EVM
    return AccountSigner(key, scheme)
