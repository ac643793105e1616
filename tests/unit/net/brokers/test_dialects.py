"""What is known of each broker: its dialect, and until when it wants to be left alone."""

from __future__ import annotations

from validator.net.brokers.dialects import (
    DIALECTS,
    MAX_BROKERS,
    REMEMBERED_S,
    SEARCH_AGAIN_S,
    Brokers,
    Dialect,
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


def test_each_broker_has_a_pace_of_its_own() -> None:
    brokers = Brokers(clock=Clock())
    brokers.pace_of(URL).refused("it said 429", 7.0)
    assert brokers.pace_of(URL).rest_s() >= 7.0
    assert brokers.pace_of(URL + "/other").rest_s() == 0.0
