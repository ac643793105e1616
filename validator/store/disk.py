"""Free space: voting stops before the disk is full."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from validator.errors import ConfigError

DEFAULT_FLOOR_BYTES = 5 << 30
DEFAULT_FLOOR_PERCENT = 10


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
    """The disk of ``folder`` (or of its nearest parent that exists).

    Raises:
        ConfigError: ``floor`` is neither bytes nor percent.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Disk(usage.free, usage.total, floor_bytes(floor, usage.total))


def floor_bytes(floor: str, total: int) -> int:
    """LOGSTORE_DISK_FLOOR in bytes: "1000000", "7%", or empty for 10 % of the disk, at most 5 GiB.

    Raises:
        ConfigError: anything else.
    """
    text = floor.replace(" ", "")
    if not text:
        return min(total * DEFAULT_FLOOR_PERCENT // 100, DEFAULT_FLOOR_BYTES)
    if text.isdecimal():
        return int(text)
    if text.endswith("%") and text[:-1].isdecimal() and int(text[:-1]) <= 100:
        return total * int(text[:-1]) // 100
    raise ConfigError(f"LOGSTORE_DISK_FLOOR: {floor!r} is neither bytes nor percent", field="LOGSTORE_DISK_FLOOR")
