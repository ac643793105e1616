"""Gathering a window: what brokers serve goes in as it arrives, the distinct checked messages come out in order.

    take      every record of every broker, from many threads: what several serve is kept once
    check     parse, verify signatures in batches, ask for permission; sort runs
    settle    merge the runs: one message per identity, in canonical order; who served it is added up

A window of millions of messages must fit a worker's memory, so only small things are held per record: a hash of its
bytes, where they lie in a scratch file, which brokers served it. What is checked leaves as sorted runs in scratch
files and is merged as they are read. A window that fits one run never touches the disk. The bytes behind a hash are
compared, so the hash decides nothing.
"""

from __future__ import annotations

import gc
import hashlib
import heapq
import struct
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from validator.codec import cbor
from validator.codec.message import record_from_canonical
from validator.codec.outcome import part_order
from validator.codec.signatures import verify_batch
from validator.codec.variants import Sighting, choose_variant
from validator.consensus.proposal import Span
from validator.model import Address, BrokerShare, Digest, Identity, Reason, Record, StreamPart
from validator.ports import Pull, SetItem
from validator.steps.checking import ContractCheck, Permission, Refused, Rejection, judge_record, read_record
from validator.steps.spool import Spool

BATCH_RECORDS = 4096
"""Records parsed and verified at a time."""
BATCH_BYTES = 8 << 20
RUN_ROWS = 50_000
"""Rows sorted at a time: about 30 MB."""
CHUNK_ROWS = 500
MAX_DETAILS = 10_000
"""Distinct words on why a record is refused; further ones say the reason only."""
_SERVING = struct.Struct("=III")
_HASH_MASK = (1 << 61) - 1


class Row(NamedTuple):
    """A checked record while it waits: its canonical order, then what is needed to settle it.

    ``rank`` stands for the partition, ``serial`` for the raw record; the canonical bytes lie at ``offset``.
    """

    rank: int
    timestamp_ms: int
    sequence_number: int
    publisher_id: bytes
    msg_chain_id: bytes
    leaf: Digest
    digest: Digest
    signed_bytes: int
    serial: int
    offset: int
    length: int


_encode_rows = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode


