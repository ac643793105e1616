"""The messages of a broker in one folder: a SQLite file per UTC day and shard (``ports.MessageStore``).

``2026-11-30.1of2.sqlite`` holds the second half of the stream partitions, by a hash of their names: as many writers may
work at once. The number of shards may change: each file's name says of how many it is one. Several processes may share
a folder; what one has dropped or begun the others see within ``LISTED_S``.
"""

from __future__ import annotations

import heapq
import re
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path

from validator.broker.day_file import DayFile, Place
from validator.ports.message_store import Columns, RangeState, SortKey, StoredRow
from validator.protocol.errors import TransientError
from validator.protocol.hashing import sha256
from validator.protocol.model import Digest, Record, StreamPart

DAY_MS = 86_400_000
PAGE_BYTES = 4 << 20
"""Canonical bytes after which a page ends before its limit."""
KEYS_PAGE = 4096
FETCH_LEAVES = 500
"""In one statement; SQLite takes 32 766 values, older ones 999."""
OPEN_FILES = 64
LISTED_S = 1.0
"""How old a listing of the folder may be."""
_NAME = re.compile(r"(\d{4,}-\d\d-\d\d)\.(\d+)of(\d+)\.sqlite")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_DAY = 2_900_000
"""The calendar's last day, in the year 9909; later timestamps share it."""


