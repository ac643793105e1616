"""A window of brokers held in memory: what a test compares, and what nothing but a test can afford."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from validator.ports.sources import Broker, MessageSource, Pull, PulledRecord
from validator.protocol.model import Address, StreamPart, Window


@dataclass(frozen=True, slots=True)
class HeldPull(Pull):
    """A Pull with the records that were handed over for it."""

    records: tuple[PulledRecord, ...] = ()


def fetch_window(
    source: MessageSource,
    brokers: Sequence[Broker],
    parts: Sequence[StreamPart],
    window: Window,
    *,
    etags: Mapping[tuple[Address, StreamPart], str],
    deadline_ms: int,
) -> list[HeldPull]:
    """``stream_window`` whose Pulls hold the records that were taken."""
    held: dict[tuple[Address, StreamPart], list[PulledRecord]] = defaultdict(list)
    lock = threading.Lock()

    def take(broker: Address, part: StreamPart, position: int, records: Sequence[bytes], form: str) -> None:
        with lock:
            held[broker, part].extend(PulledRecord(broker, at, data, form) for at, data in enumerate(records, position))

    pulls = source.stream_window(brokers, parts, window, take, etags=etags, deadline_ms=deadline_ms)
    with lock:
        return [
            HeldPull(**{f.name: getattr(p, f.name) for f in fields(Pull)}, records=tuple(held[p.broker, p.stream_part]))
            for p in pulls
        ]
