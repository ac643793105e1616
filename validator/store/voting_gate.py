"""What keeps this machine from voting now: a disk that is nearly full, or a database whose votes were exported."""

from __future__ import annotations

import threading
from pathlib import Path

from validator.log import get_logger
from validator.ports.clock import Clock
from validator.protocol.errors import TransientError
from validator.store.database import Database
from validator.store.disk import measure_disk
from validator.store.meta import load_meta

log = get_logger(__name__)

LOOK_MS = 5_000
"""How long an answer holds: it is asked for at every look at every instance."""


class VotingBlock:
    """Why no vote may be cast now; "" if nothing is in the way. Thread-safe, cheap, logs each change once."""

    def __init__(self, database: Database, clock: Clock, data_dir: Path, disk_floor: str = "") -> None:
        self._database = database
        self._clock = clock
        self._data_dir = data_dir
        self._disk_floor = disk_floor
        self._reason = ""
        self._until_ms = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            now_ms = self._clock.now_ms()
            if now_ms < self._until_ms <= now_ms + LOOK_MS:
                return self._reason
            before, self._reason = self._reason, self._look()
            self._until_ms = now_ms + LOOK_MS
            if self._reason and not before:
                log.error("voting.stopped", reason=self._reason)
            elif before and not self._reason:
                log.warning("voting.resumed", reason=before)
            return self._reason

    def _look(self) -> str:
        try:
            disk = measure_disk(self._data_dir, self._disk_floor)
        except OSError as error:
            return f"the disk of {self._data_dir} cannot be measured: {error.strerror}"
        if disk.is_full:
            return f"{disk.free >> 20} MiB of disk are free, the floor is {disk.floor >> 20} MiB"
        try:
            with self._database.read() as connection:
                meta = load_meta(connection)
        except TransientError as error:
            return f"the database does not answer: {error}"
        if meta is not None and meta.retired_ms is not None:
            return "this database is retired: its votes were exported"
        return ""
