"""Which messages a broker keeps: bytes become records, or a reason; cheap checks first, signatures in batches.

    registered part, size, rate of the part      before anything is decoded
    form, stream, range of time, known already   after decoding
    signature, permission, rate of the publisher the publisher's name is worth nothing before its signature holds, so
                                                 only what it signed counts against it: a forger slows the part at most

Refused messages are counted by reason, and the digest of some is logged; their bytes are kept nowhere.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from validator.broker.chain_view import ChainView
from validator.broker.rates import Rates
from validator.log import get_logger
from validator.ports.message_store import MessageStore
from validator.protocol.codec.batch_verifier import BatchVerifier
from validator.protocol.codec.message_rules import reason_of
from validator.protocol.codec.received import read_all_received
from validator.protocol.codec.signatures import VALID, Verdict, verify_batch
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.hashing import hash_body
from validator.protocol.model import Digest, Reason, Record, StreamPart

log = get_logger(__name__)

SHOWN_S = 10.0
"""At most one refused message of each reason is logged in so many seconds."""
FEW = 64
"""So many do not wait until a larger batch is read and checked."""


class Refusal(StrEnum):
    """Reasons of a broker's own, beside those that all roles share (``model.Reason``)."""

    NOT_REGISTERED = "not_registered"
    PART_RATE = "part_rate"
    PUBLISHER_RATE = "publisher_rate"
    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    CHAIN_UNKNOWN = "chain_unknown"
    """Nobody can say now whether it may be kept."""
    DISK = "disk"


Why = Refusal | Reason
PASSING = frozenset({Refusal.PART_RATE, Refusal.PUBLISHER_RATE, Refusal.CHAIN_UNKNOWN, Refusal.DISK})
"""The same message may be taken later."""


class Fate(StrEnum):
    STORED = "stored"
    KNOWN = "known"
    REFUSED = "refused"


