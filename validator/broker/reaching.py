"""What is read without proofs: the store's rows, and behind this broker's retention those of the lake.

For the paths of the brokers before us, for the newest so many, and for who follows a stream. Within retention the store
alone answers, so that neither bundles nor gateways are in the way of who pulls what is new; behind it the certified
history up to the newest bundle does, or says that it cannot: an empty answer would be a lie. Synchronous.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from validator.broker.core import Broker
from validator.broker.store import PAGE_BYTES
from validator.ports.certified import CertifiedHistory
from validator.ports.message_store import LEAF_BYTES, Columns, SortKey
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.model import InstanceKind, StreamPart

FIRST_SPAN_MS = 3_600_000
MOST_SETS = 20_000
"""Looked at behind retention for the newest messages of a partition; what lies behind so many is not found."""


def read_page(
    broker: Broker, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
) -> Columns:
    """As ``MessageStore.page``, over both.

    Raises:
        TransientError, RemoteFault: behind retention, and nobody gives what is certified there now.
    """
    history, end_ms = broker.history, broker.retained_from_ms()
    newest = None if history is None or from_ms >= end_ms else history.newest()
    if history is None or newest is None:
        return broker.store.page(part, from_ms, until_ms, after=after, limit=limit)
    if after is None or after.timestamp_ms < end_ms:
        page = history.page(part, from_ms, min(until_ms, end_ms), newest, after=after, limit=limit).columns
        if page or until_ms <= end_ms:
            return page
    return broker.store.page(part, end_ms, until_ms, after=after, limit=limit)


def read_last(broker: Broker, part: StreamPart, count: int) -> Columns:
    """The newest ``count`` rows, in order; fewer where their bytes are many. Raises as ``read_page``."""
    held = Columns.of_rows(broker.store.last(part, count))
    history, end_ms = broker.history, broker.retained_from_ms()
    if len(held) >= count or len(held.canonical) >= PAGE_BYTES or history is None:
        return held
    newest = history.newest()
    if newest is None or end_ms <= broker.network.genesis_ms:
        return held
    held = _cut(held, bisect_left(held.times_ms, end_ms))
    wanted = count - len(held)
    pages: deque[Columns] = deque()
    after: SortKey | None = None
    start_ms = _start_of_last(history, part, end_ms, wanted, newest)
    while page := history.page(part, start_ms, end_ms, newest, after=after, limit=wanted).columns:
        after = page.last_key
        pages.append(page)
        while len(pages) > 1 and _is_enough([*pages][1:], wanted):
            pages.popleft()
    found = Columns.join([*pages, held])
    return _cut(found, max(0, len(found) - count))


def _is_enough(pages: Sequence[Columns], rows: int) -> bool:
    return sum(map(len, pages)) >= rows or sum(len(page.canonical) for page in pages) >= PAGE_BYTES


def _cut(page: Columns, start: int) -> Columns:
    """The rows from a place on."""
    if not start:
        return page
    messages = page.messages()[start:]
    return Columns(
        b"".join(messages),
        page.sizes[start:],
        page.leaves[start * LEAF_BYTES :],
        page.times_ms[start:],
        sum([record_from_canonical(message).signed_bytes for message in messages]),
    )


def _start_of_last(history: CertifiedHistory, part: StreamPart, end_ms: int, count: int, as_of: int) -> int:
    """Where a window begins behind which certified windows have so many rows; 0: they have fewer, or lie too far."""
    until_ms, span_ms, found, looked = end_ms, FIRST_SPAN_MS, 0, 0
    while until_ms > 0 and looked < MOST_SETS:
        from_ms = max(0, until_ms - span_ms)
        windows = [s for s in history.sets(part, from_ms, until_ms, as_of) if s.instance.kind is InstanceKind.WINDOW]
        looked += len(windows)
        for window in reversed(windows):
            found += 0 if window.entry is None or window.until_ms > until_ms else window.entry.count
            if found >= count:
                return window.from_ms
        until_ms, span_ms = from_ms, 2 * span_ms
    return until_ms
