"""Free space: voting stops before the disk is full."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from validator.settings import floor_bytes


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system that holds the data folder, and the floor below which it is too full."""

    free: int
    total: int
    floor: int

    @property
    def is_full(self) -> bool:
        return self.free < self.floor


def measure_disk(folder: Path, floor: str = "") -> Disk:
    """The disk of ``folder`` (or of its nearest parent that exists); ``floor`` as LOGSTORE_DISK_FLOOR is written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Disk(usage.free, usage.total, floor_bytes(floor, usage.total))
