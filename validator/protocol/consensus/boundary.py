"""Where a bundle ends: a function of agreed windows alone, equal at all validators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from validator.protocol.parameters import ParameterSet


@dataclass(frozen=True, slots=True)
class AgreedWindow:
    """An agreed window: its times and the canonical bytes in its entries."""

    start_ms: int
    end_ms: int
    canonical_bytes: int


def bundle_length(agreed: Sequence[AgreedWindow], epoch_end_ms: int, parameters: ParameterSet) -> int | None:
    """How many of the consecutive windows after the last bundle make the next one; None while that is open.

    At most ``bundle_windows``, canonical bytes at most ``bundle_bytes`` but at least one window; closed at the count,
    at the epoch's end, or when the next agreed window would exceed the bytes.
    """
    total = 0
    for index, window in enumerate(agreed):
        if index and total + window.canonical_bytes > parameters.bundle_bytes:
            return index
        total += window.canonical_bytes
        if index + 1 == parameters.bundle_windows or window.end_ms >= epoch_end_ms:
            return index + 1
    return None
