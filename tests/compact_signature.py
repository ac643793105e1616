"""Signatures as the contract takes them, put back into the form that tests recover a signer from."""

from __future__ import annotations

from validator.protocol.codec.secp256k1 import is_low_s
from validator.protocol.errors import MalformedInput


def expand_compact(compact: bytes) -> bytes:
    """Inverse of ``codec.report.compact_signature``. Raises MalformedInput for a wrong length or high s."""
    if len(compact) != 64:
        raise MalformedInput("signature", f"{len(compact)} bytes where 64 belong")
    v = 27 + (compact[32] >> 7)
    signature = compact[:32] + bytes([compact[32] & 0x7F]) + compact[33:] + bytes([v])
    if not is_low_s(signature):
        raise MalformedInput("signature", "s is in the upper half of the order")
    return signature
