"""How much is taken of each source: a bucket of tokens per key, so that one floods nobody but itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Rates:
    """``per_s`` tokens a second for each key, ``burst`` at once. The least recently used keys go when there are many.

    For one thread at a time. A key that is forgotten begins with a full bucket, which is what it had if it was idle.
    """

    def __init__(
        self, per_s: float, burst: float, *, limit: int = 100_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._limit = limit
        self._clock = clock
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def spend(self, key: Hashable, wanted: int) -> int:
        """Takes so many tokens, or as many as there are; how many."""
        now = self._clock()
        left, at = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        taken = min(wanted, int(left))
        while len(self._buckets) >= self._limit:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = (left - taken, now)
        return taken
