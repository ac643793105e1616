"""Chunk data on disk, complete or not."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class StoredChunk:
    """One chunk on disk: half-open range in its data, its proof, and whether the current rules keep it."""

    start: int
    end: int
    data_path: bytes
    is_kept: bool


@dataclass(slots=True)
class StoredData:
    """The chunks of one (data root, data size), whatever transactions name it; bytes lie in one sparse file."""

    path: Path
    size: int
    seen_s: float
    """When a header that is not mined last named it."""
    chunks: dict[int, StoredChunk] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        end = 0
        for chunk in sorted(self.chunks.values(), key=lambda c: c.start):
            if chunk.start != end:
                return False
            end = chunk.end
        return end == self.size

    def find_chunk(self, offset: int) -> StoredChunk | None:
        """The chunk that holds byte ``offset`` of the data."""
        return next((c for c in self.chunks.values() if c.start <= offset < c.end), None)

    def write(self, start: int, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, data, start)
        finally:
            os.close(descriptor)

    def read(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
