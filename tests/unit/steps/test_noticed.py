"""What a process has noticed: since when, how often, and no more than it can hold."""

from __future__ import annotations

from validator.steps.noticed import REMEMBERED, Noticed


class HandClock:
    """The port ``Clock``, moved by hand."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms


def test_a_thing_is_done_once_per_pause_each_for_itself() -> None:
    clock = HandClock()
    noticed = Noticed(clock)
    assert [noticed.once_per(100, "a"), noticed.once_per(100, "a"), noticed.once_per(100, "b")] == [True, False, True]
    clock.at_ms += 99
    assert not noticed.once_per(100, "a")
    clock.at_ms += 1
    assert noticed.once_per(100, "a")


def test_a_state_lasts_from_when_it_was_first_seen() -> None:
    clock = HandClock()
    noticed = Noticed(clock)
    assert not noticed.lasts(100, "stuck")
    clock.at_ms += 99
    assert not noticed.lasts(100, "stuck")
    clock.at_ms += 1
    assert noticed.lasts(100, "stuck")
    assert not noticed.lasts(100, "another")


def test_the_first_value_stays() -> None:
    noticed = Noticed(HandClock())
    assert [noticed.first("from", 5), noticed.first("from", 7), noticed.first("other", 7)] == [5, 5, 7]


def test_of_too_much_the_oldest_is_forgotten() -> None:
    noticed = Noticed(HandClock())
    for number in range(REMEMBERED + 1):
        noticed.first(f"from {number}", number)
        noticed.once_per(100, f"said {number}")
    assert noticed.first("from 1", 0) == 1
    assert noticed.first("from 0", 7) == 7
    assert not noticed.once_per(100, "said 1")
    assert noticed.once_per(100, "said 0")
