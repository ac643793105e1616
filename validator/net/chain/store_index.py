"""What is known of which streams are stored, and up to which block: read once, then kept up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreList:
    """Streams that a StoreUpdated event has named up to and including block ``upto``."""

    upto: int
    stream_ids: frozenset[str]


class StoreIndex(Protocol):
    """Where the list of stores is kept between runs."""

    def load(self) -> StoreList | None: ...

    def save(self, stores: StoreList) -> None: ...


@dataclass(slots=True)
class MemoryIndex:
    """An index that is grown again after a restart."""

    stores: StoreList | None = field(default=None)

    def load(self) -> StoreList | None:
        return self.stores

    def save(self, stores: StoreList) -> None:
        self.stores = stores
