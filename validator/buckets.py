"""Token buckets: how much each of many may use, at a rate, after a burst."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 4096
"""Those that were used last; who was forgotten begins with a full bucket."""


class Buckets:
    """By sender or by address. Thread-safe. A clock that is set back fills nothing and empties nothing."""

    def __init__(self, rate_per_s: float, burst: int, now_s: Callable[[], float]) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._now_s = now_s
        self._levels: OrderedDict[object, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def acquire(self, who: object, amount: int = 1, share: int = 1) -> bool:
        """All of ``amount`` or nothing. ``share``: this bucket is so many times as large, and fills as much faster."""
        now = self._now_s()
        with self._lock:
            level, then = self._levels.pop(who, (float(self._burst * share), now))
            level = min(self._burst * share, level + max(0.0, now - then) * self._rate * share)
            enough = level >= amount
            self._levels[who] = (level - amount if enough else level, now)
            if len(self._levels) > REMEMBERED:
                self._levels.popitem(last=False)
        return enough

    def give_back(self, who: object) -> None:
        """One that was acquired for nothing."""
        with self._lock:
            if who in self._levels:
                level, then = self._levels[who]
                self._levels[who] = (level + 1, then)
