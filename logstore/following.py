"""A stream's messages as they come, without an end of their own: the newest of it asked for again and again.

Each look is a query of its own, checked as any other, and handed out once it is whole: one that breaks off is taken
again without loss or duplicate. A look ends a little before the present, so that what is still on
its way is not passed over; what reaches brokers later than that is in no look, and found by a query of the past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from logstore.connection import now_ms
from logstore.times import parse_time
from validator.protocol.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logstore.store import LogStore
    from validator.protocol.model import Message

LOOK_S = 1.0
SETTLE_MS = 2_000
"""So far behind the present a look ends."""
TRIES = 60
"""Looks in a row at which no broker answers."""


def follow(
    store: LogStore,
    stream: str,
    start: str | int,
    *,
    partition: int,
    verify: str,
    brokers: Sequence[str],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], int] = now_ms,
) -> Iterator[Message]:
    """Raises as ``QueryAnswer.batches``; TransientError only once no broker has answered for a while."""
    from_ms = parse_time(str(start), clock(), "start")
    failures = 0
    while True:
        until_ms = clock() - SETTLE_MS
        if until_ms > from_ms:
            try:
                with store.query(
                    stream, from_ms, until_ms, partition=partition, verify=verify, brokers=brokers
                ) as answer:
                    messages = list(answer)
            except TransientError:
                failures += 1
                if failures >= TRIES:
                    raise
            else:
                from_ms, failures = until_ms, 0
                yield from messages
        pause(LOOK_S)
