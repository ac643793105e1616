"""Gathering a window: what brokers serve goes in as it arrives, the distinct checked messages come out in order.

    ingest    all records of all brokers, from many threads: what several serve is kept once
    check     read, verify signatures in batches, ask for permission (``admission``); sort runs
    merge     sorted runs: one message per identity, in canonical order; who served it is added up

A window of millions of messages must fit a worker's memory, so only small things are held per record: a hash of its
bytes, where they lie in a scratch file, which brokers served it. What is checked leaves as sorted runs in scratch
files and is merged as they are read. A window that fits one run is sorted in memory. The bytes behind a hash are
compared, so the hash decides nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, repeat
from pathlib import Path
from types import TracebackType

import msgspec

from validator.ports.sources import Pull
from validator.protocol.codec import cbor
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.variants import ServeCounts, choose_variant
from validator.protocol.columns import Name, Page
from validator.protocol.consensus.proposal import Span
from validator.protocol.model import Address, BrokerShare, Digest, Identity, Reason, Record, StreamPart
from validator.steps.admission import ContractCheck, Permission, Rejection, Row, WindowCheck
from validator.steps.gc_pause import gc_paused
from validator.steps.spool import RecordSpool, Spool
from validator.steps.tallies import BrokerSets, Refusals

BATCH_RECORDS = 4096
"""Records parsed and verified at a time."""
BATCH_BYTES = 256 << 10
"""What is made of a batch while it is parsed takes ten times as much; larger ones are no faster."""
RUN_ROWS = 50_000
RUN_BYTES = 8 << 20
"""So much, in rows or in canonical bytes, is sorted at a time;"""
FIRST_RUN_BYTES = 512 << 10
"""less at first, and each time twice as much: a small window holds little, and a large one has few runs to merge."""
CHUNK_ROWS = 500
CHUNK_BYTES = 256 << 10
PAGE_ROWS = 64
"""Rows that leave together: so many of the largest fit in memory."""
_SERVED = struct.Struct("=III")
"""Number of the broker, position of the first record, how many; behind it the number of each (u32)."""
_HASH_MASK = (1 << 60) - 1


_encode_rows = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode


class WindowBuffer:
    """One window while it is collected. ``ingest`` is thread-safe, the rest is for one thread, in the order above."""

    def __init__(self, folder: Path, parts: Iterable[StreamPart]) -> None:
        """``folder``: where scratch files may lie. ``parts``: all that are pulled."""
        self._ranks = {part: rank for rank, part in enumerate(sorted(set(parts), key=part_order))}
        self._parts = list(self._ranks)
        self._lock = threading.Lock()
        self._sealed = False
        self._raw = RecordSpool(folder)
        self._rows = Spool(folder)
        self._servings = Spool(folder)
        self._seen: dict[int, int] = {}
        self._places = array("I")
        self._holders = array("I")
        self._groups = BrokerSets()
        self._forms: list[str] = []
        self._spots: dict[tuple[Address, StreamPart, str], tuple[int, int, int]] = {}
        self._brokers: dict[Address, int] = {}
        self._refusals = Refusals()
        self._refused = array("I")
        self._contract_signed: set[Digest] = set()
        self._runs: list[list[tuple[int, int]]] = []
        self._run: list[Row] = []
        self._run_bytes = 0
        self._serve_counts: list[bytearray] = [bytearray() for _ in range(256)]
        self._served: Counter[tuple[int, int]] = Counter()
        self.erc1271: list[Digest] = []
        """Digests of merged messages that a contract found valid; complete when ``merge`` has ended."""

    def __enter__(self) -> WindowBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._sealed = True
        for spool in (self._raw, self._rows, self._servings):
            spool.close()

    def ingest(self, broker: Address, part: StreamPart, position: int, records: Sequence[bytes], form: str) -> None:
        """Records that follow each other in a broker's answer, the first at ``position``.

        After ``check`` has begun nothing is taken any more.
        """
        with self._lock:
            if self._sealed:
                return
            spot = self._spots.get((broker, part, form))
            if spot is None:
                spot = self._spots[broker, part, form] = self._spot(broker, part, form)
            place, number, alone = spot
            salt = place * 0x9E3779B97F4A7C15 & _HASH_MASK
            number_of = self._seen.setdefault
            following = len(self._places)
            serials = array("I")
            new: list[bytes] = []
            for data in records:
                key = hash(data) ^ salt
                while (serial := number_of(key, following)) != following:
                    if new:  # what is compared has to be there
                        self._add(new, place, alone)
                        new = []
                    if self._places[serial] == place and self._raw[serial] == data:
                        self._holders[serial] = self._groups.joined(self._holders[serial], number)
                        break
                    key += 1
                else:
                    new.append(data)
                    following += 1
                serials.append(serial)
            if new:
                self._add(new, place, alone)
            self._servings.append(_SERVED.pack(number, position, len(serials)) + serials.tobytes())

    def check(self, span: Span, permitted: Permission, contract_check: ContractCheck, *, message_limit: int) -> None:
        """Check every distinct record once. Raises TransientError: the chain or the disk did not answer."""
        with self._lock:
            self._sealed = True
        self._seen = {}
        self._refused = array("I", bytes(4 * len(self._raw)))
        checks = WindowCheck(span, permitted, contract_check, message_limit=message_limit)
        for serials in self._batches():
            with gc_paused():
                self._check_batch(serials, checks)
        self._contract_signed = checks.contract_signed
        if self._runs:
            self._end_run()
        else:
            self._run.sort()

    def merge(self) -> Iterator[Page]:
        """One record per identity, in canonical order. To be read to its end, once."""
        self._serve_counts = [bytearray() for _ in range(256)]
        self._served = Counter()
        self.erc1271 = []
        served, contract_signed = self._served, self._contract_signed
        page: list[Row] = []
        rank = -1
        for row, holders in self._chosen():
            if row[0] != rank or len(page) == PAGE_ROWS:
                if page:
                    yield self._page(page)
                    page = []
                rank = row[0]
            page.append(row)
            served[rank, holders] += row[7]
            if row[6] in contract_signed:
                self.erc1271.append(row[6])
        if page:
            yield self._page(page)

    def identities(self) -> Iterator[tuple[Identity, Callable[[], Record]]]:
        """Every distinct checked record, variants too: its identity, and how to load it."""
        last = b""
        for rank, timestamp_ms, _, _, _, leaf, digest, _, canonical, _, _ in self._merged():
            if leaf == last:
                continue
            last = leaf
            part = self._parts[rank]
            yield (part[0], part[1], timestamp_ms, digest), partial(record_from_canonical, canonical)

    def serve_counts(self) -> bytes:
        """Canonical object of how many brokers served each record, by leaf; after ``merge``."""
        count = sum(map(len, self._serve_counts)) // 36
        out = bytearray(cbor.array_head(2) + cbor.encode("sightings/1") + cbor.array_head(count))
        head = cbor.array_head(2) + cbor.encode(bytes(32))[:-32]
        counts = {size: cbor.encode(int.from_bytes(size, "big")) for size in self._groups.sizes}
        for bucket in map(bytes, self._serve_counts):
            entries = sorted([bucket[at : at + 36] for at in range(0, len(bucket), 36)])
            out += b"".join([head + entry[:32] + counts[entry[32:]] for entry in entries])
        return bytes(out)

    def shares(self, pulls: Sequence[Pull], brokers: Sequence[Address], *, free: str) -> tuple[BrokerShare, ...]:
        """Per broker the signed bytes of distinct messages it served, and of those it missed; after ``merge``.

        What the stream ``free`` has counts for nobody: whoever may publish there pays nothing, and could earn by it.

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
            if self._parts[rank][0] == free:
                continue
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

    def refused_parts(self, reason: Reason) -> set[StreamPart]:
        """Partitions of which a record was refused for this reason."""
        return {
            self._parts[self._places[serial] >> 8]
            for serial, number in enumerate(self._refused)
            if number and self._refusals.words(number)[0] is reason
        }

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

    def _add(self, records: Sequence[bytes], place: int, holders: int) -> None:
        """Keep new records, which one broker served."""
        self._raw.extend(records)
        self._places.extend(repeat(place, len(records)))
        self._holders.extend(repeat(holders, len(records)))

    # --- checking ---

    def _batches(self) -> Iterator[range]:
        start = size = 0
        for serial, length in enumerate(self._raw.lengths):
            if serial - start == BATCH_RECORDS or (size + length > BATCH_BYTES and serial > start):
                yield range(start, serial)
                start, size = serial, 0
            size += length
        if start < len(self._raw):
            yield range(start, len(self._raw))

    def _check_batch(self, serials: range, checks: WindowCheck) -> None:
        run, start = self._run, len(self._run)
        for members in self._same_place(serials):
            place = self._places[members.start]
            rank, form = place >> 8, self._forms[place & 255]
            served = self._raw.read(members)
            for serial, refused in checks.check(self._parts[rank], form, served, run, rank, members.start):
                self._refused[serial] = self._refusals.number(refused.reason, refused.detail)
        self._run_bytes += sum(len(row[8]) for row in run[start:])
        if len(run) >= RUN_ROWS or self._run_bytes >= min(RUN_BYTES, FIRST_RUN_BYTES << len(self._runs)):
            self._end_run()

    def _same_place(self, serials: range) -> Iterator[range]:
        """Cut where partition or form changes."""
        start = serials.start
        for _, group in groupby(self._places[start : serials.stop]):
            stop = start + sum(1 for _ in group)
            yield range(start, stop)
            start = stop

    def _end_run(self) -> None:
        """Sort what was checked and put it down."""
        self._run.sort()
        self._runs.append(self._put_down(self._run))
        self._run = []
        self._run_bytes = 0

    def _put_down(self, rows: list[Row]) -> list[tuple[int, int]]:
        """Offset and length of each chunk written."""
        chunks = []
        for chunk in _chunked(rows):
            data = _encode_rows(chunk)
            chunks.append((self._rows.append(data), len(data)))
        return chunks

    # --- settling ---

    def _merged(self) -> Iterable[Row]:
        """All rows in canonical order."""
        if not self._runs:
            return self._run
        return heapq.merge(*(_Chunks(self._rows, chunks) for chunks in self._runs))

    def _chosen(self) -> Iterator[tuple[Row, int]]:
        """The row of each message that is kept, with all who served it or a variant of it; counts them."""
        holders_of, serve_counts, sizes = self._holders, self._serve_counts, self._groups.sizes
        rows = iter(self._merged())
        row = next(rows, None)
        while row is not None:
            following = next(rows, None)
            if following is None or following[1] != row[1] or following[0] != row[0]:
                leaf = row[5]
                holders = holders_of[row[10]]
                serve_counts[leaf[0]] += leaf + sizes[holders]
                yield row, holders
                row = following
            else:
                together, row = self._together(row, following, rows)
                yield from self._choose_rows(together)

    def _together(self, first: Row, second: Row, rows: Iterator[Row]) -> tuple[Iterable[Row], Row | None]:
        """All rows of the partition and millisecond of the first two, to be read more than once; the row behind them.

        Variants lie together there.
        """
        held = [first, second]
        size = len(first[8]) + len(second[8])
        chunks: list[tuple[int, int]] = []
        behind = None
        for row in rows:
            if row[1] != first[1] or row[0] != first[0]:
                behind = row
                break
            if len(held) >= RUN_ROWS or size >= RUN_BYTES:
                chunks += self._put_down(held)
                held, size = [], 0
            held.append(row)
            size += len(row[8])
        return (_Chunks(self._rows, [*chunks, *self._put_down(held)]) if chunks else held), behind

    def _page(self, rows: Sequence[Row]) -> Page:
        """Rows of one partition."""
        ranks, times_ms, sequences, publishers, chains, leaves, digests, signed, canonical, kinds, _ = zip(
            *rows, strict=True
        )
        numbers: dict[Name, int] = {}
        named = [numbers.setdefault(name, len(numbers)) for name in zip(publishers, chains, strict=True)]
        return Page(
            self._parts[ranks[0]],
            times_ms,
            sequences,
            tuple(numbers),
            named,
            b"".join(leaves),
            b"".join(digests),
            signed,
            list(map(len, canonical)),
            bytes(kinds),
            canonical,
            _as_they_are,
        )

    def _choose_rows(self, rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
        """The same among one partition's records of one millisecond."""
        varied = self._varied(rows)
        variants: dict[bytes, list[tuple[Row, int]]] = defaultdict(list)
        if varied:
            for row, holders in self._distinct(rows):
                if row[6] in varied:
                    variants[row[6]].append((row, holders))
        for row, holders in self._distinct(rows):
            leaf, digest = row[5], row[6]
            self._serve_counts[leaf[0]] += leaf + self._groups.sizes[holders]
            if digest in varied:
                candidates = variants[digest]
                if self._choose(candidates) != leaf:
                    continue
                for _, others in candidates:
                    holders = self._groups.united(holders, others)
            yield row, holders

    def _varied(self, rows: Iterable[Row]) -> set[bytes]:
        """Signed digests of those that have several leaves."""
        seen: set[bytes] = set()
        varied: set[bytes] = set()
        for row, _ in self._distinct(rows):
            (varied if row[6] in seen else seen).add(row[6])
        return varied

    def _distinct(self, rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
        """The same record in different wire forms once, with all who served it."""
        last: Row | None = None
        holders = 0
        for row in rows:
            if last is not None:
                if row[5] == last[5]:
                    holders = self._groups.united(holders, self._holders[row[-1]])
                    continue
                yield last, holders
            last, holders = row, self._holders[row[-1]]
        if last is not None:
            yield last, holders

    def _choose(self, candidates: Sequence[tuple[Row, int]]) -> bytes:
        return choose_variant(
            (record_from_canonical(row[8]), ServeCounts(self._groups.size(holders), 0)) for row, holders in candidates
        ).leaf

    # --- refusals ---

    def _each_rejection(self) -> Iterator[Rejection]:
        for serial, broker, position in self._refused_servings():
            reason, detail = self._refusals.words(self._refused[serial])
            yield (
                hashlib.sha256(self._raw[serial]).digest(),
                reason.value,
                broker,
                f"position {position}: {detail}"[:300],
            )

    def _refused_servings(self) -> Iterator[tuple[int, Address, int]]:
        """(serial, broker, position) in the order of arrival."""
        if not self.refused_records:
            return
        names = list(self._brokers)
        refused = self._refused
        at = 0
        while at < len(self._servings):
            number, position, count = _SERVED.unpack(self._servings.read(at, _SERVED.size))
            at += _SERVED.size
            serials = array("I", self._servings.read(at, 4 * count))
            at += 4 * count
            for serial in serials:
                if refused[serial]:
                    yield serial, names[number], position
                position += 1


def _as_they_are(canonical: Sequence[bytes], _sizes: Sequence[int]) -> Sequence[bytes]:
    return canonical


class _Chunks:
    """Rows that were put down, read as often as asked for."""

    __slots__ = ("_places", "_rows")

    def __init__(self, rows: Spool, places: list[tuple[int, int]]) -> None:
        self._rows = rows
        self._places = places

    def __iter__(self) -> Iterator[Row]:
        for offset, length in self._places:
            yield from _decode_rows(self._rows.read(offset, length))


def _chunked(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """At most ``CHUNK_ROWS`` each, and not much more than ``CHUNK_BYTES``: of every run one lies in memory."""
    start = size = 0
    for at, row in enumerate(rows):
        if at - start == CHUNK_ROWS or size > CHUNK_BYTES:
            yield rows[start:at]
            start, size = at, 0
        size += len(row[8])
    yield rows[start:]


class _Rejections(Collection[Rejection]):
    def __init__(self, buffer: WindowBuffer) -> None:
        self._buffer = buffer

    def __iter__(self) -> Iterator[Rejection]:
        return self._buffer._each_rejection()

    def __len__(self) -> int:
        return sum(self._buffer.refusals().values())

    def __bool__(self) -> bool:
        return self._buffer.refused_records > 0

    def __contains__(self, rejection: object) -> bool:
        return any(rejection == each for each in self)
