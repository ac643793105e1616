"""One broker's answer after another, checked as they stream, until the span that was asked for is read to its end.

What is checked of every message: it is of the partition and span, stands behind the one before (one order at all
brokers, so nothing comes twice), and its publisher has signed it. Of every part of the answer: its trailer is the
broker's signed word on this request, from this cursor on, with this count and root. Of certified history, set by set:
the messages are all, by a proof that ends at a root that the contract holds (``protocol.completeness``).

Windows are proven behind their last message, so a message whose window is not over is handed out with the proof still
to come, and nothing is handed out behind a window that is over and not proven. Hence an answer may be cut anywhere: the
next part begins behind the last message that was handed out, at whichever broker, and proves what this one did not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from logstore.brokers import ANSWER_HEAD
from logstore.errors import Refused
from logstore.times import format_time
from validator.net.chain.bundles import AcceptedBundles
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import (
    Answer,
    Claim,
    Cursor,
    Request,
    decode_answer,
    encode_cursor,
    verify_answer,
)
from validator.protocol.codec.completeness import CLIMB, MARKS, PROOF, decode_climb, decode_marks, decode_set_proof
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.signatures import VALID, Keys, verify_together
from validator.protocol.codec.slice_claim import decode_claim, verify_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.completeness import CompletenessCheck, RootOf, SetProof
from validator.protocol.errors import MalformedInput
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Message,
    Reason,
    Record,
    SignatureType,
    Window,
)
from validator.protocol.parameters import Network

MAX_HELD = 1 << 15
"""Messages behind a window that is over and not proven: a broker proves after each page of 8 192."""
_PROOF = cbor.array_head(9) + cbor.encode(PROOF)
_CLIMB = cbor.array_head(6) + cbor.encode(CLIMB)
_MARKS = cbor.array_head(2) + cbor.encode(MARKS)


class Verify(StrEnum):
    """How much of an answer is checked; each adds to the one before."""

    NONE = "none"
    """Order, span, and that it is whole by the broker's word."""
    SIGNATURES = "signatures"
    """Publishers' signatures, and the broker's under count and root."""
    PROOF = "proof"
    """That certified history is complete, up to the contract's roots."""


class Row(NamedTuple):
    """A message, and the certified set that it is said to be in; None: the tail, or history was not asked about."""

    record: Record
    instance: InstanceId | None

    @property
    def message(self) -> Message:
        return self.record.message


@dataclass(frozen=True, slots=True)
class Certified:
    """What a span has to be proven by, as network and contract say it."""

    as_of: int
    complete_to: int
    windows: Callable[[], Iterator[Window]]
    """From the first on; a span of years has more than memory should hold."""
    late: range
    """Numbers of the bundles whose late sets reach into the span."""
    window_at: Callable[[int], Window | None]
    root_of: RootOf
    is_final: bool


def find_certified(reports: AcceptedBundles, network: Network, request: Request, as_of: int) -> Certified:
    """Raises TransientError; ``as_of`` is the number of a bundle that the contract holds."""

    def root_of(number: int) -> bytes:
        found = reports.fetch(number)
        if found is None:
            raise KeyError(number)
        return found.root

    (newest,) = reports.fetch_many(as_of, as_of + 1)
    until_ms = min(request.until_ms, newest.end_ms)

    def windows() -> Iterator[Window]:
        return network.windows_between(request.from_ms, until_ms) if request.from_ms < until_ms else iter(())

    late, _ = reports.late_numbers(request.from_ms, request.until_ms)
    reaching = range(late.start, min(late.stop, as_of + 1))
    return Certified(as_of, newest.end_ms, windows, reaching, network.window_at, root_of, newest.is_final)


@dataclass(slots=True)
class Part:
    """What one broker gave in one answer. ``trailer``: its signed word; None where the answer was cut."""

    broker: Address
    url: str
    after: bytes
    count: int = 0
    signed_bytes: int = 0
    root: RunningRoot = field(default_factory=RunningRoot)
    trailer: Answer | None = None


