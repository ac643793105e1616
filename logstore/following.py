"""A stream's messages as they come, without an end of their own: the newest of it asked for again and again.

Each look is a query of its own, checked as any other, and handed out once it is whole: one that breaks off is taken
again without loss or duplicate. So that a start long ago neither fills memory nor keeps anybody waiting, a look reaches
only as far as its messages are not too many, and those behind the present follow each other at once. A look ends a
little before the present, so that what is still on its way is not passed over; what reaches brokers later than that is
in no look, and found by a query of the past.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from logstore.answers import find_brokers, make_request, open_answer, parse_verify_level
from logstore.connection import now_ms
from logstore.times import parse_time
from validator.protocol.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logstore.answer_check import Row
    from logstore.brokers import Brokers
    from logstore.paying import Payer
    from logstore.store import LogStore
    from validator.protocol.codec.secp256k1 import Signer

LOOK_S = 1.0
SETTLE_MS = 2_000
"""So far behind the present a look ends."""
FIRST_REACH_MS, LEAST_REACH_MS = 60_000, 1_000
MANY = 20_000
"""Messages of one look: where there are more the next reaches half as far, where there are few, twice."""
LOOKS = 60
"""So many by the same list of brokers, which the chain keeps."""
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

    asked = _Asked(lambda: find_brokers(store, brokers, key))

    def look(from_ms: int, until_ms: int) -> list[Row]:
        request = make_request(stream, partition, from_ms, until_ms)
        answer = open_answer(store, request, level, (asked.find(), lambda: None), payer=payer)
        return [row for batch in answer.batches() for row in batch]

    return repeat(look, asked.close, from_ms, clock)


class _Asked:
    """The brokers, with their connections: found anew once in a while, and where none of them has answered."""

    def __init__(self, find: Callable[[], tuple[Brokers, Callable[[], None]]]) -> None:
        self._find = find
        self._found: tuple[Brokers, Callable[[], None]] | None = None
        self._looks = 0

    def find(self) -> Brokers:
        if self._looks >= LOOKS:
            self.close()
        if self._found is None:
            self._found, self._looks = self._find(), 0
        self._looks += 1
        return self._found[0]

    def close(self) -> None:
        if self._found is not None:
            self._found[1]()
            self._found = None


def repeat(
    look: Callable[[int, int], list[Row]], forget: Callable[[], None], from_ms: int, clock: Callable[[], int]
) -> Iterator[list[Row]]:
    """What looks from ``from_ms`` on find, each behind the one before; one that finds nothing of the past is followed
    by the next at once. ``forget``: brokers that have not answered. Raises Unreachable after ``TRIES`` in a row.
    """
    failures, reach_ms = 0, FIRST_REACH_MS
    try:
        while True:
            rows: list[Row] = []
            present_ms = clock() - SETTLE_MS
            until_ms = min(present_ms, from_ms + reach_ms)
            if until_ms > from_ms:
                try:
                    rows = look(from_ms, until_ms)
                except TransientError:
                    forget()
                    failures += 1
                    if failures >= TRIES:
                        raise
                else:
                    from_ms, failures = until_ms, 0
                    reach_ms = _next_reach(reach_ms, len(rows), is_past=until_ms < present_ms)
                    if not rows and until_ms < present_ms:
                        continue
            yield rows
    finally:
        forget()


def _next_reach(reach_ms: int, count: int, *, is_past: bool) -> int:
    if count > MANY:
        return max(reach_ms // 2, LEAST_REACH_MS)
    return 2 * reach_ms if is_past and count < MANY // 4 else reach_ms


def rest_s(rows: list[Row], began_s: float, now_s: float) -> float:
    """How long to wait before the next look: there is no hurry where this one has found nothing."""
    return max(0.0, began_s + LOOK_S - now_s) if rows else LOOK_S


def pace(
    looks: Iterator[list[Row]],
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Row]]:
    """Those that have found something, one after the other."""
    began_s = clock()
    for rows in looks:
        if rows:
            yield rows
        pause(rest_s(rows, began_s, clock()))
        began_s = clock()
