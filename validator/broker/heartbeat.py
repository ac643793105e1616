"""Heartbeats of this broker, and what those of others say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from validator.broker.evidence import KEPT, Evidence, EvidenceBook, Lie
from validator.broker.slices import SliceSums
from validator.log import get_logger
from validator.protocol.codec.heartbeat import RECENT_MS, Heartbeat, heartbeat_of
from validator.protocol.model import Address, Record, Root, StreamPart
from validator.protocol.slices import BLOCK_MS, closed_until

log = get_logger(__name__)

BEAT_S = 1.0
CLOCK_MS = 30_000
"""A broker whose heartbeats lie farther from our clock is shown with the difference."""
STALE_MS = 60_000
"""A heartbeat is made a moment before it is signed, by one clock; this is more than any machine takes."""
TWIN_MS = 60_000
SILENT_MS = 10_000
"""Ten heartbeats; whoever says nothing for so long is shown as silent."""


def make_heartbeat(sums: SliceSums, now_ms: int, urls: Sequence[str], bundle: tuple[int, Root] | None) -> Heartbeat:
    """What this broker holds in the slices that are closed: of the last five to ten minutes, and of the time before."""
    until_ms = closed_until(now_ms)
    first_ms = min(sums.from_ms, until_ms)
    recent_ms = max(until_ms - until_ms % BLOCK_MS - RECENT_MS, first_ms)
    return Heartbeat(tuple(urls), bundle, sums.total(recent_ms, until_ms), sums.total(first_ms, recent_ms))


CHAINS = 8
"""Of a broker that are remembered: each start makes a new one."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest heartbeat of a broker: ``said_ms`` by its clock, ``heard_ms`` by ours, with the message that it is."""

    heartbeat: Heartbeat
    said_ms: int
    heard_ms: int
    canonical: bytes

    @property
    def clock_off_ms(self) -> int:
        """How far the broker's clock seems to be from ours, where that is more than travelling takes; else 0."""
        off_ms = self.said_ms - self.heard_ms
        return off_ms if abs(off_ms) > CLOCK_MS else 0


class Chains:
    """Chains in which a broker's heartbeats come. A process speaks in one and never in another's: whoever speaks again
    after another chain has spoken lives beside it, with the same key."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, bytes] = OrderedDict()

    def add(self, chain: str, canonical: bytes) -> tuple[bytes, ...]:
        """The next heartbeat, in the order of time; three that show two processes, or nothing."""
        before = self._newest.get(chain)
        spoke = next(reversed(self._newest), chain)
        shown = () if before is None or spoke == chain else (before, self._newest[spoke], canonical)
        self._newest[chain] = canonical
        self._newest.move_to_end(chain)
        while len(self._newest) > CHAINS:
            self._newest.popitem(last=False)
        return shown


class Hearing:
    """Belongs to one event loop. ``brokers``: who counts as one now."""

    def __init__(
        self,
        me: Address,
        system_part: StreamPart,
        brokers: Callable[[], Container[Address]],
        book: EvidenceBook,
        now_ms: Callable[[], int],
    ) -> None:
        self._me = me
        self._system_part = system_part
        self._brokers = brokers
        self._book = book
        self._now_ms = now_ms
        self.newest: dict[Address, Heard] = {}
        self.twin_ms: int | None = None
        """When another process was last heard with our own key."""
        self._chains: dict[Address, Chains] = {}

    def hear(self, record: Record) -> None:
        """A message that was checked and stored. Old ones, as repair brings them, are no news."""
        message = record.message
        if message.stream_part != self._system_part:
            return
        said = heartbeat_of(message)
        if said is not None and said[0] == self._me:
            self._hear_own(record)
            return
        if said is None or said[0] not in self._brokers():
            return
        broker, heartbeat = said
        if closed_until(message.timestamp_ms) - heartbeat.recent.end_ms > STALE_MS:
            behind_s = (closed_until(message.timestamp_ms) - heartbeat.recent.end_ms) // 1000
            self._catch(broker, Lie.STALE, f"its heartbeat claims nothing of the newest {behind_s} s", record.canonical)
        last = self.newest.get(broker)
        if last is not None and message.timestamp_ms <= last.said_ms:
            if message.timestamp_ms == last.said_ms and heartbeat != last.heartbeat:
                detail = "two heartbeats of one moment that differ"
                self._catch(broker, Lie.EQUIVOCATED, detail, *sorted((last.canonical, record.canonical)))
            return
        self.newest[broker] = Heard(heartbeat, message.timestamp_ms, self._now_ms(), record.canonical)
        words = self._chains.setdefault(broker, Chains()).add(message.msg_chain_id, record.canonical)
        if words:
            self._catch(broker, Lie.EQUIVOCATED, "two processes speak with its key", *words)

    def _hear_own(self, record: Record) -> None:
        """Ours, or another process's that has our key."""
        if self._chains.setdefault(self._me, Chains()).add(record.message.msg_chain_id, record.canonical):
            if self.twin_ms is None:
                log.error("broker.twin", detail="another process speaks with this broker's key: end one of them")
            self.twin_ms = self._now_ms()

    @property
    def has_twin(self) -> bool:
        return self.twin_ms is not None and self._now_ms() - self.twin_ms < TWIN_MS

    def _catch(self, broker: Address, lie: Lie, detail: str, *words: bytes) -> None:
        """Once for the same words; and of a lie that goes on every second, so many pieces are enough."""
        held = [e for e in self._book.of(broker) if e.lie is lie]
        if len(held) < KEPT and not any(e.words == words for e in held):
            self._book.add(Evidence(broker, lie, detail, self._now_ms(), words))

    def is_silent(self, broker: Address) -> bool:
        heard = self.newest.get(broker)
        return heard is None or self._now_ms() - heard.heard_ms > SILENT_MS
