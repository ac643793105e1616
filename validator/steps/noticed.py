"""What this process has noticed, and how far it has looked: gone at a restart, and nothing rests on it."""

from __future__ import annotations

import threading
from collections import OrderedDict

from validator.ports.clock import Clock
from validator.protocol.model import Root

REMEMBERED = 4_096


class Noticed:
    """Since when something is so, and when it was done last. Beyond ``REMEMBERED`` the oldest is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until_ms: OrderedDict[str, int] = OrderedDict()
        self._firsts: OrderedDict[str, int] = OrderedDict()
        self.all_files = False
        """Whether all files of sets were glanced at, and up to which if not."""
        self.files_upto: Root | None = None
        self.cut_points_below_s: int | None = None
        """Below which time comparing stored cut points with the chain goes on."""

    def once_per(self, pause_ms: int, what: str) -> bool:
        """Whether to do it now; then not again for the pause."""
        now_ms = self._clock.now_ms()
        with self._lock:
            if self._until_ms.get(what, 0) > now_ms:
                return False
            _keep(self._until_ms, what, now_ms + pause_ms)
            return True

    def lasts(self, patience_ms: int, what: str) -> bool:
        """Whether this has been so for that long, since this process first asked."""
        now_ms = self._clock.now_ms()
        with self._lock:
            if what not in self._until_ms:
                _keep(self._until_ms, what, now_ms + patience_ms)
            return now_ms >= self._until_ms[what]

    def first(self, what: str, value: int) -> int:
        """The value that came with the first call."""
        with self._lock:
            if what not in self._firsts:
                _keep(self._firsts, what, value)
            return self._firsts[what]


def _keep(noticed: OrderedDict[str, int], what: str, value: int) -> None:
    noticed[what] = value
    noticed.move_to_end(what)
    while len(noticed) > REMEMBERED:
        noticed.popitem(last=False)
