"""Looks at a stream without an end: how far each reaches, and what is waited for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from logstore.following import FIRST_REACH_MS, LOOK_S, MANY, SETTLE_MS, TRIES, pace, repeat
from validator.protocol.errors import TransientError

DAY_MS = 86_400_000
Look = Callable[[int, int], list[Any]]


class Asked:
    """Spans that were looked at, with so many messages a minute in each."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.spans: list[tuple[int, int]] = []

    def __call__(self, from_ms: int, until_ms: int) -> list[Any]:
        self.spans.append((from_ms, until_ms))
        return [None] * (self.per_minute * (until_ms - from_ms) // 60_000)


def looks(look: Look, from_ms: int = 0, now_ms: int = DAY_MS + SETTLE_MS) -> Any:
    return repeat(look, lambda: None, from_ms, lambda: now_ms)


def test_a_busy_past_comes_in_pieces_that_memory_holds_without_a_gap() -> None:
    asked = Asked(per_minute=3 * MANY // 2)
    counts = [len(rows) for rows in islice(looks(asked), 200)]
    assert asked.spans[0] == (0, FIRST_REACH_MS)
    assert max(counts[1:]) <= MANY
    assert all(before[1] == after[0] for before, after in zip(asked.spans, asked.spans[1:], strict=False))


def test_a_quiet_past_is_passed_in_few_looks_and_without_a_wait() -> None:
    asked = Asked(per_minute=0)
    assert next(looks(asked)) == []
    assert asked.spans[-1][1] == DAY_MS
    assert len(asked.spans) < 15


def test_only_a_look_that_finds_nothing_waits_in_full() -> None:
    found: list[list[Any]] = [[None], [], [None]]
    times = iter([0.0, 0.4 * LOOK_S, 1.0, 2.0, 2.0, 2.0 + 3 * LOOK_S, 9.0])
    waits: list[float] = []
    assert len(list(pace(iter(found), waits.append, times.__next__))) == 2
    assert waits == [pytest.approx(0.6 * LOOK_S), LOOK_S, 0.0]


def test_a_broker_that_starts_again_costs_neither_a_message_nor_the_follower() -> None:
    asked, failures, forgotten = Asked(per_minute=60), iter([True] * (TRIES - 1) + [False] * 3), []

    def look(from_ms: int, until_ms: int) -> list[Any]:
        if next(failures):
            raise TransientError("it starts again")
        return asked(from_ms, until_ms)

    following = repeat(look, lambda: forgotten.append(1), 0, lambda: DAY_MS)
    assert [len(rows) for rows in islice(following, TRIES)] == [0] * (TRIES - 1) + [60]
    assert asked.spans == [(0, FIRST_REACH_MS)]
    assert len(forgotten) == TRIES - 1
    failures = iter([True] * TRIES)
    with pytest.raises(TransientError):
        list(following)