class Gathering:
    """One window while it is collected. ``take`` is thread-safe, the rest is for one thread, in the order above."""

    def __init__(self, folder: Path, parts: Iterable[StreamPart]) -> None:
        """``folder``: where scratch files may lie. ``parts``: all that are pulled."""
        self._ranks = {part: rank for rank, part in enumerate(sorted(set(parts), key=part_order))}
        self._parts = list(self._ranks)
        self._lock = threading.Lock()
        self._sealed = False
        self._raw = Spool(folder)
        self._canonical = Spool(folder)
        self._rows = Spool(folder)
        self._servings = Spool(folder)
        self._seen: dict[int, int] = {}
        self._offsets = array("Q")
        self._lengths = array("I")
        self._places = array("I")
        self._holders = array("I")
        self._groups = _Groups()
        self._forms: list[str] = []
        self._spots: dict[tuple[Address, StreamPart, str], tuple[int, int, int]] = {}
        self._brokers: dict[Address, int] = {}
        self._refusals = _Refusals()
        self._refused = array("I")
        self._contract_signed: set[Digest] = set()
        self._runs: list[list[tuple[int, int]]] = []
        self._run: list[Row] = []
        self._sightings: list[bytearray] = [bytearray() for _ in range(256)]
        self._served: Counter[tuple[int, int]] = Counter()
        self.erc1271: list[Digest] = []
        """Digests of settled messages that a contract found valid; complete when ``settle`` has ended."""

    def __enter__(self) -> Gathering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._sealed = True
        for spool in (self._raw, self._canonical, self._rows, self._servings):
            spool.close()

    def take(self, broker: Address, part: StreamPart, position: int, data: bytes, form: str) -> None:
        """One record as a broker served it. After ``check`` has begun nothing is taken any more."""
        with self._lock:
            if self._sealed:
                return
            spot = self._spots.get((broker, part, form))
            if spot is None:
                spot = self._spots[broker, part, form] = self._spot(broker, part, form)
            place, number, alone = spot
            key = hash(data) + place * 0x9E3779B97F4A7C15 & _HASH_MASK
            while (serial := self._seen.get(key, -1)) >= 0:
                if self._is(serial, place, data):
                    self._holders[serial] = self._groups.joined(self._holders[serial], number)
                    break
                key = key + 1 & _HASH_MASK
            else:
                serial = self._seen[key] = len(self._offsets)
                self._offsets.append(self._raw.append(data))
                self._lengths.append(len(data))
                self._places.append(place)
                self._holders.append(alone)
            self._servings.append(_SERVING.pack(serial, number, position))

    def check(self, span: Span, permitted: Permission, contract_check: ContractCheck, *, message_limit: int) -> None:
        """Check every distinct record once. Raises TransientError: the chain or the disk did not answer."""
        with self._lock:
            self._sealed = True
        self._seen = {}
        self._refused = array("I", bytes(4 * len(self._offsets)))
        for serials in self._batches():
            with gc_paused():
                self._check_batch(serials, span, permitted, contract_check, message_limit)
        if self._runs:
            self._end_run()
        else:
            self._run.sort()

    def settle(self) -> Iterator[SetItem]:
        """One record per identity, in canonical order. To be read to its end, once."""
        self._sightings = [bytearray() for _ in range(256)]
        self._served = Counter()
        self.erc1271 = []
        holders_of, keep, see = self._holders, self._keep, self._see
        for rows in self._milliseconds():
            if type(rows) is list and len(rows) == 1:
                row = rows[0]
                holders = holders_of[row.serial]
                see(row.leaf, holders)
                yield keep(row, holders)
            else:
                yield from self._settle_rows(rows)

    def identities(self) -> Iterator[tuple[Identity, Callable[[], Record]]]:
        """Every distinct checked record, variants too: its identity, and how to load it."""
        last = b""
        for row in self._merged():
            if row.leaf == last:
                continue
            last = row.leaf
            part = self._parts[row.rank]
            identity = (part[0], part[1], row.timestamp_ms, row.digest)
            yield identity, partial(self._load, row)

    def sightings(self) -> bytes:
        """Canonical object of how many brokers served each record, by leaf; after ``settle``."""
        count = sum(map(len, self._sightings)) // 36
        out = bytearray(cbor.array_head(2) + cbor.encode("sightings/1") + cbor.array_head(count))
        head = cbor.array_head(2) + cbor.encode(bytes(32))[:-32]
        for bucket in self._sightings:
            for entry in sorted(bytes(bucket[at : at + 36]) for at in range(0, len(bucket), 36)):
                out += head
                out += entry[:32]
                out += cbor.encode(int.from_bytes(entry[32:], "big"))
        return bytes(out)

    def shares(self, pulls: Sequence[Pull], brokers: Sequence[Address]) -> tuple[BrokerShare, ...]:
        """Per broker the signed bytes of distinct messages it served, and of those it missed; after ``settle``.

        Missed: more than half of the brokers that answered completely for the partition served the message and it
        did not; one that did not answer completely missed all that the others agree on.
        """
        complete: dict[StreamPart, set[Address]] = defaultdict(set)
        for pull in pulls:
            if pull.complete:
                complete[pull.stream_part].add(pull.broker)
        names = list(self._brokers)
        served = dict.fromkeys(brokers, 0)
        missed = dict.fromkeys(brokers, 0)
        for (rank, group), size in self._served.items():
            who = {names[number] for number in self._groups.members(group)}
            answered = complete[self._parts[rank]]
            common = 2 * len(who & answered) > len(answered)
            for broker in brokers:
                if broker in who:
                    served[broker] += size
                elif common:
                    missed[broker] += size
        return tuple(BrokerShare(b, served[b], missed[b]) for b in sorted(brokers) if served[b] or missed[b])

    @property
    def rejections(self) -> Collection[Rejection]:
        """What was refused, once per broker and position that served it; made as they are read."""
        return _Rejections(self)

    def refusals(self) -> Counter[tuple[Address, str]]:
        """How often each broker served something refused, by reason; without reading the records again."""
        counts: Counter[tuple[Address, str]] = Counter()
        for serial, broker, _ in self._refused_servings():
            counts[broker, self._refusals.words(self._refused[serial])[0].value] += 1
        return counts

    @property
    def refused_records(self) -> int:
        """How many distinct records were refused."""
        return len(self._refused) - self._refused.count(0)

    # --- taking ---

    def _spot(self, broker: Address, part: StreamPart, form: str) -> tuple[int, int, int]:
        """Partition and form as a number, the broker's, and that of the set of it alone."""
        if form not in self._forms:
            self._forms.append(form)
        number = self._brokers.setdefault(broker, len(self._brokers))
        return self._ranks[part] << 8 | self._forms.index(form), number, self._groups.joined(0, number)

    def _is(self, serial: int, place: int, data: bytes) -> bool:
        return (
            self._places[serial] == place
            and self._lengths[serial] == len(data)
            and self._raw.read(self._offsets[serial], len(data)) == data
        )

    # --- checking ---

    def _batches(self) -> Iterator[range]:
        start = size = 0
        for serial, length in enumerate(self._lengths):
            if serial - start == BATCH_RECORDS or (size + length > BATCH_BYTES and serial > start):
                yield range(start, serial)
                start, size = serial, 0
            size += length
        if start < len(self._lengths):
            yield range(start, len(self._lengths))

    def _check_batch(
        self,
        serials: range,
        span: Span,
        permitted: Permission,
        contract_check: ContractCheck,
        message_limit: int,
    ) -> None:
        records: list[Record] = []
        whose: list[int] = []
        parts, forms, places, offsets, lengths = self._parts, self._forms, self._places, self._offsets, self._lengths
        read, keep, add = self._raw.read, self._canonical.append, self._run.append
        for serial in serials:
            place = places[serial]
            data = read(offsets[serial], lengths[serial])
            try:
                record = read_record(parts[place >> 8], forms[place & 255], data, span, message_limit)
            except Refused as refusal:
                self._refused[serial] = self._refusals.number(refusal)
                continue
            records.append(record)
            whose.append(serial)
        for serial, record, verdict in zip(whose, records, verify_batch(records), strict=True):
            try:
                contract_signed = judge_record(record, verdict, permitted, contract_check)
            except Refused as refusal:
                self._refused[serial] = self._refusals.number(refusal)
                continue
            if contract_signed:
                self._contract_signed.add(record.signed_digest)
            message = record.message
            canonical = record.canonical
            add(
                Row(
                    places[serial] >> 8,
                    message.timestamp_ms,
                    message.sequence_number,
                    message.publisher_id,
                    message.msg_chain_id.encode(),
                    record.leaf,
                    record.signed_digest,
                    record.signed_bytes,
                    serial,
                    keep(canonical),
                    len(canonical),
                )
            )
        if len(self._run) >= RUN_ROWS:
            self._end_run()

    def _end_run(self) -> None:
        """Sort what was checked and put it down."""
        self._run.sort()
        self._runs.append(self._put_down(self._run))
        self._run = []

    def _put_down(self, rows: list[Row]) -> list[tuple[int, int]]:
        """Offset and length of each chunk written."""
        chunks = []
        for at in range(0, len(rows), CHUNK_ROWS):
            data = _encode_rows(rows[at : at + CHUNK_ROWS])
            chunks.append((self._rows.append(data), len(data)))
        return chunks

    # --- settling ---

    def _merged(self) -> Iterable[Row]:
        """All rows in canonical order."""
        if not self._runs:
            return self._run
        return heapq.merge(*(_Chunks(self._rows, chunks) for chunks in self._runs))

    def _milliseconds(self) -> Iterator[Iterable[Row]]:
        """Rows by partition and timestamp: variants lie together there. Each can be read more than once."""
        rows: list[Row] = []
        chunks: list[tuple[int, int]] = []
        rank = time = -1
        for row in self._merged():
            if row.timestamp_ms != time or row.rank != rank:
                if rows:
                    yield self._together(rows, chunks)
                    rows, chunks = [], []
                rank, time = row.rank, row.timestamp_ms
            elif len(rows) == RUN_ROWS:
                chunks += self._put_down(rows)
                rows = []
            rows.append(row)
        if rows:
            yield self._together(rows, chunks)

    def _together(self, rows: list[Row], chunks: list[tuple[int, int]]) -> Iterable[Row]:
        return _Chunks(self._rows, [*chunks, *self._put_down(rows)]) if chunks else rows

    def _settle_rows(self, rows: Iterable[Row]) -> Iterator[SetItem]:
        """What is kept of one partition's records of one millisecond."""
        varied = self._varied(rows)
        variants: dict[bytes, list[tuple[Row, int]]] = defaultdict(list)
        if varied:
            for row, holders in self._distinct(rows):
                if row.digest in varied:
                    variants[row.digest].append((row, holders))
        for row, holders in self._distinct(rows):
            leaf = row.leaf
            self._see(leaf, holders)
            if row.digest in varied:
                candidates = variants[row.digest]
                if self._choose(candidates) != leaf:
                    continue
                for _, others in candidates:
                    holders = self._groups.united(holders, others)
            yield self._keep(row, holders)

    def _varied(self, rows: Iterable[Row]) -> set[bytes]:
        """Digests of those that have several leaves."""
        seen: set[bytes] = set()
        varied: set[bytes] = set()
        for row, _ in self._distinct(rows):
            (varied if row.digest in seen else seen).add(row.digest)
        return varied

    def _distinct(self, rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
        """The same record in different wire forms once, with all who served it."""
        last: Row | None = None
        holders = 0
        for row in rows:
            if last is not None:
                if row.leaf == last.leaf:
                    holders = self._groups.united(holders, self._holders[row.serial])
                    continue
                yield last, holders
            last, holders = row, self._holders[row.serial]
        if last is not None:
            yield last, holders

    def _choose(self, candidates: Sequence[tuple[Row, int]]) -> bytes:
        return choose_variant(
            (
                self._load(row),
                Sighting(self._groups.size(holders), 0),
            )
            for row, holders in candidates
        ).leaf

    def _see(self, leaf: bytes, holders: int) -> None:
        self._sightings[leaf[0]] += leaf + self._groups.sizes[holders]

    def _load(self, row: Row) -> Record:
        return record_from_canonical(self._canonical.read(row.offset, row.length))

    def _keep(self, row: Row, holders: int) -> SetItem:
        self._served[(row.rank, holders)] += row.signed_bytes
        if self._contract_signed and row.digest in self._contract_signed:
            self.erc1271.append(row.digest)
        canonical = self._canonical.read(row.offset, row.length)
        return SetItem(self._parts[row.rank], row.timestamp_ms, row.leaf, row.signed_bytes, canonical)

    # --- refusals ---

    def _each_rejection(self) -> Iterator[Rejection]:
        for serial, broker, position in self._refused_servings():
            reason, detail = self._refusals.words(self._refused[serial])
            data = self._raw.read(self._offsets[serial], self._lengths[serial])
            yield hashlib.sha256(data).digest(), reason.value, broker, f"position {position}: {detail}"[:300]

    def _refused_servings(self) -> Iterator[tuple[int, Address, int]]:
        """(serial, broker, position) in the order of arrival."""
        if not self.refused_records:
            return
        names = list(self._brokers)
        step = _SERVING.size * 10_000
        for start in range(0, len(self._servings), step):
            block = self._servings.read(start, min(step, len(self._servings) - start))
            for serial, number, position in _SERVING.iter_unpack(block):
                if self._refused[serial]:
                    yield serial, names[number], position


class _Chunks:
    """Rows that were put down, read as often as asked for."""

    __slots__ = ("_places", "_rows")

    def __init__(self, rows: Spool, places: list[tuple[int, int]]) -> None:
        self._rows = rows
        self._places = places

    def __iter__(self) -> Iterator[Row]:
        for offset, length in self._places:
            yield from _decode_rows(self._rows.read(offset, length))


class _Rejections(Collection[Rejection]):
    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering

    def __iter__(self) -> Iterator[Rejection]:
        return self._gathering._each_rejection()

    def __len__(self) -> int:
        return sum(self._gathering.refusals().values())

    def __bool__(self) -> bool:
        return self._gathering.refused_records > 0

    def __contains__(self, rejection: object) -> bool:
        return any(rejection == each for each in self)


class _Groups:
    """Sets of brokers as small numbers: a window has millions of records and few such sets. 0 is nobody."""

    __slots__ = ("_members", "_numbers", "sizes")

    def __init__(self) -> None:
        self.sizes = [bytes(4)]
        """How many each has, as four bytes."""
        self._numbers: dict[frozenset[int], int] = {frozenset(): 0}
        self._members: list[frozenset[int]] = [frozenset()]

    def joined(self, group: int, broker: int) -> int:
        members = self._members[group]
        return group if broker in members else self._number(members | {broker})

    def united(self, group: int, other: int) -> int:
        return group if group == other else self._number(self._members[group] | self._members[other])

    def members(self, group: int) -> frozenset[int]:
        return self._members[group]

    def size(self, group: int) -> int:
        return len(self._members[group])

    def _number(self, members: frozenset[int]) -> int:
        number = self._numbers.setdefault(members, len(self._members))
        if number == len(self._members):
            self._members.append(members)
            self.sizes.append(len(members).to_bytes(4, "big"))
        return number


class _Refusals:
    """Reasons with their details as small numbers; 0 is none. Details of strangers are bounded in number."""

    __slots__ = ("_numbers", "_words")

    def __init__(self) -> None:
        self._words: list[tuple[Reason, str]] = [(Reason.MALFORMED, "")]
        self._numbers: dict[tuple[Reason, str], int] = {}

    def number(self, refusal: Refused) -> int:
        words = (refusal.reason, refusal.detail[:300])
        if words not in self._numbers and len(self._words) > MAX_DETAILS:
            words = (refusal.reason, "")
        number = self._numbers.setdefault(words, len(self._words))
        if number == len(self._words):
            self._words.append(words)
        return number

    def words(self, number: int) -> tuple[Reason, str]:
        return self._words[number]


_paused = 0
_pause_lock = threading.Lock()


@contextmanager
def gc_paused() -> Iterator[None]:
    """No search for cycles while many records without cycles are made; it would cost an eighth of the time.

    Several threads may be inside; what each makes in a batch is freed by counting.
    """
    global _paused
    with _pause_lock:
        _paused += 1
        if _paused == 1:
            gc.disable()
    try:
        yield
    finally:
        with _pause_lock:
            _paused -= 1
            if _paused == 0:
                gc.enable()
