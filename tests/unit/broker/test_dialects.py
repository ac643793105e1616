"""What is known of each broker: its dialect, and until when it wants to be left alone."""

from __future__ import annotations

from random import Random

import pytest

from validator.broker.dialects import (
    DIALECTS,
    MAX_BROKERS,
    MAX_NAMED_PAUSE_S,
    MAX_PAUSE_S,
    REMEMBERED_S,
    SEARCH_AGAIN_S,
    Brokers,
    Dialect,
    read_retry_after,
)

URL = "https://broker.example"
OLD = Dialect("streams", True)


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_of_a_stranger_all_dialects_are_tried_the_newest_first() -> None:
    assert Brokers(clock=Clock()).dialects_of(URL) == (DIALECTS, False)


def test_what_a_broker_understood_comes_first_for_an_hour_and_the_others_behind_it() -> None:
    clock = Clock()
    brokers = Brokers(clock=clock)
    brokers.understood(URL, OLD)
    clock.now_s += REMEMBERED_S - 1
    brokers.understood(URL, OLD)  # believing it longer for having been right would be believing it for ever
    dialects, understood = brokers.dialects_of(URL)
    assert understood
    assert dialects[0] == OLD
    assert set(dialects) == set(DIALECTS)
    clock.now_s += 1
    assert brokers.dialects_of(URL) == (DIALECTS, False)


def test_a_broker_that_refused_all_is_asked_in_one_for_a_minute() -> None:
    clock = Clock()
    brokers = Brokers(clock=clock)
    brokers.refused(URL, OLD)
    assert brokers.dialects_of(URL) == ((OLD,), False)
    clock.now_s += SEARCH_AGAIN_S
    assert brokers.dialects_of(URL) == (DIALECTS, False)


def test_what_one_broker_understands_says_nothing_of_another_and_strangers_take_bounded_room() -> None:
    brokers = Brokers(clock=Clock())
    brokers.understood(URL, OLD)
    for number in range(MAX_BROKERS):
        brokers.understood(f"{URL}/{number}", DIALECTS[0])
    assert brokers.dialects_of(URL) == (DIALECTS, False)


def test_pauses_grow_differ_and_are_bounded() -> None:
    clock = Clock()
    pauses: list[list[float]] = []
    for seed in range(20):
        brokers = Brokers(clock=clock, chance=Random(seed))
        row = []
        for _ in range(12):
            brokers.throttled(URL, None)
            row.append(brokers.quiet_until_s(URL) - clock.now_s)
            clock.now_s += 1000
        pauses.append(row)
    assert len({row[0] for row in pauses}) == len(pauses)
    assert all(row[0] <= 1.0 < row[4] for row in pauses)
    assert all(max(row) <= MAX_PAUSE_S for row in pauses)


def test_a_pause_that_the_broker_names_is_kept_and_bounded() -> None:
    clock = Clock()
    brokers = Brokers(clock=clock)
    brokers.throttled(URL, 7.0)
    assert 7.0 <= brokers.quiet_until_s(URL) - clock.now_s <= 7.5
    brokers.throttled(URL, 1.0)  # a shorter one does not cut the longer one short
    assert brokers.quiet_until_s(URL) - clock.now_s >= 7.0
    brokers.throttled(URL, 1e17)
    assert brokers.quiet_until_s(URL) - clock.now_s <= MAX_NAMED_PAUSE_S + 0.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 +0000", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("9" * 400, 1e18),
    ],
)
def test_a_retry_after_names_seconds_or_a_date(text: str, seconds: float) -> None:
    assert read_retry_after(text, now_s=1445412480.0) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "\u0661", "Wed, 99 Oct 2015 07:28:30 GMT", "x" * 10_000])
def test_any_other_text_names_nothing(text: str) -> None:
    assert read_retry_after(text) is None
