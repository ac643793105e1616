"""Buckets: a burst, then a rate, for each on its own."""

from __future__ import annotations

import pytest

from validator import buckets
from validator.buckets import Buckets


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_after_its_burst_each_gets_what_has_flowed_in_meanwhile() -> None:
    clock = Clock()
    some = Buckets(2, 3, clock)
    assert [some.acquire("a") for _ in range(4)] == [True, True, True, False]
    assert some.acquire("b")
    clock.now_s += 0.5
    assert [some.acquire("a"), some.acquire("a")] == [True, False]
    clock.now_s += 60
    assert [some.acquire("a") for _ in range(4)] == [True, True, True, False]


def test_an_amount_is_acquired_whole_or_not_at_all() -> None:
    some = Buckets(1, 10, Clock())
    assert some.acquire("a", 7)
    assert not some.acquire("a", 4)
    assert some.acquire("a", 3)


def test_a_share_is_so_many_times_as_large_and_fast() -> None:
    clock = Clock()
    some = Buckets(1, 2, clock)
    assert [some.acquire("a", share=3) for _ in range(7)] == [True] * 6 + [False]
    clock.now_s += 1
    assert [some.acquire("a", share=3) for _ in range(4)] == [True] * 3 + [False]


def test_what_is_given_back_can_be_acquired_again() -> None:
    some = Buckets(0, 1, Clock())
    some.give_back("a")
    assert some.acquire("a")
    some.give_back("a")
    assert [some.acquire("a"), some.acquire("a")] == [True, False]


def test_a_clock_that_is_set_back_fills_and_empties_nothing() -> None:
    clock = Clock()
    some = Buckets(1, 2, clock)
    assert some.acquire("a")
    clock.now_s -= 50
    assert [some.acquire("a"), some.acquire("a")] == [True, False]


def test_only_those_that_were_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "REMEMBERED", 2)
    some = Buckets(0, 1, Clock())
    assert [some.acquire(who) for who in "abacb"] == [True, True, False, True, True]
