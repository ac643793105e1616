"""Bytes of a window that need not stay in memory: appended once, read anywhere, gone with the process.

The newest bytes wait in memory; what is older lies in a file without a name, so a small window never touches the
disk and a crash leaves nothing behind. ``Spool`` finds bytes by their offset, ``RecordSpool`` records by their number.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from validator.protocol.errors import TransientError

MEMORY_BYTES = 1 << 20
"""Few, since a worker gathers several windows at once, and the disk's own cache holds what was written just now."""


class Spool:
    """One file of scratch bytes below ``folder``. Not thread-safe."""

    __slots__ = ("_file", "_folder", "_memory_bytes", "_newest", "_written")

    def __init__(self, folder: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        """``memory_bytes``: how much may wait in memory before it is written."""
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._newest = bytearray()
        self._written = 0
        self._file: BinaryIO | None = None

    def append(self, data: bytes) -> int:
        """Offset of ``data``. Raises TransientError: the disk is full or refuses."""
        newest = self._newest
        offset = self._written + len(newest)
        newest += data
        if len(newest) >= self._memory_bytes:
            self._write()
        return offset

    def read(self, offset: int, length: int) -> bytes:
        """The bytes appended there. Raises TransientError."""
        at = offset - self._written
        if at >= 0:
            return bytes(self._newest[at : at + length])
        if at + length > 0:
            return self.read(offset, -at) + bytes(self._newest[: at + length])
        assert self._file is not None
        try:
            return os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise TransientError(f"scratch file in {self._folder}: cannot read: {error.strerror or error}") from error

    def __len__(self) -> int:
        return self._written + len(self._newest)

    def close(self) -> None:
        self._newest = bytearray()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self) -> None:
        """Move what waits to the file."""
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed by close()
            view = memoryview(self._newest)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError as error:
            raise TransientError(f"scratch file in {self._folder}: cannot write: {error.strerror or error}") from error
        self._written += len(self._newest)
        self._newest = bytearray()


class RecordSpool:
    """Records by number, from 0. The newest are held as they came, so that reading them costs nothing."""

    __slots__ = ("_file", "_lengths", "_memory_bytes", "_newest", "_newest_bytes", "_offsets")

    def __init__(self, folder: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        """``memory_bytes``: how much of them may wait in memory before it is written."""
        self._file = Spool(folder, 1)
        self._memory_bytes = memory_bytes
        self._offsets = array("Q")
        self._lengths = array("I")
        self._newest: list[bytes] = []
        self._newest_bytes = 0

    def extend(self, records: Sequence[bytes]) -> None:
        """Raises TransientError: the disk is full or refuses; then nothing more can be kept."""
        lengths = list(map(len, records))
        self._lengths.extend(lengths)
        self._newest += records
        self._newest_bytes += sum(lengths)
        if self._newest_bytes >= self._memory_bytes:
            self._write()

    def __getitem__(self, number: int) -> bytes:
        """Raises TransientError, or IndexError: there is no such record."""
        written = len(self._offsets)
        if number >= written:
            return self._newest[number - written]
        return self._file.read(self._offsets[number], self._lengths[number])

    def read(self, numbers: range) -> list[bytes]:
        """Those from ``numbers.start`` up to ``numbers.stop``. Raises TransientError."""
        written = len(self._offsets)
        start, stop = numbers.start, numbers.stop
        if start >= written:
            return self._newest[start - written : stop - written]
        ends = list(accumulate(self._lengths[start : min(stop, written)], initial=0))
        data = self._file.read(self._offsets[start], ends[-1])
        return [*(data[at:end] for at, end in pairwise(ends)), *self._newest[: max(0, stop - written)]]

    @property
    def lengths(self) -> Sequence[int]:
        """Bytes of each record."""
        return self._lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def close(self) -> None:
        self._newest = []
        self._file.close()

    def _write(self) -> None:
        first = len(self._offsets)
        offset = self._file.append(b"".join(self._newest))
        self._offsets.extend(accumulate(self._lengths[first:-1], initial=offset))
        self._newest = []
        self._newest_bytes = 0