class SqliteMessageStore:
    """Thread-safe; several processes may use one folder."""

    def __init__(self, folder: Path, *, shards: int = 1) -> None:
        self._folder = folder
        self._shards = shards
        self._lock = threading.Lock()
        self._open: OrderedDict[str, DayFile] = OrderedDict()
        self._listed: dict[int, list[tuple[int, int]]] = {}
        self._listed_s = -LISTED_S
        folder.mkdir(parents=True, exist_ok=True)

    # --- what comes in

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        by_file: dict[tuple[int, int], list[Record]] = defaultdict(list)
        for record in records:
            m = record.message
            by_file[day_of(m.timestamp_ms), shard_of(m.stream_part, self._shards)].append(record)
        new = 0
        for (day, shard), own in by_file.items():
            name = _name(day, shard, self._shards)
            while True:
                file = self._file(name)
                try:
                    new += file.insert(own, arrived_ms)
                    break
                except TransientError as error:
                    if error.fields.get("reason") != "closed":
                        raise
            with self._lock:
                known = self._listed.setdefault(day, [])
                if (shard, self._shards) not in known:
                    known.append((shard, self._shards))
        return new

    # --- what goes out

    def scan(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> list[StoredRow]:
        rows: list[StoredRow] = []
        left = PAGE_BYTES
        if after is not None:
            from_ms = max(from_ms, after.timestamp_ms)
        for day in self._days(from_ms, until_ms):
            pages = [
                file.scan(part, from_ms, until_ms, after=after, limit=limit - len(rows), limit_bytes=left)
                for file in self._files(part, day)
            ]
            found = _merged(pages, limit - len(rows), left)
            rows += found
            left -= _size(found)
            if len(rows) == limit or left <= 0:
                break
        return rows

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> Columns:
        pages: list[Columns] = []
        left, left_bytes = limit, PAGE_BYTES
        if after is not None:
            from_ms = max(from_ms, after.timestamp_ms)
        for day in self._days(from_ms, until_ms):
            span = max(from_ms, day * DAY_MS), until_ms
            files = self._files(part, day)
            page = files[0].page(part, *span, after=after, limit=left) if len(files) == 1 else None
            if page is None:  # large messages, or more than one file: row by row until bytes or limit end it
                pages.append(Columns.of_rows(self.scan(part, *span, after=after, limit=left)))
                break
            pages.append(page)
            left, left_bytes = left - len(page), left_bytes - len(page.canonical)
            if left <= 0 or left_bytes <= 0:
                break
        return Columns.join(pages)

    def last(self, part: StreamPart, count: int) -> list[StoredRow]:
        rows: list[StoredRow] = []
        left = PAGE_BYTES
        for day in reversed(self._days(0, LAST_DAY * DAY_MS)):
            wanted = count - len(rows)
            pages = [file.last(part, wanted, left)[::-1] for file in self._files(part, day)]
            found = _distinct_rows(pages)[-wanted:]
            rows[:0] = found
            left -= _size(found)
            if len(rows) == count or left <= 0:
                break
        return rows

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        for day in self._days(from_ms, until_ms):
            files = self._files(part, day)
            after: Place | None = None
            while True:
                pages = [file.places(part, from_ms, until_ms, after=after, limit=KEYS_PAGE) for file in files]
                places = pages[0] if len(pages) == 1 else list(islice(_distinct(heapq.merge(*pages)), KEYS_PAGE))
                if not places:
                    break
                after = places[-1]
                yield [(place[0], place[4]) for place in places]
                if len(places) < KEYS_PAGE:
                    break

    def fetch(self, part: StreamPart, leaves: Sequence[tuple[int, Digest]]) -> list[StoredRow]:
        rows: list[StoredRow] = []
        for timestamp_ms, same_time in groupby(sorted(set(leaves)), key=lambda pair: pair[0]):
            wanted = [leaf for _, leaf in same_time]
            for file in self._files(part, day_of(timestamp_ms)):
                for at in range(0, len(wanted), FETCH_LEAVES):
                    rows += file.fetch(part, timestamp_ms, wanted[at : at + FETCH_LEAVES])
        return _distinct_rows([sorted(rows)])

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> RangeState:
        count = newest = 0
        for day in self._days(from_ms, until_ms):
            for file in self._files(part, day):
                more, arrived = file.state(part, from_ms, until_ms)
                count, newest = count + more, max(newest, arrived)
        return RangeState(count, newest)

    def parts(self) -> list[StreamPart]:
        found: set[StreamPart] = set()
        for day, files in self._listing().items():
            for shard, shards in files:
                found.update(self._file(_name(day, shard, shards)).parts())
        return sorted(found)

    # --- days

    def drop_days_before(self, ms: int) -> int:
        dropped = 0
        for day, files in self._listing(anew=True).items():
            if (day + 1) * DAY_MS > ms:
                continue
            for shard, shards in files:
                name = _name(day, shard, shards)
                with self._lock:
                    file = self._open.pop(name, None) or DayFile(self._folder / name)
                    self._listed.pop(day, None)
                file.delete()
            dropped += 1
        return dropped

    def days(self) -> list[int]:
        """Days since 1970 that something is held of, oldest first."""
        return sorted(self._listing())

    def close(self) -> None:
        with self._lock:
            files, self._open = list(self._open.values()), OrderedDict()
        for file in files:
            file.close()

    def _days(self, from_ms: int, until_ms: int) -> list[int]:
        """Those of the listing that a span touches, in order."""
        if until_ms <= from_ms:
            return []
        first, last = day_of(max(from_ms, 0)), day_of(max(until_ms - 1, 0))
        return sorted(day for day in self._listing() if first <= day <= last)

    def _listing(self, *, anew: bool = False) -> dict[int, list[tuple[int, int]]]:
        """Files by day: (shard, of how many)."""
        with self._lock:
            if not anew and time.monotonic() - self._listed_s < LISTED_S:
                return dict(self._listed)
            listed: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for path in sorted(self._folder.iterdir()):
                if (match := _NAME.fullmatch(path.name)) is not None:
                    day = (datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - _EPOCH).days
                    listed[day].append((int(match[2]), int(match[3])))
            gone = [name for name in self._open if not (self._folder / name).exists()]
            closing = [self._open.pop(name) for name in gone]
            self._listed, self._listed_s = dict(listed), time.monotonic()
            found = dict(self._listed)
        for file in closing:
            file.close()
        return found

    def _files(self, part: StreamPart, day: int) -> list[DayFile]:
        """Those that may hold a partition's messages of a day: one, unless the number of shards has changed."""
        names = [
            _name(day, shard, shards)
            for shard, shards in self._listing().get(day, ())
            if shard == shard_of(part, shards)
        ]
        return [self._file(name) for name in names]

    def _file(self, name: str) -> DayFile:
        closing: list[DayFile] = []
        with self._lock:
            file = self._open.get(name)
            if file is None:
                file = self._open[name] = DayFile(self._folder / name)
                while len(self._open) > OPEN_FILES:
                    closing.append(self._open.popitem(last=False)[1])
            self._open.move_to_end(name)
        for old in closing:
            old.close()
        return file


def day_of(timestamp_ms: int) -> int:
    """UTC days since 1970."""
    return min(timestamp_ms // DAY_MS, LAST_DAY)


def shard_of(part: StreamPart, shards: int) -> int:
    """Which of so many files a stream partition's messages are in."""
    if shards == 1:
        return 0
    return int.from_bytes(sha256(f"{part[0]}#{part[1]}".encode()).digest()[:8], "big") % shards


def _name(day: int, shard: int, shards: int) -> str:
    date = (_EPOCH + timedelta(days=day)).date()
    return f"{date.isoformat()}.{shard}of{shards}.sqlite"


def _merged(pages: Sequence[list[StoredRow]], limit: int, limit_bytes: int) -> list[StoredRow]:
    """Sorted pages as one, each leaf once, at most ``limit`` rows.

    Of what lies behind the end of a page that was cut for its bytes nothing is said: it comes with the next.
    """
    if len(pages) == 1:
        return pages[0][:limit]
    ends = [page[-1].key for page in pages if _size(page) >= limit_bytes]
    rows = _distinct_rows(pages)
    if ends:
        rows = [row for row in rows if row.key <= min(ends)]
    return rows[:limit]


def _size(rows: Sequence[StoredRow]) -> int:
    return sum([len(row.canonical) for row in rows])


def _distinct_rows(pages: Sequence[list[StoredRow]]) -> list[StoredRow]:
    return [next(same) for _, same in groupby(heapq.merge(*pages), key=lambda row: row.key)]


def _distinct(places: Iterator[Place]) -> Iterator[Place]:
    for place, _ in groupby(places):
        yield place
