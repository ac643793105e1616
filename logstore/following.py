"""A stream's messages as they come, without an end of their own: the newest of it asked for again and again.

Each look is a query of its own, checked as any other, and handed out once it is whole: one that breaks off is taken
again without loss or duplicate. A look ends a little before the present, so that what is still on
its way is not passed over; what reaches brokers later than that is in no look, and found by a query of the past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from logstore.answers import make_request, open_answer, parse_verify_level
from logstore.connection import now_ms
from logstore.times import parse_time
from validator.protocol.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logstore.answer_check import Row
    from logstore.paying import Payer
    from logstore.store import LogStore
    from validator.protocol.codec.secp256k1 import Signer

LOOK_S = 1.0
SETTLE_MS = 2_000
"""So far behind the present a look ends."""
TRIES = 60
"""Looks in a row at which no broker answers."""


def look_again(
    store: LogStore,
    stream: str,
    start: str | int,
    *,
    partition: int,
    verify: str,
    brokers: Sequence[str],
    key: Signer | None = None,
    payer: Payer | None = None,
    clock: Callable[[], int] = now_ms,
) -> Iterator[list[Row]]:
    """What each look has found, often nothing, without an end; whoever iterates waits in between. ``payer``: one budget
    for all looks.

    Raises:
        Usage: a time or level that is none; at once, the rest as an answer of ``query``.
        Unreachable: no broker has answered for a while.
    """
    from_ms, level = parse_time(str(start), clock(), "start"), parse_verify_level(verify)

    def look(from_ms: int, until_ms: int) -> list[Row]:
        request = make_request(stream, partition, from_ms, until_ms)
        with open_answer(store, request, level, brokers, key, payer=payer) as answer:
            return [row for batch in answer.batches() for row in batch]

    return _repeat(look, from_ms, clock)


def _repeat(look: Callable[[int, int], list[Row]], from_ms: int, clock: Callable[[], int]) -> Iterator[list[Row]]:
    failures = 0
    while True:
        rows: list[Row] = []
        until_ms = clock() - SETTLE_MS
        if until_ms > from_ms:
            try:
                rows = look(from_ms, until_ms)
            except TransientError:
                failures += 1
                if failures >= TRIES:
                    raise
            else:
                from_ms, failures = until_ms, 0
        yield rows


def pace(looks: Iterator[list[Row]], pause: Callable[[float], None] = time.sleep) -> Iterator[list[Row]]:
    """Those that have found something, one after the other."""
    for rows in looks:
        if rows:
            yield rows
        pause(LOOK_S)
