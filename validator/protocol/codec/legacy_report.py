"""Reports of the deployed LogStoreReportManager: the packed bytes, and the time-based hash that reporters sign.

The packing has no lengths, no section marks and no chain id (its weakness, not ours to mend): it is written exactly as
deployed contracts hash it, and used in legacy mode only. ``hexstr`` is the text "0x" and the fewest whole lower-case
hex bytes, "-" before it if negative. Order of lines is the order of the arrays. Vectors: tests/vectors/report.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest


@dataclass(frozen=True, slots=True)
class LegacyReport:
    """The content of a deployed-format report, in array order. Amounts in base units; ``id`` is decimal seconds.

    ``streams`` are (id, capture, bytes), ``consumers`` (address, capture, bytes), ``nodes`` (address, change),
    ``delegates`` (address, ((node, change), ...)).
    """

    id: str
    height: int
    streams: tuple[tuple[str, int, int], ...]
    consumers: tuple[tuple[Address, int, int], ...]
    nodes: tuple[tuple[Address, int], ...]
    delegates: tuple[tuple[Address, tuple[tuple[Address, int], ...]], ...]
    treasury: int


def encode_amount_text(amount: int) -> bytes:
    """``hexstr``: 0 is 0x00, 256 is 0x0100, -1 is -0x01."""
    size = max(1, (abs(amount).bit_length() + 7) // 8)
    return (b"-0x" if amount < 0 else b"0x") + abs(amount).to_bytes(size, "big").hex().encode()


def encode_pack(report: LegacyReport) -> bytes:
    """The lines of a report, packed as the deployed contract does."""
    parts: list[bytes] = []
    for stream_id, capture, size in report.streams:
        parts += [stream_id.encode(), encode_amount_text(capture), size.to_bytes(32, "big")]
    for consumer, capture, size in report.consumers:
        parts += [consumer, encode_amount_text(capture), size.to_bytes(32, "big")]
    for node, change in report.nodes:
        parts += [node, encode_amount_text(change)]
    for delegate, changes in report.delegates:
        parts.append(delegate)
        for node, change in changes:
            parts += [node, encode_amount_text(change)]
    return b"".join(parts)


def compute_report_hash(report: LegacyReport) -> Digest:
    """Identity of a report among brokers; not on chain."""
    return keccak256(_preimage(report))


def compute_time_hash(report: LegacyReport, timestamp_ms: int) -> Digest:
    """The time-based one-time hash (TOTH) of a reporter's proof."""
    return keccak256(_preimage(report) + timestamp_ms.to_bytes(32, "big"))


def compute_signed_digest(report: LegacyReport, timestamp_ms: int) -> Digest:
    """What a reporter's key signs: EIP-191 over the 32 raw bytes of the time hash."""
    return keccak256(b"\x19Ethereum Signed Message:\n32" + compute_time_hash(report, timestamp_ms))


def _preimage(report: LegacyReport) -> bytes:
    return (
        report.id.encode()
        + report.height.to_bytes(32, "big")
        + encode_pack(report)
        + encode_amount_text(report.treasury)
    )