class AnswerCheck:
    """Everything that is wrong is ``Refused``, which names the broker, the field and the reason. One thread."""

    def __init__(
        self, request: Request, verify: Verify, context: SigningContext, as_of: int | None, certified: Certified | None
    ) -> None:
        """``certified``: with ``Verify.PROOF``, where something is certified at all."""
        self.request = request
        self.verify = verify
        self.as_of = as_of
        self.certified = certified
        self.parts: list[Part] = []
        self.given = self.in_sets = self.by_contracts = 0
        self.is_done = False
        self.others: dict[Address, int | None] = {}
        """How many messages of the span other brokers say that they hold; None: they could not be reached."""
        self._context = context
        self._digest = request.digest()
        self._keys: Keys = {}
        self._last: Record | None = None
        """The last message that was handed out."""
        self._held: deque[Row] = deque()
        self._received: Record | None = None
        self._leaves: list[Digest] = []
        """Received, and not yet in the part's root."""
        self._marks: dict[Digest, int | None] = {}
        self._climb_is_unused = False
        self._windows = certified.windows() if certified else iter(())
        self._front = next(self._windows, None)
        """The first window that is not proven."""
        self._proven: set[InstanceId] = set()
        """Late sets, and windows behind the front."""
        self._bundles: set[int] = set()
        self._complete = (
            CompletenessCheck(
                request.stream_part, request.from_ms, request.until_ms, _sets_of(certified), certified.root_of
            )
            if certified
            else None
        )

    @property
    def bundles(self) -> list[int]:
        """Numbers of those whose roots the proofs led to."""
        return sorted(self._bundles)

    @property
    def cursor(self) -> bytes:
        """Behind the last message that was handed out; empty at the beginning."""
        return b"" if self._last is None else self._cursor_behind(self._last)

    def begin(self, broker: Address, url: str) -> None:
        """What follows is this broker's, from the cursor on. What another gave and was held is forgotten."""
        self._held.clear()
        self._marks.clear()
        self._leaves.clear()
        self._climb_is_unused = False
        self._received = self._last
        self.parts = [part for part in self.parts if part.count or part.trailer]
        self.parts.append(Part(broker, url, self.cursor))

    def read(self, objects: Sequence[bytes]) -> list[Row]:
        """The next objects of the part; the messages that may be handed out now.

        Raises:
            Refused: something is not as it must be.
        """
        try:
            return self._read(objects)
        except MalformedInput as error:
            raise Refused(self.parts[-1].url, error.field, error.reason) from error

    def pass_page(self, count: int, first: tuple[int, int], is_ordered: bool, last: bytes) -> None:
        """Messages that nobody verifies, and that were read as ``columns``: only order and span are looked at.

        Raises:
            Refused: they are not in order, or reach beyond the span.
        """
        part = self.parts[-1]
        try:
            if part.trailer is not None:
                raise MalformedInput("trailer", "not the last object")
            record = record_from_canonical(last)
            before = self._received
            if before is not None:
                m = before.message
                is_ordered = is_ordered and (m.timestamp_ms, m.sequence_number) <= first
            if not is_ordered:
                raise MalformedInput("order", f"messages before {_name(record)} do not come in order")
            if first[0] < self.request.from_ms or record.message.timestamp_ms >= self.request.until_ms:
                raise MalformedInput("message.timestamp", f"{_name(record)}: outside the span that was asked for")
        except MalformedInput as error:
            raise Refused(part.url, error.field, error.reason) from error
        part.count += count
        self.given += count
        self._received = self._last = record

    def _read(self, objects: Sequence[bytes]) -> list[Row]:
        said: list[Record | bytes] = [
            data if data.startswith((_PROOF, _CLIMB, _MARKS, ANSWER_HEAD)) else record_from_canonical(data)
            for data in objects
        ]
        self._check_signatures([item for item in said if isinstance(item, Record)])
        rows: list[Row] = []
        for item in said:
            if self.parts[-1].trailer is not None:
                raise MalformedInput("trailer", "not the last object")
            if isinstance(item, Record):
                self._receive(item)
            elif item.startswith(ANSWER_HEAD):
                self._end_part(decode_answer(item))
            elif self._complete is None:
                raise MalformedInput("frame", "a proof that was not asked for")
            elif item.startswith(_MARKS):
                self._marks.update(decode_marks(item))
                if len(self._marks) > MAX_HELD:
                    raise MalformedInput("marks", "of messages that do not come")
            elif item.startswith(_CLIMB):
                if self._climb_is_unused:
                    raise MalformedInput("climb", "of sets that are not proven")
                self._complete.climb(decode_climb(item))
                self._climb_is_unused = True
            else:
                self._prove(self._complete, decode_set_proof(item, self.request.from_ms, self.request.until_ms))
            self._release(rows)
        self.parts[-1].root.add(self._leaves)
        self._leaves.clear()
        return rows

    def _check_signatures(self, records: Sequence[Record]) -> None:
        if self.verify is Verify.NONE or not records:
            return
        for record, verdict in zip(records, verify_together(records, self._keys), strict=True):
            if verdict is not VALID and verdict is not Reason.ERC1271_UNKNOWN:
                raise MalformedInput("message.signature", f"{_name(record)}: {verdict.value}")

    def _receive(self, record: Record) -> None:
        m, r, part = record.message, self.request, self.parts[-1]
        if m.stream_id != r.stream_id or m.partition != r.partition:
            raise MalformedInput("message.stream", f"{_name(record)}: of another stream or partition")
        at_ms, before = m.timestamp_ms, self._received
        if not r.from_ms <= at_ms < r.until_ms:
            raise MalformedInput("message.timestamp", f"{_name(record)}: outside the span that was asked for")
        if before is not None and at_ms <= before.message.timestamp_ms and record.order <= before.order:
            raise MalformedInput("order", f"{_name(record)}: does not come behind {_name(before)}")
        self._received = record
        part.count += 1
        part.signed_bytes += record.signed_bytes
        self._leaves.append(record.leaf)
        self._held.append(Row(record, self._set_of(record)))

    def _set_of(self, record: Record) -> InstanceId | None:
        ms = record.message.timestamp_ms
        late = self._marks.pop(record.leaf, -1) if self._marks else -1
        if self.certified is None or ms >= self.certified.complete_to or late is None:
            return None
        if late >= 0:
            return InstanceId(InstanceKind.LATE, late)
        window = self.certified.window_at(ms)
        if window is None:
            raise MalformedInput("message.timestamp", f"{_name(record)}: certified, where there is no window")
        return InstanceId(InstanceKind.WINDOW, window.start_ms)

    def _release(self, rows: list[Row]) -> None:
        while self._held:
            row = self._held[0]
            if self._front is not None and row.message.timestamp_ms >= self._front.end_ms:
                if len(self._held) > MAX_HELD:
                    raise MalformedInput("proof", f"none of the window at {format_time(self._front.start_ms)}")
                return
            self._held.popleft()
            if row.instance is not None and self._complete is not None:
                m = row.message
                self._complete.add(row.instance, m.timestamp_ms, row.record.leaf, m.publisher_id)
                self.in_sets += 1
            self.given += 1
            self.by_contracts += row.message.signature_type is SignatureType.ERC_1271
            self._last = row.record
            rows.append(row)

    def _prove(self, complete: CompletenessCheck, said: SetProof) -> None:
        """Of a window that the part before has proven an honest broker speaks once more."""
        self._climb_is_unused = False
        if said.instance in self._proven or self._is_before_front(said.instance):
            return
        complete.prove(said)
        self._proven.add(said.instance)
        self._bundles.add(said.bundle)
        while self._front is not None and (front := _window_set(self._front)) in self._proven:
            self._proven.discard(front)
            self._front = next(self._windows, None)

    def _is_before_front(self, instance: InstanceId) -> bool:
        """Whether it is one of the windows that were proven in order, which nobody remembers one by one."""
        certified, ms = self.certified, instance.number
        if certified is None or instance.kind is not InstanceKind.WINDOW:
            return False
        window, first = certified.window_at(ms), next(certified.windows(), None)
        if first is None or window is None or window.start_ms != ms or ms < first.start_ms:
            return False
        return ms < min(self.request.until_ms, certified.complete_to if self._front is None else self._front.start_ms)

    def _end_part(self, answer: Answer) -> None:
        part = self.parts[-1]
        part.root.add(self._leaves)
        self._leaves.clear()
        if answer.broker != part.broker:
            raise MalformedInput("trailer.broker", f"0x{answer.broker.hex()}, not 0x{part.broker.hex()} that was asked")
        if self.verify is not Verify.NONE:
            try:
                verify_answer(answer, self._context)
            except MalformedInput as error:
                raise MalformedInput("trailer.signature", error.reason) from error
        _require("request", answer.request.digest() == self._digest, "of another request")
        _require("after", answer.after == part.after, "of another cursor")
        _require("asOf", answer.as_of == self.as_of, f"{answer.as_of}, where {self.as_of} was asked for")
        _require("count", answer.count == part.count, f"{answer.count}, where {part.count} messages came")
        if self.verify is not Verify.NONE:
            _require("root", answer.root == part.root.root(), "not that of the messages that came")
            _require("signed_bytes", answer.signed_bytes == part.signed_bytes, "not those of the messages that came")
        if self.certified is not None:
            same = answer.complete_to == self.certified.complete_to
            _require("completeTo", same, f"{answer.complete_to}, where the contract says {self.certified.complete_to}")
        if self.verify is not Verify.NONE:
            for claim in answer.claims:
                self.others[claim.broker] = self._check_claim(claim) if claim.claim else None
        if answer.next:
            self._check_next(answer)
        elif self._complete is not None:
            self._complete.finish()
        part.trailer = answer
        self.is_done = not answer.next

    def _check_claim(self, said: Claim) -> int:
        """How many messages another broker holds, which must be that one's word: nobody else's, of no other span."""
        r, named = self.request, f"0x{said.broker.hex()}"
        try:
            claim = decode_claim(said.claim)
            verify_claim(claim, self._context)
        except MalformedInput as error:
            raise MalformedInput("trailer.claims", f"what {named} is said to claim: {error}") from error
        _require("claims", claim.broker == said.broker, f"what {named} is said to claim, another has signed")
        same = (claim.part, claim.from_ms, claim.until_ms) == (r.stream_part, r.from_ms, r.until_ms)
        _require("claims", same, f"what {named} claims is of another span")
        return claim.count

    def _check_next(self, answer: Answer) -> None:
        """More follows: behind the last message, and nothing is held back for a proof that will not come."""
        if self._held and self._front is not None:
            raise MalformedInput("proof", f"none of the window at {format_time(self._front.start_ms)}")
        _require("next", answer.count > 0 and answer.next == self.cursor, "not behind the last message")

    def _cursor_behind(self, record: Record) -> bytes:
        m = record.message
        return encode_cursor(
            Cursor(
                self.as_of, m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, record.leaf, self._digest
            )
        )


def _sets_of(certified: Certified) -> Iterator[InstanceId]:
    """Late sets first: any row may be in one, where windows come in order."""
    for number in certified.late:
        yield InstanceId(InstanceKind.LATE, number)
    yield from map(_window_set, certified.windows())


def _window_set(window: Window) -> InstanceId:
    return InstanceId(InstanceKind.WINDOW, window.start_ms)


def _require(name: str, holds: bool, reason: str) -> None:
    if not holds:
        raise MalformedInput(f"trailer.{name}", reason)


def _name(record: Record) -> str:
    m = record.message
    return f"the message of {format_time(m.timestamp_ms)}, number {m.sequence_number}"
