"""When a source may be asked again, and what an answer says about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from validator.net.http.pacing import LONGEST_ASKED_S, LONGEST_REST_S, STREAK, Allowance, Pace, retry_after_s


class Watch:
    """A monotonic clock that moves only when told."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


def a_pace(watch: Watch, chance: float = 1.0) -> Pace:
    return Pace(now=watch, chance=lambda: chance)


def test_a_source_that_never_refused_never_rests() -> None:
    pace = a_pace(Watch())
    pace.answered()
    assert pace.rest_s() == 0


def test_refusals_in_a_row_double_the_rest_up_to_a_limit() -> None:
    watch = Watch()
    pace = a_pace(watch)
    rests = []
    for _ in range(8):
        pace.refused("HTTP 429")
        rests.append(pace.rest_s())
        watch.at += pace.rest_s()
    assert rests[:4] == [0.5, 1.0, 2.0, 4.0]
    assert rests[-1] == LONGEST_REST_S
    pace.answered()
    pace.refused("HTTP 429")
    assert pace.rest_s() == 0.5


def test_questions_that_were_under_way_when_the_rest_began_do_not_double_it() -> None:
    pace = a_pace(Watch())
    for _ in range(16):
        pace.refused("HTTP 429")
    assert pace.rest_s() == 0.5


def test_an_answer_to_an_older_question_does_not_end_a_rest() -> None:
    pace = a_pace(Watch())
    pace.refused("HTTP 429", 5.0)
    pace.answered()
    assert pace.rest_s() >= 5


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_what_a_source_asks_for_is_the_least_that_it_gets(chance: float) -> None:
    pace = a_pace(Watch(), chance)
    pace.refused("HTTP 429", 7.0)
    assert 7.0 <= pace.rest_s() <= 7.5


def test_a_source_that_asks_for_an_hour_is_looked_at_once_a_minute() -> None:
    pace = a_pace(Watch(), 0.0)
    pace.refused("HTTP 429", 3_600.0)
    assert pace.rest_s() == LONGEST_ASKED_S


def test_those_that_were_refused_together_do_not_come_back_together() -> None:
    watch = Watch()
    paces = [Pace(now=watch) for _ in range(20)]
    for pace in paces:
        pace.refused("HTTP 429", 2.0)
    assert len({pace.rest_s() for pace in paces}) > 10


NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": ""}, 0),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "1e9"}, 0),
        ({"retry-after": "9" * 400}, 0),
        ({"retry-after": "٣"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Wed, 99 Mar 2026 05:06:07 GMT"}, 0),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=9), usegmt=True), "date": format_datetime(NOW)}, 9),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=9), usegmt=True), "date": format_datetime(NOW)}, 0),
        ({"retry-after": "Wednesday, 04-Mar-26 05:06:27 GMT", "date": format_datetime(NOW)}, 20),
        ({"retry-after": "Wed Mar  4 05:06:27 2026", "date": format_datetime(NOW)}, 20),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_without_the_answers_own_counts_from_our_clock() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert 30 < retry_after_s({"retry-after": later}) <= 40


def test_a_refused_wall_is_tried_again_after_a_while() -> None:
    watch = Watch()
    allowance = Allowance(50, forget_s=600, now=watch)
    allowance.refused(50)
    for _ in range(100):
        allowance.taken(allowance.size)
    assert allowance.size == 49
    watch.at += 601
    for _ in range(STREAK):
        allowance.taken(allowance.size)
    assert allowance.size == 50
