"""``RemoteSigner``: a key that lies in a server which speaks Web3Signer's HTTP (mode ``eth1``).

    GET  /api/v1/eth1/publicKeys         ["0x…", …]: uncompressed, 64 bytes; other servers write the leading 04
    POST /api/v1/eth1/sign/{public key}  {"data": "0x…"}  →  text/plain: 0x r s v over keccak-256 of the data

The server hashes by itself, so it is given the 66 bytes of typed data, or an unsigned transaction. Its word is not
taken: a signature counts only if recovery over our own hash gives the address that the operator named. Whatever goes
wrong is a TransientError: nothing was signed, and the operator mends what has to be mended while the steps wait.
"""

from __future__ import annotations

import json
import math
import re
import ssl
import threading

import structlog

from validator.net.http.client import Answer, BoundedClient
from validator.net.http.urls import EVERYWHERE, OperatorUrl
from validator.protocol.codec.secp256k1 import CURVE_ORDER, address_of_public_key, is_low_s, recover_address
from validator.protocol.errors import MalformedInput, TransientError, ValidatorError
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

log = structlog.get_logger(__name__)

DEADLINE_S = 5.0
CONNECTIONS = 8
MAX_SIGNATURE_BYTES = 1 << 10
MAX_KEYS_BYTES = 1 << 20
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}", re.ASCII)
_PUBLIC_KEY = re.compile(r"0x(?:04)?([0-9a-fA-F]{128})", re.ASCII)


class RemoteSigner:
    """One key at one server. Thread-safe. Its repr shows address and host."""

    def __init__(
        self, url: OperatorUrl, address: Address, *, tls: ssl.SSLContext | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        self.address = address
        self.host = url.origin.authority
        self._origin, self._prefix, self._headers = url.origin, url.target.rstrip("/"), url.headers
        self._deadline_s = deadline_s
        self._client = BoundedClient(
            allow_nets=EVERYWHERE,
            connect_timeout_s=deadline_s,
            read_timeout_s=deadline_s,
            floor_after_s=math.inf,
            encodings=(),
            per_port=CONNECTIONS,
            ssl_context=tls,
        )
        self._lock = threading.Lock()
        self._identifier = ""
        self._said = ""

    def close(self) -> None:
        self._client.close()

    def __repr__(self) -> str:
        return f"RemoteSigner(0x{self.address.hex()} at {self.host})"

    def sign_payload(self, payload: bytes) -> bytes:
        """As ``Signer``. Raises TransientError."""
        try:
            signature = self._sign(payload)
        except ValidatorError as error:
            raise self._failed(error) from error
        self._said = ""
        return signature

    def check(self) -> None:
        """Whether the server answers and holds the key. Raises TransientError."""
        try:
            self._find_key()
        except ValidatorError as error:
            raise self._failed(error) from error

    def _failed(self, error: ValidatorError) -> TransientError:
        """The same reason is logged once, however many requests a hung server leaves unsigned."""
        reason = f"signer {self.host}: {error.fields.get('reason', error.message)}"
        if reason != self._said:
            log.error("signer.failed", host=self.host, address=self.address, reason=reason)
        self._said = reason
        return TransientError(reason, reason="signer")

    def _sign(self, payload: bytes) -> bytes:
        body = json.dumps({"data": "0x" + payload.hex()}).encode()
        answer = self._ask("POST", f"/api/v1/eth1/sign/{self._find_key()}", MAX_SIGNATURE_BYTES, body)
        if answer.status == 404:
            with self._lock:
                self._identifier = ""  # its keys were loaded anew: look again, the next time
            raise MalformedInput("signature", f"it does not hold the key of 0x{self.address.hex()}")
        text = _require_ok(answer).strip().strip('"')
        if not _SIGNATURE.fullmatch(text):
            raise MalformedInput("signature", "its answer is no signature of 65 bytes")
        signature = _normalise(bytes.fromhex(text[2:]))
        if recover_address(keccak256(payload), signature) != self.address:
            raise MalformedInput("signature", f"its signature is not that of 0x{self.address.hex()} over what we asked")
        return signature

    def _find_key(self) -> str:
        """The server's name for the key: its public key."""
        with self._lock:
            if self._identifier:
                return self._identifier
        text = _require_ok(self._ask("GET", "/api/v1/eth1/publicKeys", MAX_KEYS_BYTES))
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            raise MalformedInput("public keys", "its list of keys is not JSON") from None
        names: list[str] = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        for name in names:
            key = _PUBLIC_KEY.fullmatch(name)
            if key is not None and address_of_public_key(b"\x04" + bytes.fromhex(key[1])) == self.address:
                with self._lock:
                    self._identifier = name
                return name
        raise MalformedInput("public keys", f"it does not hold the key of 0x{self.address.hex()}")

    def _ask(self, method: str, target: str, max_bytes: int, body: bytes | None = None) -> Answer:
        headers = [*self._headers, *([("content-type", "application/json")] if body is not None else ())]
        return self._client.fetch(
            method,
            self._origin,
            self._prefix + target,
            max_bytes=max_bytes,
            deadline_s=self._deadline_s,
            headers=headers,
            body=body,
        )


def _require_ok(answer: Answer) -> str:
    if answer.status != 200:
        raise MalformedInput("status", f"HTTP {answer.status}")
    return answer.body.decode("utf-8", errors="replace")


def _normalise(signature: bytes) -> bytes:
    """v as 27 or 28, s in the lower half: what hardware behind a server leaves undone."""
    v = signature[64] + 27 if signature[64] < 2 else signature[64]
    if is_low_s(signature):
        return signature[:64] + bytes([v])
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    if s < 0 or v not in (27, 28):
        raise MalformedInput("signature", "its answer is no signature")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - v])
