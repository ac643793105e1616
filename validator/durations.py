"""Spans of time as people say them."""

from __future__ import annotations

import itertools

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def show_span(ms: int) -> str:
    """The two largest units of a span, rounded down: "3 h 12 min", "42 s", "2 d 0 h"; "0 s" for none."""
    seconds = max(0, ms) // 1000
    for (size, unit), (smaller, small_unit) in itertools.pairwise(_UNITS):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller} {small_unit}"
    return f"{seconds} s"
