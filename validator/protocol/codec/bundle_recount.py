"""Rows of a bundle recounted: the instance each belongs to, and every entry compared with its certified outcome."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

from validator.protocol.codec.manifest_rules import bundle_end_ms
from validator.protocol.errors import MalformedInput, require
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import InstanceId, Manifest, PartitionEntry, Record, StreamPart


class RowInstances:
    """Which instance a row belongs to."""

    def __init__(self, manifest: Manifest) -> None:
        self._windows = [c.outcome.instance for c in manifest.windows]
        self._starts = [instance.number for instance in self._windows]
        self._late = manifest.late.outcome.instance
        self._end_ms = bundle_end_ms(manifest)

    def instance_of(self, late: bool, record: Record) -> InstanceId:
        """Raises MalformedInput for a time outside the bundle."""
        time = record.message.timestamp_ms
        require(time < self._end_ms, "column timestamp", f"{time} lies behind the bundle")
        if late:
            return self._late
        index = bisect.bisect_right(self._starts, time) - 1
        require(index >= 0, "column timestamp", f"{time} lies before the bundle, in a row that is not late")
        return self._windows[index]


@dataclass(slots=True)
class _Count:
    """What the rows of one instance and partition add up to so far."""

    tree: RunningRoot = field(default_factory=RunningRoot)
    rows: int = 0
    signed_bytes: int = 0
    canonical_bytes: int = 0


class Recount:
    """Adds up rows in canonical order and compares each entry as soon as its partition is over."""

    def __init__(self, manifest: Manifest) -> None:
        self.rows = 0
        self._sets = RowInstances(manifest)
        self._expected: dict[tuple[InstanceId, StreamPart], PartitionEntry] = {
            (certified.outcome.instance, entry.stream_part): entry
            for certified in (*manifest.windows, manifest.late)
            for entry in certified.outcome.entries
            if entry.count
        }
        self._part: StreamPart | None = None
        self._counts: dict[InstanceId, _Count] = {}
        self._last: Any = None

    def add(self, late: bool, record: Record) -> None:
        """Raises MalformedInput for a row out of order, or one more than its entry has."""
        order = record.order
        require(self._last is None or self._last < order, "rows", f"row {self.rows} is not in canonical order")
        self._last = order
        part = record.message.stream_part
        if part != self._part:
            self._close_part()
            self._part = part
        instance = self._sets.instance_of(late, record)
        entry = self._expected.get((instance, part))
        count = self._counts.setdefault(instance, _Count())
        within = entry is not None and count.rows < entry.count
        require(within, f"entry {instance} {part[0]}/{part[1]}", "has more rows than its outcome says")
        count.tree.add((record.leaf,))
        count.rows += 1
        count.signed_bytes += record.signed_bytes
        count.canonical_bytes += len(record.canonical)
        self.rows += 1

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
