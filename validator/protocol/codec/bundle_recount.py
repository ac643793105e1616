"""Rows of a bundle recounted: the instance each belongs to, and every entry compared with its certified outcome."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import lt

from validator.protocol.codec.bundle_plain import Order, Rows
from validator.protocol.codec.bundle_shares import Entry
from validator.protocol.codec.manifest_rules import bundle_end_ms
from validator.protocol.errors import MalformedInput, require
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import InstanceId, Manifest, PartitionEntry, StreamPart


class RowInstances:
    """Which instance a row belongs to."""

    def __init__(self, manifest: Manifest) -> None:
        self._windows = [c.outcome.instance for c in manifest.windows]
        self._starts = [instance.number for instance in self._windows]
        self._late = manifest.late.outcome.instance
        self._end_ms = bundle_end_ms(manifest)

    def instance_of(self, late: bool, time: int) -> InstanceId:
        """That of a row by its timestamp. Raises MalformedInput for a time outside the bundle."""
        self._require_before_end(time)
        return self._late if late else self._windows[self._window_at(time)]

    def _require_before_end(self, time: int) -> None:
        if time >= self._end_ms:
            raise MalformedInput("column timestamp", f"{time} lies behind the bundle")

    def _window_at(self, time: int) -> int:
        """Index of the window in which a row that is not late lies."""
        index = bisect.bisect_right(self._starts, time) - 1
        if index < 0:
            raise MalformedInput("column timestamp", f"{time} lies before the bundle, in a row that is not late")
        return index

    def runs(self, rows: Rows, start: int, end: int) -> Iterator[tuple[InstanceId, int, int]]:
        """Rows [start, end), all of one partition and in order, cut where the instance changes.

        Raises MalformedInput for a time outside the bundle.
        """
        times, late = rows.timestamps_ms, rows.late
        while start < end:
            is_late = late[start]
            until = late.index(not is_late, start, end) if (not is_late) in late[start:end] else end
            self._require_before_end(times[until - 1])
            instance = self._late
            if not is_late:
                index = self._window_at(times[start])
                instance = self._windows[index]
                if index + 1 < len(self._starts):
                    until = bisect.bisect_left(times, self._starts[index + 1], start, until)
            yield instance, start, until
            start = until


@dataclass(slots=True)
class _Count:
    """What the rows of one instance and partition add up to so far."""

    tree: RunningRoot = field(default_factory=RunningRoot)
    rows: int = 0
    signed_bytes: int = 0
    canonical_bytes: int = 0


class Recount:
    """Adds up rows in canonical order and compares each entry as soon as its partition is over."""

    def __init__(self, manifest: Manifest, entries: Collection[Entry] | None = None) -> None:
        """``entries``: whose rows come, all others have none here; without it, those of the manifest."""
        self.rows = 0
        self._sets = RowInstances(manifest)
        self._expected: dict[Entry, PartitionEntry] = {
            (certified.outcome.instance, entry.stream_part): entry
            for certified in (*manifest.windows, manifest.late)
            for entry in certified.outcome.entries
            if entry.count and (entries is None or (certified.outcome.instance, entry.stream_part) in entries)
        }
        self._part: StreamPart | None = None
        self._counts: dict[InstanceId, _Count] = {}
        self._last: Order | None = None

    def add(self, rows: Rows) -> None:
        """Raises MalformedInput for a row out of order, or one more than its entry has."""
        starts = (0, *(end for _, end in rows.parts))
        runs = [(part, start, end) for start, (part, end) in zip(starts, rows.parts, strict=False)]
        self._require_order(rows, runs)
        for part, start, end in runs:
            if part != self._part:
                self._close_part()
                self._part = part
            for instance, begin, until in self._sets.runs(rows, start, end):
                self._add_run(instance, part, rows, begin, until)

    def _require_order(self, rows: Rows, runs: Sequence[tuple[StreamPart, int, int]]) -> None:
        """Where one part's times ascend, the rest of an order does not matter; elsewhere neighbours are compared."""
        orders, times = rows.orders, rows.timestamps_ms
        for _, start, end in runs:
            if self._last is not None and not self._last < orders[start]:
                raise MalformedInput("rows", f"row {self.rows + start} is not in canonical order")
            if not all(map(lt, times[start : end - 1], times[start + 1 : end])):
                for n in range(start + 1, end):
                    if not times[n - 1] < times[n] and not orders[n - 1] < orders[n]:
                        raise MalformedInput("rows", f"row {self.rows + n} is not in canonical order")
            self._last = orders[end - 1]

    def _add_run(self, instance: InstanceId, part: StreamPart, rows: Rows, start: int, end: int) -> None:
        """Rows [start, end), all of one instance and partition."""
        entry = self._expected.get((instance, part))
        count = self._counts.setdefault(instance, _Count())
        if entry is None or count.rows + end - start > entry.count:
            raise MalformedInput(f"entry {instance} {part[0]}/{part[1]}", "has more rows than its outcome says")
        count.tree.add(rows.leaves[start:end])
        count.rows += end - start
        count.signed_bytes += rows.signed_ends[end] - rows.signed_ends[start]
        count.canonical_bytes += rows.canonical_ends[end] - rows.canonical_ends[start]
        self.rows += end - start

    def close(self) -> None:
        """Compare the last partition; every entry must have been met. Raises MalformedInput."""
        self._close_part()
        for instance, part in self._expected:
            raise MalformedInput(f"entry {instance} {part[0]}/{part[1]}", "has no rows")

    def _close_part(self) -> None:
        if self._part is None:
            return
        for instance, count in self._counts.items():
            entry = self._expected.pop((instance, self._part))
            what = f"entry {instance} {self._part[0]}/{self._part[1]}"
            require(count.rows == entry.count, what, f"{count.rows} rows, not {entry.count}")
            require(count.tree.root() == entry.root, what, "rows give another root")
            require(count.signed_bytes == entry.signed_bytes, what, "rows give other signed bytes")
            require(count.canonical_bytes == entry.canonical_bytes, what, "rows give other canonical bytes")
        self._counts = {}
