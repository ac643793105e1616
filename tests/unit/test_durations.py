"""Spans of time in two units."""

from __future__ import annotations

import pytest

from validator.durations import show_span


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5, "0 s"),
        (999, "0 s"),
        (42_999, "42 s"),
        (60_000, "1 min 0 s"),
        (11_520_000, "3 h 12 min"),
        (86_400_000 + 7_200_000, "1 d 2 h"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(ms: int, shown: str) -> None:
    assert show_span(ms) == shown
