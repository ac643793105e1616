"""What a broker answers other brokers, and whoever audits it: sums, sessions, bodies, claims; and what it is offered.

Stateless but for a few sets that a session under way is compared with: their keys are read once, not once a round trip.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from validator.broker.slices import SliceSums
from validator.net.mutual import wire
from validator.net.signed.listener import Door
from validator.net.signed.pages import MAX_LEAVES, PAGE_BYTES, decode_page, encode_page
from validator.ports.message_store import MessageStore
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.slice_claim import SliceClaim, encode_claim, sign_claim
from validator.protocol.codec.statement import SigningContext
from validator.protocol.consensus.reconcile import Records, answer
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Address, Digest, Record, Root, StreamPart
from validator.protocol.slices import SLICE_MS, closed_until

MAX_RECORDS = 200_000
"""Messages of one session: 8 MB here. Who compares more asks for less time at once."""
_SESSIONS = 4
_SESSION_S = 15.0

DOOR = Door(wire.REQUEST_BYTES, strangers=frozenset({wire.SUMS, wire.RECONCILE, wire.BODIES, wire.CLAIM}))
"""Consumers may compare and audit; what costs more, or brings something, is among brokers."""


class Admit(Protocol):
    """The checks of anything from outside, and the store behind them."""

    def __call__(self, records: Sequence[Record]) -> Sequence[StrEnum | None]:
        """For each record None, and it is stored (or was), or the reason why it is not. Runs in a thread."""


class Answers:
    """Thread-safe. ``perform`` is what the signed listener calls."""

    def __init__(
        self,
        store: MessageStore,
        sums: SliceSums,
        admit: Admit,
        key: Signer,
        context: SigningContext,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._sums = sums
        self._admit = admit
        self._key = key
        self._context = context
        self._now_ms = now_ms
        self._sessions: OrderedDict[object, tuple[float, Records]] = OrderedDict()
        self._lock = threading.Lock()

    def perform(self, path: str, sender: Address | None, body: bytes) -> bytes:
        """Raises errors of the tree: MalformedInput names the field; RemoteFault: asked for too much."""
        if sender is None:
            raise MalformedInput("sender", "missing")
        if path == wire.OFFER:
            return self._take_offer(body)
        return self._answers[path](self, body)

    def _answer_sums(self, body: bytes) -> bytes:
        from_ms, until_ms = wire.decode_span(body)
        self._sums.freshen(from_ms, min(until_ms, closed_until(self._now_ms())))
        sums = self._sums.below(from_ms, until_ms)
        if len(sums) > wire.MAX_SUMS:
            raise RemoteFault(f"more than {wire.MAX_SUMS} sums: ask for less time at once")
        return wire.encode_sums(sums)

    def _answer_parts(self, body: bytes) -> bytes:
        starts = wire.decode_slices(body)
        for start in starts:
            self._sums.freshen(start, min(start + 1, closed_until(self._now_ms())))
        return wire.encode_parts({start: self._sums.parts(start) for start in starts})

    def _answer_reconcile(self, body: bytes) -> bytes:
        from_ms, until_ms, parts, message = wire.decode_reconcile(body)
        return answer(self._records(from_ms, until_ms, parts), message)

    def _answer_leaves(self, body: bytes) -> bytes:
        part, start, root = wire.decode_listing(body)
        leaves = RunningLeaves(self._keys(part, start, start + SLICE_MS, wire.MAX_LISTED))
        if leaves.root != root:
            raise TransientError(f"the root is 0x{leaves.root.hex()} now")
        return b"".join(leaves.all)

    def _answer_bodies(self, body: bytes) -> bytes:
        from_ms, until_ms, parts, leaves = wire.decode_bodies(body)
        return encode_page(self.load(from_ms, until_ms, parts, leaves))

    def _answer_claim(self, body: bytes) -> bytes:
        part, from_ms, until_ms = wire.decode_range(body)
        return encode_claim(self.claim(part, from_ms, until_ms))

    _answers: dict[str, Callable[[Answers, bytes], bytes]] = {  # noqa: RUF012
        wire.SUMS: _answer_sums,
        wire.PARTS: _answer_parts,
        wire.RECONCILE: _answer_reconcile,
        wire.LEAVES: _answer_leaves,
        wire.BODIES: _answer_bodies,
        wire.CLAIM: _answer_claim,
    }

    def claim(self, part: StreamPart, from_ms: int, until_ms: int) -> SliceClaim:
        """What is held of a partition in a range, signed. Raises RemoteFault where that is too much to count."""
        count, root = 0, RunningRoot()
        for page in self._keys(part, from_ms, until_ms, 5 * MAX_RECORDS):
            root.add([leaf for _, leaf in page])
            count += len(page)
        reached = root.root() if count else EMPTY_ROOT
        claim = SliceClaim(self._key.address, part, from_ms, until_ms, count, reached, self._now_ms())
        return sign_claim(claim, self._key, self._context)

    def load(self, from_ms: int, until_ms: int, parts: Sequence[StreamPart], leaves: Sequence[Digest]) -> list[bytes]:
        """Canonical bytes of these messages, as many as fit a page."""
        wanted = set(leaves)
        found: list[bytes] = []
        size = 0
        for part in parts:
            for page in self._keys(part, from_ms, until_ms, MAX_RECORDS):
                named = [key for key in page if key[1] in wanted]
                for row in self._store.fetch(part, named) if named else ():
                    size += len(row.canonical)
                    if found and size > PAGE_BYTES:
                        return found
                    found.append(row.canonical)
        return found

    def _take_offer(self, body: bytes) -> bytes:
        records = [record_from_canonical(item) for item in decode_page(body, MAX_LEAVES)]
        reasons = self._admit(records)
        refused = {r.leaf: str(reason) for r, reason in zip(records, reasons, strict=True) if reason is not None}
        return wire.encode_offered(len(records) - len(refused), refused)

    def _records(self, from_ms: int, until_ms: int, parts: Sequence[StreamPart]) -> Records:
        """As they were when this session, or one like it, began."""
        key = (from_ms, until_ms, tuple(parts))
        with self._lock:
            held = self._sessions.get(key)
            if held is not None and time.monotonic() - held[0] < _SESSION_S:
                return held[1]
        records = load_records(self._store, from_ms, until_ms, parts)
        with self._lock:
            self._sessions[key] = (time.monotonic(), records)
            self._sessions.move_to_end(key)
            while len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        return records

    def _keys(self, part: StreamPart, from_ms: int, until_ms: int, most: int) -> Iterator[list[tuple[int, Digest]]]:
        return bounded_keys(self._store, part, from_ms, until_ms, most)


class RunningLeaves:
    """Leaf hashes of pages of keys, and the root over them."""

    def __init__(self, pages: Iterator[list[tuple[int, Digest]]]) -> None:
        self.all: list[Digest] = [leaf for page in pages for _, leaf in page]
        root = RunningRoot()
        root.add(self.all)
        self.root: Root = root.root() if self.all else EMPTY_ROOT


def load_records(store: MessageStore, from_ms: int, until_ms: int, parts: Sequence[StreamPart]) -> Records:
    """Of a session. Raises RemoteFault where they are more than one session may compare."""
    items: list[tuple[int, bytes]] = []
    for part in parts:
        for page in bounded_keys(store, part, from_ms, until_ms, MAX_RECORDS - len(items)):
            items += page
    return Records(items)


def bounded_keys(
    store: MessageStore, part: StreamPart, from_ms: int, until_ms: int, most: int
) -> Iterator[list[tuple[int, Digest]]]:
    """Pages of keys. Raises RemoteFault beyond ``most``."""
    left = most
    for page in store.keys(part, from_ms, until_ms):
        left -= len(page)
        if left < 0:
            raise RemoteFault(f"more than {most} messages: ask for less time at once")
        yield page
