"""From the message bus to the store: batches as they arrive, judged on threads, never more than so many at once.

A message that comes alone is judged at once; where another was judged within ``GATHER_S`` before it, what comes in that
time is judged together: two thousand messages a second, one by one, would be as many changes of thread and commits.
While all are busy the bus is not read; it holds a bounded number of bytes, drops the rest and counts them, and repair
brings them back. Stream partitions are joined as the chain registers them, up to ``max_parts``: the rest are refused
with one line in the log and a gauge, since each costs the network's node memory (half a MiB) whether it speaks or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from validator.broker.admission import Admission, Judged, Refusal
from validator.broker.chain_view import ChainView
from validator.log import get_logger
from validator.ports.bus import Delivered, MessageBus
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.errors import ValidatorError
from validator.protocol.model import StreamPart

log = get_logger(__name__)

WORKERS = 2
"""One reads and checks (``Admission`` sees to it) while the other waits for chain or store."""
GATHERED = 2048
"""Messages judged at a time, where so many wait."""
GATHER_S = 0.025
WAITING = 32
"""Batches that wait."""
JOINED_AT_ONCE = 32
"""Parts of one request to the network's node: what it took over before a call failed is not asked for again."""
AGAIN_S = 1.0
"""Between attempts to store what a database did not take."""
Told = Callable[[Sequence[Delivered], Sequence[Judged]], None]


class Ingest:
    """Reads one bus. ``on_judged`` is told of every batch once it is on disk."""

    def __init__(
        self,
        bus: MessageBus,
        admission: Admission,
        chain: ChainView,
        *,
        max_parts: int,
        on_judged: Told | None = None,
        patient: bool = False,
    ) -> None:
        """``patient``: what the store does not take now it takes soon, as a database that is restarted; the bus holds
        what comes meanwhile."""
        self._patient = patient
        self._bus = bus
        self._admission = admission
        self._chain = chain
        self._max_parts = max_parts
        self._on_judged = on_judged
        self._waiting: asyncio.Queue[Sequence[Delivered]] = asyncio.Queue(WAITING)
        self._gathering = asyncio.Lock()
        self._gathered_s = -GATHER_S
        self._joined: set[StreamPart] = set()
        self.refused_parts = 0

    @property
    def joined(self) -> int:
        return len(self._joined)

    async def run(self) -> None:
        """Until the bus ends; what it has handed over by then is stored."""
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(WORKERS)]
            async for batch in self._bus.batches():
                await self._waiting.put(batch)
            await self._waiting.join()
            for worker in workers:
                worker.cancel()

    async def follow_registry(self) -> None:
        """Join what is registered now and leave what is no longer. Raises nothing: the next call tries again."""
        parts = self._chain.parts()
        if not parts:
            return
        refused = max(0, len(parts) - self._max_parts)
        if refused != self.refused_parts:
            self.refused_parts = refused
            log.error("parts.refused", registered=len(parts), limit=self._max_parts, refused=refused)
        wanted = set(parts[: self._max_parts])
        try:
            new = sorted(wanted - self._joined)
            for at in range(0, len(new), JOINED_AT_ONCE):
                some = new[at : at + JOINED_AT_ONCE]
                await self._bus.join(some)
                self._joined |= set(some)
            if gone := sorted(self._joined - wanted):
                await self._bus.leave(gone)
                self._joined -= set(gone)
        except ValidatorError as error:
            log.warning("bus.not_joined", reason=str(error))

    async def _work(self) -> None:
        while True:
            async with self._gathering:
                batches = await self._gather()
            delivered = [message for batch in batches for message in batch]
            try:
                left = await asyncio.to_thread(self._judge, delivered)
                while left and self._patient:
                    await asyncio.sleep(AGAIN_S)
                    left = await asyncio.to_thread(self._judge, left, paced=False)
            except Exception:  # one batch is lost, and repair brings it back; the next is not
                log.exception("ingest.failed", messages=len(delivered))
            finally:
                for _ in batches:
                    self._waiting.task_done()

    async def _gather(self) -> list[Sequence[Delivered]]:
        batches = [await self._waiting.get()]
        size = len(batches[0])
        clock = asyncio.get_running_loop().time
        rest_s = self._gathered_s + GATHER_S - clock()
        if rest_s > 0 and size < GATHERED:
            await asyncio.sleep(rest_s)
        while size < GATHERED and not self._waiting.empty():
            batches.append(self._waiting.get_nowait())
            size += len(batches[-1])
        self._gathered_s = clock()
        return batches

    def _judge(self, delivered: Sequence[Delivered], *, paced: bool = True) -> list[Delivered]:
        """What was good, and the store did not take."""
        judged = self._admission.admit([(message.part, message.data) for message in delivered], PROTOBUF, paced=paced)
        if self._on_judged is not None:
            self._on_judged(delivered, judged)
        return [message for message, answer in zip(delivered, judged, strict=True) if answer.why is Refusal.DISK]
