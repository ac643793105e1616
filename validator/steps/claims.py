"""Claims: of the threads of one process one works on a row at a time, and who comes meanwhile is not forgotten."""

from __future__ import annotations

import threading


class Claims:
    """Which keys a thread of this process works on. Between processes the database decides, never this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_again: dict[str, bool] = {}

    def acquire(self, key: str) -> bool:
        """Claim a key for this thread. False: another thread of this process has it and will look once more."""
        with self._lock:
            if key in self._asked_again:
                self._asked_again[key] = True
                return False
            self._asked_again[key] = False
            return True

    def release_or_rerun(self, key: str) -> bool:
        """Give a claimed key back. True: somebody asked for it meanwhile; it is still claimed, look once more."""
        with self._lock:
            if self._asked_again[key]:
                self._asked_again[key] = False
                return True
            del self._asked_again[key]
            return False

    def abandon(self, key: str) -> None:
        """Give a claimed key back, whatever was asked: after an error beat's lease brings its row again."""
        with self._lock:
            self._asked_again.pop(key, None)
