"""Which process of a broker does what only one may: sums and repair, heartbeats, the retention, comparing with bundles.

Where several machines share a database, whoever may lead asks for the lock every second; the others wait. A new holder
pauses before it begins, so that one that has just lost the lock, and asks every second too, has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from validator.broker.core import Broker
from validator.broker.neighbours import Neighbours
from validator.log import get_logger
from validator.ports.broker_state import Lead

log = get_logger(__name__)

LOOK_S = 1.0
HANDOVER_S = 3.0


class Leading:
    """Belongs to one event loop."""

    def __init__(self, lead: Lead, broker: Broker, neighbours: Neighbours) -> None:
        self._lead = lead
        self._broker = broker
        self._neighbours = neighbours
        self.is_here = False

    async def run(self, loops: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Wait for the lock, run these while it is held, and return when it is lost."""
        while not await asyncio.to_thread(self._lead.acquire):
            await asyncio.sleep(LOOK_S)
        try:
            if self._lead.is_shared:
                await asyncio.sleep(HANDOVER_S)
                await asyncio.to_thread(self._neighbours.sums.settle_from_now, True)
                self._broker.begin_chain()
                log.info("lead.taken")
            self.is_here = True
            await self._run_while_held(loops)
        finally:
            self.is_here = False
            if self._lead.is_shared:
                await asyncio.to_thread(self._neighbours.sums.settle_from_now, False)
                await asyncio.to_thread(self._lead.release)

    async def _run_while_held(self, loops: Sequence[Callable[[], Awaitable[None]]]) -> None:
        tasks = [asyncio.ensure_future(loop()) for loop in loops]
        try:
            while await asyncio.to_thread(self._lead.holds):
                await asyncio.sleep(LOOK_S)
            log.warning("lead.lost")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
