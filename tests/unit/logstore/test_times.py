"""Times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.times import MAX_MS, format_time, parse_time
from validator.protocol.errors import ConfigError

NOON = 1_796_040_000_000
"""2026-11-30T12:00:00Z."""


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-30T12:00", NOON),
        ("2026-11-30 12:00:00.250", NOON + 250),
        ("2026-11-30T12:00Z", NOON),
        ("2026-11-30T13:00+01:00", NOON),
        ("2026-11-30", NOON - 12 * 3_600_000),
        ("20261130", NOON - 12 * 3_600_000),
        (str(NOON), NOON),
        ("now", 7_000_000_000),
        ("-90s", 7_000_000_000 - 90_000),
        ("-1h30m", 7_000_000_000 - 5_400_000),
        ("-2d", 7_000_000_000 - 172_800_000),
        ("-1w", 7_000_000_000 - 604_800_000),
        ("-250ms", 7_000_000_000 - 250),
    ],
)
def test_a_time_is_read_in_every_form_that_people_write(text: str, ms: int) -> None:
    assert parse_time(text, 7_000_000_000) == ms


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-1", "1h", "-1y", "2026-13-01", "12:00", "-999999999w", "9" * 15, "-"]
)
def test_what_is_no_time_is_refused_with_the_option_that_held_it(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_time(text, NOON, "--from")
    assert error.value.field == "--from"
    assert str(error.value).startswith("--from: ")


@given(st.integers(0, MAX_MS - 1))
def test_a_time_that_was_written_is_read_as_the_same(ms: int) -> None:
    assert parse_time(format_time(ms), 0) == ms
