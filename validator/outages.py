"""What we depend on goes away and comes back: one WARNING and one INFO, however often it is tried in between.

The rule for database, Redis, chain and peers, in every process that needs them. What fails for a moment and is not away
(a locked row, a statement that took too long) is none of this.
"""

from __future__ import annotations

import threading
import time

from validator.durations import show_span
from validator.log import get_logger

log = get_logger(__name__)


class Outage:
    """One thing outside. It is away from its first failure until each way of using it that failed has worked again.

    A process says so for itself: ``<what>.away`` with the cause, and ``<what>.back`` with how long it lasted.
    """

    def __init__(self, what: str, **fields: object) -> None:
        """``fields``: which of several, for the log."""
        self._what = what
        self._fields = fields
        self._lock = threading.Lock()
        self._failed_s: dict[str, float] = {}
        self._since_s: float | None = None

    @property
    def is_away(self) -> bool:
        return self._since_s is not None

    def failed(self, reason: str, way: str = "") -> None:
        """It did not answer, or refused what it must not refuse."""
        with self._lock:
            self._failed_s[way] = time.monotonic()
            if self._since_s is not None:
                return
            self._since_s = self._failed_s[way]
        log.warning(f"{self._what}.away", **self._fields, reason=" ".join(reason.split()))

    def worked(self, way: str = "", begun_s: float | None = None) -> None:
        """It did what was asked. ``begun_s``: when that began (``time.monotonic``), for what may overlap a failure."""
        if self._since_s is None:
            return
        with self._lock:
            if self._since_s is None or (begun_s is not None and begun_s < self._failed_s.get(way, begun_s)):
                return
            self._failed_s.pop(way, None)
            if self._failed_s:
                return
            lasted_ms = round(1000 * (time.monotonic() - self._since_s))
            self._since_s = None
        log.info(f"{self._what}.back", **self._fields, lasted=show_span(lasted_ms))
