"""How much of the machine pages may take, however many ask for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

REST = 4.0
"""For each second that a page has worked, no page begins for so many: all pages together take a fifth of one core."""
MAX_WAIT_S = 5.0
"""Whoever waits longer was let in by a mistake of the clock."""
T = TypeVar("T")


class Pace:
    """Thread-safe. Work counts by the time that its thread has run, not by how long a gateway let it wait."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._worked, self._sleep = clock, worked, sleep
        self._lock = threading.Lock()
        self._free_s = 0.0

    def run(self, work: Callable[[], T]) -> T:
        """Call, once those before have been rested from."""
        with self._lock:
            wait_s = self._free_s - self._clock()
        if wait_s > 0:
            self._sleep(min(wait_s, MAX_WAIT_S))
        begun_s = self._worked()
        try:
            return work()
        finally:
            rest_s = REST * (self._worked() - begun_s)
            with self._lock:
                self._free_s = max(self._free_s, self._clock()) + rest_s
