"""Brokers mend each other: what one holds and another lacks reaches it, some seconds after the slice has closed.

    hearing ──> differs? ──> visit: sums ─> partitions ─> session ─> bodies ─> admit ─> store ─> sums ─> heartbeat
                                                          └─> what the other lacks is offered to it

Every second each broker's newest totals are compared with ours over the same slices. Where they differ, one of the two
visits the other: the lower address at once, the higher one only if that has not helped, so that a difference is paid
for once. A visit mends both sides. Newest slices first: they are what is asked for, and what others still hold anyway.
Visits to different brokers run beside each other and never mend the same slice at once; each has a deadline, so one
that hangs blocks nobody. A broker that fails is left alone for longer and longer, with jitter.

A late message, posted to one broker, changes the total of its old slice, and travels the same way. A broker that begins
empty differs in everything, and fills from all others at once.

Decided against (docs/decisions): telling each other of every message, and agreeing on what is missing (0031).
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from validator.broker.evidence import Evidence, EvidenceBook, Lie, Suspicions
from validator.broker.heartbeat import BEAT_S, Heard, Hearing
from validator.broker.mending import Mending
from validator.broker.slices import SliceSums
from validator.broker.talk import Caught, Difference, Progress, Run, Talk
from validator.log import get_logger
from validator.net.mutual.client import Line
from validator.ports.message_store import MessageStore
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address
from validator.protocol.slices import SLICE_MS, PartSum, Sum, closed_until

log = get_logger(__name__)

TICK_S = 1.0
VISIT_S = 60.0
"""Of one visit in all; every question has a deadline of its own."""
PATIENCE_MS = 6_000
"""So long the higher address of two waits for the lower one's visit."""
SLICES = 32
"""Differing slices that one visit takes on; the next one goes on."""
SPOT_CHECK_MS = 30_000
SPOT_CHECKED = 8
LONGEST_PAUSE_S = 60.0
COMPARED = 4096
COMPARED_MS = 45_000
"""What could not be mended is looked at again so often: what was refused, or taken and not shown."""


@dataclass(slots=True)
class _Known:
    """Of one broker: when it may be visited, since when it differs, and what was compared to the end."""

    progress: Progress = field(default_factory=Progress)
    next_ms: int = 0
    failures: int = 0
    differs_since_ms: int | None = None
    settled: tuple[Sum, ...] = ()
    settled_ms: int = 0
    spot_ms: int = 0
    compared: OrderedDict[int, tuple[Sum | None, Sum | None, int]] = field(default_factory=OrderedDict)
    """By slice: what it claimed and what we held when all that could be done was done, and when that was."""


