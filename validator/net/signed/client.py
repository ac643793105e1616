"""Ask another node: every request signed, every answer believed only with the node's signature over that very request.

An answer without one (a terminator's error page, a full listener) is a reason to come back later, never a fact about
the node. What was asked and answered is kept together as ``Spoken``: by itself evidence of what the node said.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from validator.net.http.client import Answer, BoundedClient
from validator.net.http.urls import ParsedUrl
from validator.net.signed import signing
from validator.net.signed.faults import MAX_FAULT_BYTES, Fault, decode_fault
from validator.net.signed.signing import Channel, Stamp
from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u63
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address

_MAX_TIME_MS = (1 << 62) - 1
MAX_SPOKEN_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question and its signed answer. Whoever has both can check who said what to whom."""

    node: Address
    path: str
    asked: bytes
    stamp: Stamp
    status: int
    body: bytes
    signature: str

    def verify(self, channel: Channel) -> None:
        """Raises MalformedInput, field "signature", unless the node answered this to this question."""
        asked = channel.request_payload(self.stamp, self.path, self.node, self.asked)
        signing.verify(channel.response_payload(keccak256(asked), self.status, self.body), self.signature, self.node)

    def encode(self) -> bytes:
        """Canonical bytes, to keep."""
        s = self.stamp
        stamp = [s.sender, s.boot_id, s.counter, s.time_ms]
        return cbor.encode_object(
            "spoken/1", self.node, self.path, self.asked, stamp, self.status, self.body, self.signature
        )


def decode_spoken(data: bytes) -> Spoken:
    """Inverse of ``Spoken.encode``; the signature is not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, "spoken/1", 7, max_bytes=MAX_SPOKEN_BYTES)
    stamp = read_list(f[3], "spoken.stamp", 4)
    texts = (f[1], f[6])
    if not all(isinstance(text, str) for text in texts):
        raise MalformedInput("spoken", "path or signature is no text")
    return Spoken(
        node=Address(read_bytes(f[0], 20, "spoken.node")),
        path=f[1],
        asked=read_blob(f[2], "spoken.asked"),
        stamp=Stamp(
            Address(read_bytes(stamp[0], 20, "spoken.sender")), *(read_u63(n, "spoken.stamp") for n in stamp[1:])
        ),
        status=read_u63(f[4], "spoken.status"),
        body=read_blob(f[5], "spoken.body"),
        signature=f[6],
    )


class SignedClient:
    """Thread-safe; one per process and channel, since its numbers make requests unique."""

    def __init__(
        self, channel: Channel, key: Signer, client: BoundedClient, now_ms: Callable[[], int] | None = None
    ) -> None:
        self._channel = channel
        self._key = key
        self._client = client
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._boot_id = secrets.randbits(63)
        self._counter = itertools.count(1)
        self._skew_ms: dict[Address, int] = {}

    def ask(
        self, node: Address, base: ParsedUrl, path: str, body: bytes, *, max_bytes: int, deadline_s: float
    ) -> Spoken:
        """Ask, and once more with the node's own time where it says that ours is off.

        Raises:
            TransientError: no answer, none that is signed, or one that says to come back later.
            RemoteFault: the node refuses, in signed words, or broke a rule of HTTP.
        """
        for _ in range(2):
            time_ms = self._now_ms() + self._skew_ms.get(node, 0)
            stamp = Stamp(self._key.address, self._boot_id, next(self._counter), time_ms)
            asked = self._channel.request_payload(stamp, path, node, body)
            answer = self._client.fetch(
                "POST",
                base,
                path,
                max_bytes=max(max_bytes, MAX_FAULT_BYTES),
                deadline_s=deadline_s,
                headers=[
                    *signing.write_stamp(stamp),
                    (signing.SIGNATURE, signing.sign(asked, self._key)),
                    ("Content-Type", "application/octet-stream"),
                    ("Accept-Encoding", "identity"),
                ],
                body=body,
            )
            spoken = Spoken(
                node, path, body, stamp, answer.status, answer.body, answer.headers.get(signing.SIGNATURE, "")
            )
            signed = self._is_signed(spoken)
            if answer.status == 200 and signed:
                return spoken
            name, reason = _fault_of(answer)
            if not (signed and name == Fault.TIME and self._learn_time(node, reason)):
                break
        where = f"0x{node.hex()}: {path}: {answer.status} {name}: {reason}"
        fields: dict[str, Any] = {"member": node, "reason": reason, "status": answer.status, "fault": name}
        if not signed or answer.status in (409, 425, 429) or answer.status >= 500:
            if signed:
                fields["spoken"] = spoken
            raise TransientError(where if signed else f"{where} (unsigned)", **fields)
        raise RemoteFault(where, spoken=spoken, **fields)

    def _is_signed(self, spoken: Spoken) -> bool:
        if not spoken.signature:
            return False
        try:
            spoken.verify(self._channel)
        except MalformedInput:
            return False
        return True

    def _learn_time(self, node: Address, text: str) -> bool:
        """Remember how far the node's clock is from ours; counts in requests to this node only."""
        if not text.isdecimal() or not text.isascii() or len(text) > 18:
            return False
        self._skew_ms[node] = min(int(text), _MAX_TIME_MS) - self._now_ms()
        return True


def _fault_of(answer: Answer) -> tuple[str, str]:
    """Name and reason of a refusal; of an answer that is none of ours, its beginning."""
    try:
        return decode_fault(answer.body)
    except MalformedInput:
        return "unknown", answer.text
