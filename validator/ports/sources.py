"""Brokers: where the messages of a window are pulled from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from validator.protocol.model import Address, StreamPart, Window


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker to pull from: its node address and HTTP URL."""

    address: Address
    url: str


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """One line or body of a broker's answer as received, and which broker served it."""

    broker: Address
    position: int
    data: bytes
    form: str
    """"array" (legacy JSON array) or "protobuf"."""


@dataclass(frozen=True, slots=True)
class Pull:
    """What one broker answered for one stream partition and window.

    ``complete``: there is evidence that the broker had no more: a trailer, or an answer that began with the last
    message and held nothing new. ``unchanged``: 304, nothing was handed over and the earlier pull still stands.
    ``error`` names why it is not complete, and where what is known of that: from which message to which.
    """

    broker: Address
    stream_part: StreamPart
    complete: bool
    unchanged: bool = False
    etag: str | None = None
    error: str = ""


class TakeRecords(Protocol):
    """Takes records that follow each other in a broker's answer, the first at ``position``; from any thread."""

    def __call__(
        self, broker: Address, part: StreamPart, position: int, records: Sequence[bytes], form: str, /
    ) -> None: ...


class MessageSource(Protocol):
    """Brokers over HTTP (reference: Log Store broker layer, HTTP API)."""

    def stream_window(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        take: TakeRecords,
        *,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
    ) -> list[Pull]:
        """Pull [start, end) of every part from every broker at once; one Pull per pair, never raises for one.

        Records go to ``take`` as they arrive, from several threads: a window may not fit in memory. Pulls hold none.
        """