class Repair:
    """Belongs to one event loop. ``brokers``: URLs of the others, by address."""

    def __init__(
        self,
        me: Address,
        line: Line,
        store: MessageStore,
        sums: SliceSums,
        mending: Mending,
        hearing: Hearing,
        book: EvidenceBook,
        brokers: Callable[[], Mapping[Address, str]],
        *,
        now_ms: Callable[[], int],
        run: Run = asyncio.to_thread,
        rng: random.Random | None = None,
    ) -> None:
        self._me = me
        self._line = line
        self._store = store
        self._sums = sums
        self._mending = mending
        self._hearing = hearing
        self._book = book
        self._brokers = brokers
        self._now_ms = now_ms
        self._run = run
        self._rng = rng or random.Random()
        self._suspicions = Suspicions(now_ms)
        self._known: dict[Address, _Known] = {}
        self._visits: dict[Address, asyncio.Task[None]] = {}
        self._taken: set[int] = set()

    async def run(self) -> None:
        """For ever. Cancelling it ends the visits under way."""
        try:
            while True:
                await self._run(self._sums.settle, self._now_ms())
                self.look()
                await asyncio.sleep(TICK_S)
        finally:
            for task in self._visits.values():
                task.cancel()
            await asyncio.gather(*self._visits.values(), return_exceptions=True)

    def progress(self) -> dict[Address, Progress]:
        return {broker: known.progress for broker, known in self._known.items()}

    def look(self) -> None:
        """Start the visits that are due."""
        now_ms = self._now_ms()
        for broker in self._brokers():
            if broker == self._me or broker in self._visits:
                continue
            known = self._known.setdefault(broker, _Known(spot_ms=now_ms + self._jitter_ms(SPOT_CHECK_MS)))
            if now_ms >= known.next_ms and (visit := self._what_is_due(broker, known, now_ms)) is not None:
                task = asyncio.get_running_loop().create_task(self._guarded(broker, known, visit))
                self._visits[broker] = task
                task.add_done_callback(lambda _task, broker=broker: self._visits.pop(broker, None))  # type: ignore[misc]

    def _what_is_due(self, broker: Address, known: _Known, now_ms: int) -> _Visit | None:
        spans = self._differing_spans(broker, known, now_ms)
        if not spans:
            known.differs_since_ms = None
            if broker in self._hearing.newest and now_ms >= known.spot_ms:
                known.spot_ms = now_ms + SPOT_CHECK_MS + self._jitter_ms(SPOT_CHECK_MS)
                return self._spot_check
            return None
        if known.differs_since_ms is None:
            known.differs_since_ms = now_ms
        patience_ms = 0 if self._me < broker else PATIENCE_MS
        return self._mend if now_ms - known.differs_since_ms >= patience_ms else None

    def _differing_spans(self, broker: Address, known: _Known, now_ms: int) -> list[tuple[int, int]]:
        """Spans in which the broker's newest totals are not ours, the recent one first."""
        heard = self._hearing.newest.get(broker)
        if heard is None:
            return []
        until_ms, first_ms = closed_until(now_ms), self._sums.from_ms
        spans = []
        seen: list[Sum] = []
        for total in (heard.heartbeat.recent, heard.heartbeat.kept):
            begin, end = max(total.start_ms, first_ms), min(total.end_ms, until_ms)
            if begin >= end:
                continue
            mine = self._sums.total(begin, end)
            seen += [total, mine]
            if mine != total:
                spans.append((begin, end))
        if not spans:
            known.progress.equal_ms = now_ms
        done = tuple(seen) == known.settled and now_ms - known.settled_ms < COMPARED_MS
        return [] if done else spans

    # --- one visit

    async def _guarded(self, broker: Address, known: _Known, visit: _Visit) -> None:
        progress = known.progress
        progress.visits += 1
        try:
            async with asyncio.timeout(VISIT_S):
                await visit(broker, known, Talk(self._line, broker, progress, self._suspicions))
            known.failures, progress.error = 0, ""
        except Caught as caught:
            known.failures += 1
            progress.error = f"{caught.lie}: {caught.detail}"
            words = tuple(spoken.encode() for spoken in caught.words)
            self._book.add(Evidence(broker, caught.lie, caught.detail, self._now_ms(), words, caught.proofs))
        except (TransientError, RemoteFault, TimeoutError) as error:
            known.failures += 1
            progress.error = str(error)[:500] or f"no end of the visit within {VISIT_S:.0f} s"
            log.debug("repair.failed", broker=broker, reason=progress.error)
        except Exception as error:
            known.failures += 1
            progress.error = f"{type(error).__name__}: {error}"[:500]
            log.exception("repair.broke", broker=broker)
        pause_s = TICK_S if not known.failures else min(LONGEST_PAUSE_S, 2.0**known.failures)
        known.next_ms = self._now_ms() + round(pause_s * 500) + self._jitter_ms(round(pause_s * 1000))

    async def _mend(self, broker: Address, known: _Known, talk: Talk) -> None:
        heard = self._hearing.newest[broker]
        spans = self._differing_spans(broker, known, self._now_ms())
        left = SLICES
        for from_ms, until_ms in spans:
            skip = self._make_skip(known)
            found = await talk.find_differing(self._sums, from_ms, until_ms, left, skip)
            left -= len(found)
            await self._mend_slices(known, talk, found)
        if left == SLICES and not self._taken:
            self._settle(known, heard.heartbeat.recent, heard.heartbeat.kept)

    def _settle(self, known: _Known, recent: Sum, kept: Sum) -> None:
        """All that could be done was: these totals are no reason for another visit, until one of them changes."""
        until_ms, first_ms = closed_until(self._now_ms()), self._sums.from_ms
        seen: list[Sum] = []
        for total in (recent, kept):
            begin, end = max(total.start_ms, first_ms), min(total.end_ms, until_ms)
            if begin < end:
                seen += [total, self._sums.total(begin, end)]
        known.settled, known.settled_ms = tuple(seen), self._now_ms()

    def _make_skip(self, known: _Known) -> Callable[[int, Sum | None], bool]:
        def skip(start: int, theirs: Sum | None) -> bool:
            if start in self._taken:
                return True
            claimed, held, at_ms = known.compared.get(start, (None, None, -COMPARED_MS))
            return self._now_ms() - at_ms < COMPARED_MS and (claimed, held) == (theirs, self._own(start))

        return skip

    def _own(self, start: int) -> Sum | None:
        found = self._sums.below(start, start + SLICE_MS)
        return found[0] if found else None

    async def _mend_slices(self, known: _Known, talk: Talk, found: Sequence[tuple[int, Sum | None]]) -> None:
        while found:
            held = {start for start, _ in found if start not in self._taken}
            found = [item for item in found if item[0] in held]
            if not found:
                return
            differences = await talk.fetch_parts(found)
            held -= self._taken  # while the answer was under way
            self._taken |= held
            try:
                chosen = [d for d in differences if d.start_ms in held]
                ours = {d.start_ms: {p.part: p for p in await self._run(self._sums.parts, d.start_ms)} for d in chosen}
                await self._mending.mend(talk, chosen, ours)
                await self._run(self._sums.settle, self._now_ms())
                self._remember(known, found, chosen)
            finally:
                self._taken -= held
            done = {d.start_ms for d in differences}
            found = [item for item in found if item[0] not in done] if done else []

    def _remember(self, known: _Known, found: Sequence[tuple[int, Sum | None]], mended: Sequence[Difference]) -> None:
        claimed = dict(found)
        for difference in mended:
            start = difference.start_ms
            known.compared.pop(start, None)
            known.compared[start] = (claimed[start], self._own(start), self._now_ms())
        while len(known.compared) > COMPARED:
            known.compared.popitem(last=False)

    async def _spot_check(self, broker: Address, known: _Known, talk: Talk) -> None:
        """Of some slice in which the broker claims what we hold, ask for a few messages."""
        del known
        heard = self._hearing.newest[broker]
        slices = [s for s in self._slices(heard.heartbeat.recent) if s.count]
        if not slices:
            return
        chosen = self._rng.choice(slices)
        claimed, _ = await talk.fetch_sums(chosen.start_ms, chosen.end_ms)
        differences = await talk.fetch_parts([(chosen.start_ms, claimed.get(chosen.start_ms))])
        mine = self._sums.parts(chosen.start_ms)
        if not mine or not differences:
            return
        difference, part = differences[0], self._rng.choice(mine)
        if difference.parts.get(part.part) != part:
            await self._doubt(broker, heard, difference, part)
            return
        keys = [key for page in self._store.keys(part.part, chosen.start_ms, chosen.end_ms) for key in page]
        leaves = [leaf for _, leaf in self._rng.sample(keys, min(SPOT_CHECKED, len(keys)))]
        await self._mending.spot_check(talk, difference, part, leaves)

    async def _doubt(self, broker: Address, heard: Heard, difference: Difference, part: PartSum) -> None:
        """Its heartbeat claims what we hold, its answer does not. If the next one claims it again, it is a copy."""
        total = heard.heartbeat.recent
        until_ms = self._now_ms() + 3 * round(BEAT_S * 1000)
        while self._now_ms() < until_ms:
            await asyncio.sleep(BEAT_S / 2)
            later = self._hearing.newest[broker]
            mine = self._sums.total(total.start_ms, total.end_ms)
            if later.said_ms > heard.said_ms and later.heartbeat.recent == total == mine:
                detail = f"its heartbeats claim our messages at {difference.start_ms}, its answers do not"
                answered = difference.parts.get(part.part)
                lie = Lie.NOT_HELD if answered is None or answered.count < part.count else Lie.WRONG_ROOT
                raise Caught(lie, detail, [difference.said], [heard.canonical, later.canonical])

    def _slices(self, total: Sum) -> list[Sum]:
        begin, end = max(total.start_ms, self._sums.from_ms), min(total.end_ms, closed_until(self._now_ms()))
        return [s for at in range(begin, end, SLICE_MS) for s in self._sums.below(at, at + SLICE_MS)]

    def _jitter_ms(self, most: int) -> int:
        return self._rng.randrange(most + 1)


_Visit = Callable[[Address, _Known, Talk], Coroutine[None, None, None]]