class Judged(NamedTuple):
    """What became of one message."""

    fate: Fate
    why: Why | None = None
    detail: str = ""
    leaf: Digest | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a message, messages a second, and how far from our clock a timestamp may lie, in ms."""

    message_bytes: int = 1 << 20
    part_per_s: float = 5_000.0
    publisher_per_s: float = 5_000.0
    burst_s: float = 4.0
    past_ms: int = 30 * 86_400_000
    future_ms: int = 300_000


@dataclass(slots=True)
class _Door:
    """Of one part in one batch: why nothing may pass, or how many may."""

    why: Why | None
    left: int = 0


class Admission:
    """Thread-safe: several threads may admit batches at once. Duplicates among them cost only time.

    Of large batches one is read and checked at a time, while others wait for the chain or the store: two threads that
    compute cost a message a third more, and are done no sooner.
    """

    def __init__(
        self,
        store: MessageStore,
        chain: ChainView,
        limits: Limits,
        *,
        now_ms: Callable[[], int],
        threads: int = 1,
        recent: int = 200_000,
    ) -> None:
        self._store = store
        self._chain = chain
        self._limits = limits
        self._now_ms = now_ms
        self._threads = threads
        self.verifier = BatchVerifier(threading.Lock())
        self._computing = threading.Lock()
        self._lock = threading.Lock()
        self._parts = Rates(limits.part_per_s, limits.part_per_s * limits.burst_s)
        self._publishers = Rates(limits.publisher_per_s, limits.publisher_per_s * limits.burst_s)
        self._recent: dict[Digest, None] = {}
        self._recent_limit = recent
        self._shown_s: dict[Why, float] = {}
        self.refused: Counter[Why] = Counter()
        self.stored = 0
        self.known = 0
        self.on_kept: Callable[[Sequence[Record]], None] | None = None
        """Told of what is on disk now, whoever brought it."""

    def admit(
        self, items: Sequence[tuple[StreamPart, bytes]], form: str, *, tell_known: bool = False, paced: bool = True
    ) -> list[Judged]:
        """What became of each message; what is stored is on disk when this returns.

        ``tell_known``: look first which of them the store has, for an asker who wants to know; else they pass for new.
        ``paced``: rates count; not where we chose ourselves what to fetch, and when.
        """
        judged: list[Judged | None] = [None] * len(items)
        now_ms = self._now_ms()
        doors = self._open_doors(Counter([part for part, _ in items]), paced=paced)
        with self._computing if len(items) > FEW else nullcontext():
            read = self._read_all(items, form, doors, judged, now_ms)
            verdicts = verify_batch([record for _, record in read], self._threads, self.verifier.verify)
        good = self._check(read, verdicts, judged, paced=paced)
        new = self._keep(good, judged, now_ms, tell_known=tell_known)
        found = [answer for answer in judged if answer is not None]
        self._count(items, found, new)
        return found

    # --- one after the other

    def _open_doors(self, counts: Counter[StreamPart], *, paced: bool) -> dict[StreamPart, _Door]:
        """How many of a batch each part may bring."""
        doors = {part: _Door(self._why_not_part(part)) for part in counts}
        with self._lock:
            for part, door in doors.items():
                if door.why is None:
                    door.left = self._parts.spend(part, counts[part]) if paced else counts[part]
        return doors

    def _read_all(
        self,
        items: Sequence[tuple[StreamPart, bytes]],
        form: str,
        doors: dict[StreamPart, _Door],
        judged: list[Judged | None],
        now_ms: int,
    ) -> list[tuple[int, Record]]:
        """Those that may be kept, if their signatures hold."""
        passed: list[int] = []
        for number, (part, _) in enumerate(items):
            door = doors[part]
            if door.why is not None or not door.left:
                judged[number] = Judged(Fate.REFUSED, door.why or Refusal.PART_RATE, f"{part[0][:256]}#{part[1]}")
                continue
            door.left -= 1
            passed.append(number)
        answers = read_all_received(form, [items[number][1] for number in passed], self._limits.message_bytes)
        read: list[tuple[int, Record]] = []
        for number, answer in zip(passed, answers, strict=True):
            why_not = self._why_not_read(items[number][0], answer, now_ms)
            if why_not is not None:
                judged[number] = why_not
            elif isinstance(answer, Record):
                read.append((number, answer))
        return read

    def _why_not_read(self, part: StreamPart, answer: Record | MalformedInput, now_ms: int) -> Judged | None:
        if isinstance(answer, MalformedInput):
            return Judged(Fate.REFUSED, reason_of(answer), answer.message)
        limits = self._limits
        m = answer.message
        if m.stream_part != part:
            return Judged(Fate.REFUSED, Reason.WRONG_STREAM, f"{m.stream_id}#{m.partition}")
        if m.timestamp_ms < now_ms - limits.past_ms:
            return Judged(Fate.REFUSED, Refusal.TOO_OLD, str(m.timestamp_ms))
        if m.timestamp_ms > now_ms + limits.future_ms:
            return Judged(Fate.REFUSED, Refusal.IN_THE_FUTURE, str(m.timestamp_ms))
        return Judged(Fate.KNOWN, leaf=answer.leaf) if answer.leaf in self._recent else None

    def _why_not_part(self, part: StreamPart) -> Why | None:
        partitions = self._chain.partitions_of(part[0])
        if part[1] < partitions:
            return None
        if self._chain.block is None:
            return Refusal.CHAIN_UNKNOWN
        return Reason.PARTITION_OUT_OF_RANGE if partitions else Refusal.NOT_REGISTERED

    # --- all at once

    def _check(
        self,
        read: Sequence[tuple[int, Record]],
        verdicts: Sequence[Verdict],
        judged: list[Judged | None],
        *,
        paced: bool,
    ) -> list[tuple[int, Record]]:
        """Those whose signature holds and whose publisher may publish."""
        signed: list[tuple[int, Record]] = []
        for (number, record), verdict in zip(read, verdicts, strict=True):
            why = self._why_not_signed(record, verdict)
            if why is None:
                signed.append((number, record))
            else:
                judged[number] = self._of_publisher(why, record)
        counts = Counter([(r.message.stream_id, r.message.publisher_id) for _, r in signed])
        answers = self._chain.permitted(counts)
        left: Counter[bytes] = Counter()
        with self._lock:
            for (_, publisher), count in counts.items():
                left[publisher] += self._publishers.spend(publisher, count) if paced else count
        good: list[tuple[int, Record]] = []
        for number, record in signed:
            m = record.message
            permitted = answers[m.stream_id, m.publisher_id]
            if not permitted:
                why = Refusal.CHAIN_UNKNOWN if permitted is None else Reason.NOT_PERMITTED
                judged[number] = self._of_publisher(why, record)
                continue
            if left[m.publisher_id]:
                left[m.publisher_id] -= 1
                good.append((number, record))
            else:
                judged[number] = self._of_publisher(Refusal.PUBLISHER_RATE, record)
        return good

    def _why_not_signed(self, record: Record, verdict: Verdict) -> Why | None:
        if verdict is VALID:
            return None
        if verdict is not Reason.ERC1271_UNKNOWN:
            assert isinstance(verdict, Reason)
            return verdict
        accepted = self._chain.contract_accepts(record)
        if accepted is None:
            return Refusal.CHAIN_UNKNOWN
        return None if accepted else Reason.BAD_SIGNATURE

    def _of_publisher(self, why: Why, record: Record) -> Judged:
        return Judged(Fate.REFUSED, why, f"publisher 0x{record.message.publisher_id.hex()[:80]}", record.leaf)

    def _keep(
        self, good: Sequence[tuple[int, Record]], judged: list[Judged | None], now_ms: int, *, tell_known: bool
    ) -> int:
        """How many were new."""
        if not good:
            return 0
        records = [record for _, record in good]
        try:
            held = self._held(records) if tell_known else set()
            new = self._store.insert(records, now_ms)
        except TransientError as error:
            for number, record in good:
                judged[number] = Judged(Fate.REFUSED, Refusal.DISK, error.message, record.leaf)
            return 0
        for number, record in good:
            judged[number] = Judged(Fate.KNOWN if record.leaf in held else Fate.STORED, leaf=record.leaf)
            if tell_known:
                held.add(record.leaf)
        if self.on_kept is not None:
            self.on_kept(records)
        with self._lock:
            self._recent.update(dict.fromkeys(record.leaf for record in records))
            while len(self._recent) > self._recent_limit:
                del self._recent[next(iter(self._recent))]
        return new

    def _held(self, records: Sequence[Record]) -> set[Digest]:
        """Leaves that the store has already."""
        by_part: dict[StreamPart, list[tuple[int, Digest]]] = {}
        for record in records:
            by_part.setdefault(record.message.stream_part, []).append((record.message.timestamp_ms, record.leaf))
        return {row.key.leaf for part, leaves in by_part.items() for row in self._store.fetch(part, leaves)}

    def _count(self, items: Sequence[tuple[StreamPart, bytes]], found: Sequence[Judged], new: int) -> None:
        shown: list[tuple[Judged, bytes]] = []
        now_s = time.monotonic()
        with self._lock:
            refused = [(answer, item[1]) for answer, item in zip(found, items, strict=True) if answer.why is not None]
            self.stored += new
            self.known += len(found) - len(refused) - new
            for answer, data in refused:
                assert answer.why is not None
                self.refused[answer.why] += 1
                if now_s - self._shown_s.get(answer.why, -SHOWN_S) >= SHOWN_S:
                    self._shown_s[answer.why] = now_s
                    shown.append((answer, data))
        for answer, data in shown:
            log.info("message.refused", reason=answer.why, detail=answer.detail[:200], sha256=hash_body(data).hex())
