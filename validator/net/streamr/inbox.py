"""What has arrived and was not read yet: bounded in bytes; what does not fit is let go and counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from validator.ports.bus import MAX_BATCH, Delivered

MAX_BUFFER_BYTES = 64 << 20
OVERHEAD_BYTES = 256
"""What a message costs beside its bytes, so that many small ones are bounded too."""


class Inbox:
    """A queue with one reader, inside one event loop."""

    def __init__(self, max_bytes: int = MAX_BUFFER_BYTES) -> None:
        self.dropped = 0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._waiting: deque[Delivered] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def put(self, delivered: Delivered) -> None:
        cost = len(delivered.data) + OVERHEAD_BYTES
        if self._closed or self.bytes + cost > self._max_bytes:
            self.dropped += 1
            return
        self.bytes += cost
        self._waiting.append(delivered)
        self._news.set()

    async def wait_change(self) -> None:
        """Until something was read, or ``let_on``, or the end."""
        self._room.clear()
        await self._room.wait()

    def let_on(self) -> None:
        """Wake who waits for a change, to look again at why it waits."""
        self._room.set()

    def close(self) -> None:
        """Nothing more comes in."""
        self._closed = True
        self._news.set()
        self._room.set()

    async def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        """What is here, ``MAX_BATCH`` at a time; ends when closed and empty."""
        waiting = self._waiting
        while True:
            while not waiting:
                if self._closed:
                    return
                self._news.clear()
                await self._news.wait()
            batch = [waiting.popleft() for _ in range(min(MAX_BATCH, len(waiting)))]
            self.bytes -= sum(len(delivered.data) + OVERHEAD_BYTES for delivered in batch)
            self._room.set()
            yield batch
