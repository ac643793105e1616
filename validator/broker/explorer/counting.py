"""Messages over time: of all stream partitions from the sums that the broker keeps, of one by counting its index.

Sums cost a few rows a bar. Counting costs the messages that are counted, so it goes back from the newest bar and stops
where its budget is spent: what is older is shown as not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from validator.broker.slices import SliceSums
from validator.ports.message_store import MessageStore
from validator.protocol.model import StreamPart
from validator.protocol.slices import BLOCK_MS, HOUR_MS, SLICE_MS, closed_until

COUNTED = 1_000_000
"""Messages of one picture: they take the store some 50 ms, outside the interpreter's lock."""


class Span(StrEnum):
    """How far a picture reaches back."""

    MINUTES = "10m"
    HOUR = "1h"
    HOURS = "6h"
    DAY = "1d"
    WEEK = "7d"


BARS = {
    Span.MINUTES: (60, SLICE_MS),
    Span.HOUR: (60, 6 * SLICE_MS),
    Span.HOURS: (72, BLOCK_MS),
    Span.DAY: (72, 4 * BLOCK_MS),
    Span.WEEK: (84, 2 * HOUR_MS),
}
"""Number and length of a picture's bars: whole nodes of the tree of sums, so that few are read."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Bars side by side from ``start_ms`` on; None: not counted."""

    span: Span
    start_ms: int
    bar_ms: int
    counts: tuple[int | None, ...]

    @property
    def total(self) -> int:
        return sum(count or 0 for count in self.counts)

    @property
    def end_ms(self) -> int:
        return self.start_ms + len(self.counts) * self.bar_ms

    @property
    def is_whole(self) -> bool:
        return None not in self.counts


def count_all(sums: SliceSums, span: Span, now_ms: int) -> Rate:
    """Of everything that is held, in closed slices."""
    number, bar_ms = BARS[span]
    until_ms = closed_until(now_ms)
    start_ms = until_ms - until_ms % bar_ms + (bar_ms if until_ms % bar_ms else 0) - number * bar_ms
    counts = []
    for at in range(start_ms, start_ms + number * bar_ms, bar_ms):
        end_ms = min(at + bar_ms, until_ms)
        counts.append(sum(node.count for node in sums.below(at, end_ms)) if at < end_ms else 0)
    return Rate(span, start_ms, bar_ms, tuple(counts))


def count_part(store: MessageStore, part: StreamPart, span: Span, until_ms: int) -> Rate:
    """Of one stream partition, up to and with the bar in which ``until_ms`` lies."""
    number, bar_ms = BARS[span]
    end_ms = until_ms - until_ms % bar_ms + bar_ms
    counts: list[int | None] = []
    left = COUNTED
    for at in range(end_ms - bar_ms, end_ms - (number + 1) * bar_ms, -bar_ms):
        if left <= 0:
            counts.append(None)
            continue
        count = store.state(part, max(at, 0), max(at + bar_ms, 0)).count
        left -= count
        counts.append(count)
    return Rate(span, end_ms - number * bar_ms, bar_ms, tuple(reversed(counts)))
