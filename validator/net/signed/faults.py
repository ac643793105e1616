"""Refusals on the wire: why a request is not served. Canonical CBOR ["fault/1", name, reason]."""

from __future__ import annotations

from enum import StrEnum

from validator.protocol.codec import cbor
from validator.protocol.errors import MalformedInput

MAX_FAULT_BYTES = 4096


class Fault(StrEnum):
    """Why a request is not served, as both sides count it."""

    PATH = "path"
    METHOD = "method"
    LENGTH = "length"
    SLOW = "slow"
    HEADERS = "headers"
    STRANGER = "stranger"
    RATE = "rate"
    BUSY = "busy"
    SIGNATURE = "signature"
    REPLAY = "replay"
    TIME = "time"
    TRANSIENT = "transient"
    MALFORMED = "malformed"
    REFUSED = "refused"
    DISAGREEMENT = "disagreement"
    FORGED = "forged"
    DISCONNECTED = "disconnected"


def encode_fault(name: Fault, reason: str) -> bytes:
    return cbor.encode_object("fault/1", name.value, reason[:1000])


def decode_fault(data: bytes) -> tuple[str, str]:
    """(name, reason) of a refusal; texts of a stranger."""
    name, reason = cbor.decode_object(data, "fault/1", 2, max_bytes=MAX_FAULT_BYTES)
    if not isinstance(name, str) or not isinstance(reason, str):
        raise MalformedInput("fault", "not two texts")
    return name[:40], reason[:1000]
