"""The store as ingest sees it: nothing is taken below the disk's floor, and whole days go when they are old."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from validator.broker.passing_store import PassingStore
from validator.log import get_logger
from validator.ports.message_store import MessageStore
from validator.protocol.errors import TransientError
from validator.protocol.model import Record
from validator.settings import floor_bytes

log = get_logger(__name__)

DAY_MS = 86_400_000
LOOK_S = 1.0
"""How old a look at the disk may be."""


class DiskFloor:
    """Whether there is room, looked at once a second. Thread-safe."""

    def __init__(self, folder: Path, floor: str) -> None:
        self._folder = folder
        self._floor = floor
        self._lock = threading.Lock()
        self._looked_s = -LOOK_S
        self._room = True

    def has_room(self) -> bool:
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s >= LOOK_S:
                self._looked_s = now_s
                usage = shutil.disk_usage(self._folder)
                room = usage.free >= floor_bytes(self._floor, usage.total)
                if room != self._room:
                    log.error("disk.floor", has_room=room, free_bytes=usage.free)
                self._room = room
            return self._room


class GuardedStore(PassingStore):
    """A message store that refuses records while the disk is below its floor; all else is the store's own."""

    def __init__(self, store: MessageStore, floor: DiskFloor) -> None:
        super().__init__(store)
        self._floor = floor

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        if records and not self._floor.has_room():
            raise TransientError("the disk is below its floor", reason="floor")
        return super().insert(records, arrived_ms)


def sweep(store: MessageStore, now_ms: int, retention_days: int) -> None:
    """Delete the days that are older than the retention."""
    dropped = store.drop_days_before(now_ms - retention_days * DAY_MS)
    if dropped:
        log.info("days.dropped", days=dropped)
