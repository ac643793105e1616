"""Login tokens: a consumer's word to one broker, for a short time, that it is who asks.

EIP-712 ``Login(address consumer,address broker,uint64 expiryMs,bytes32 nonce)`` in the domain (LogStoreLogin, 1, chain
id, ReportManager). It travels as ``Authorization: LogStore <token>``, the token being canonical CBOR ["login/1",
consumer, broker, expiry ms, nonce, signature] in base64url without padding. A broker refuses one that is for another
broker, has expired, or would be good for longer than ``MAX_LIFE_MS``: whoever overhears it can use it at this broker,
and until then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from validator.protocol.codec import cbor
from validator.protocol.codec.answer import read_text, write_text
from validator.protocol.codec.cbor import read_bytes, read_u63
from validator.protocol.codec.secp256k1 import Signer, verify_signature
from validator.protocol.codec.statement import SigningContext
from validator.protocol.codec.typed_data import Struct, payload
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

SCHEME = "LogStore"
PURPOSE = "Login"
LOGIN_KIND = "login/1"
MAX_LIFE_MS = 3_600_000
LEEWAY_MS = 90_000
"""How far the clocks of consumer and broker may differ."""
MAX_LOGIN_BYTES = 256

_LOGIN = Struct("Login", (("address", "consumer"), ("address", "broker"), ("uint64", "expiryMs"), ("bytes32", "nonce")))


@dataclass(frozen=True, slots=True)
class Login:
    """``consumer`` asks ``broker``, until ``expiry_ms``. ``nonce``: 32 bytes that the consumer has used in no other."""

    consumer: Address
    broker: Address
    expiry_ms: int
    nonce: bytes
    signature: bytes = b""


def _payload(login: Login, context: SigningContext) -> bytes:
    values = {
        "consumer": login.consumer,
        "broker": login.broker,
        "expiryMs": login.expiry_ms,
        "nonce": login.nonce,
    }
    return payload(context.domain(PURPOSE), _LOGIN, values)


def sign_login(login: Login, key: Signer, context: SigningContext) -> Login:
    return replace(login, signature=key.sign_payload(_payload(login, context)))


def write_login(login: Login) -> str:
    """The value of the Authorization header."""
    data = cbor.encode_object(LOGIN_KIND, login.consumer, login.broker, login.expiry_ms, login.nonce, login.signature)
    return f"{SCHEME} {write_text(data)}"


def read_login(header: str) -> Login:
    """Inverse of ``write_login``; says nothing about the signature. Raises MalformedInput."""
    scheme, _, text = header.partition(" ")
    if scheme != SCHEME:
        raise MalformedInput("authorization", f"not a {SCHEME} token")
    data = read_text(text, "authorization", max_bytes=MAX_LOGIN_BYTES)
    f = cbor.decode_object(data, LOGIN_KIND, 5, max_bytes=MAX_LOGIN_BYTES)
    return Login(
        Address(read_bytes(f[0], 20, "consumer")),
        Address(read_bytes(f[1], 20, "broker")),
        read_u63(f[2], "expiry"),
        read_bytes(f[3], 32, "nonce"),
        read_bytes(f[4], 65, "signature"),
    )


def check_login(login: Login, context: SigningContext, broker: Address, now_ms: int) -> None:
    """Raises MalformedInput unless ``broker`` may take it now, and the consumer that it names has signed it."""
    if login.broker != broker:
        raise MalformedInput("authorization", f"for another broker than 0x{broker.hex()}")
    if login.expiry_ms < now_ms - LEEWAY_MS:
        raise MalformedInput("authorization", "the token has expired")
    if login.expiry_ms > now_ms + MAX_LIFE_MS + LEEWAY_MS:
        raise MalformedInput("authorization", f"good for longer than {MAX_LIFE_MS // 60_000} minutes")
    verify_signature(keccak256(_payload(login, context)), login.signature, login.consumer)
