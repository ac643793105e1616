"""What must live, lives: loops that survive what they call, and processes that begin anew where they cannot go on.

The rule: a loop that must live goes on after any exception, says so, and is watched. An installation without a
supervisor recovers all the same: a process that is past mending replaces itself (same process id, same command line,
nothing of the old state), after a pause that grows while it keeps failing. Whatever it was doing is found again from
the database. Waiting is measured by a clock that nobody can set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from validator.log import get_logger

log = get_logger(__name__)

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Before the first, second, … try in a row; the last one stands for all that follow."""
SETTLED_S = 60.0
"""Whoever has lived so long has recovered: the next failure is a first one."""
ATTEMPT = "LOGSTORE_BEGUN_ANEW"
"""How often in a row this process has replaced itself; handed down in the environment."""

_started_s = time.monotonic()


def pause_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return PAUSES_S[min(max(failures, 1), len(PAUSES_S)) - 1]


class LastingThread:
    """A thread that calls ``body(beat)`` for ever, from its end to its beginning, until ``stop``.

    ``body`` calls ``beat()`` whenever it has done its work once, and may return or raise: it is called again, after
    ``every_s`` or, where it raised, after a pause. ``Watchdog`` reads how long ago the last beat was.
    """

    def __init__(self, name: str, body: Callable[[Callable[[], None]], None], *, every_s: float) -> None:
        self.name = name
        self._body = body
        self._every_s = every_s
        self._stop = threading.Event()
        self._beaten_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._beaten_s = time.monotonic()
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the call under way; waits so long for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def beat(self) -> None:
        self._beaten_s = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last beat; 0 once it is told to stop."""
        return 0.0 if self.stopping else time.monotonic() - self._beaten_s

    def _run(self) -> None:
        failures = 0
        while not self._stop.wait(pause_s(failures) if failures else self._every_s):
            begun_s = time.monotonic()
            try:
                self._body(self.beat)
                failures = 0
            except Exception:
                failures = 1 if time.monotonic() - begun_s > SETTLED_S else failures + 1
                log.exception("loop.failed", loop=self.name, failures=failures)


class Watchdog:
    """Looks every few seconds whether lasting threads still beat; one that hangs for ``limit_s`` ends the process.

    ``on_silence`` is told the thread's name; by default the process begins anew.
    """

    def __init__(
        self,
        threads: Sequence[LastingThread],
        *,
        limit_s: float,
        look_s: float = 5.0,
        on_silence: Callable[[str], None] | None = None,
    ) -> None:
        self._threads = tuple(threads)
        self._limit_s = limit_s
        self._on_silence = on_silence or begin_anew
        self._watcher = LastingThread("watchdog", self._look, every_s=look_s)

    def start(self) -> None:
        self._watcher.start()

    def stop(self) -> None:
        self._watcher.stop()

    def _look(self, beat: Callable[[], None]) -> None:
        beat()
        for thread in self._threads:
            silent_s = thread.silent_s()
            if silent_s > self._limit_s:
                log.error("loop.silent", loop=thread.name, silent_s=round(silent_s))
                self._on_silence(thread.name)


def begin_anew(reason: str) -> NoReturn:
    """Replace this process by a fresh one of the same command line, after a pause. Children are the caller's to end."""
    failures = _failures_so_far() + 1
    wait_s = pause_s(failures)
    log.error("process.begins_anew", reason=reason, failures=failures, wait_s=wait_s)
    time.sleep(wait_s)
    os.environ[ATTEMPT] = str(failures)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (our own command line)


def _failures_so_far() -> int:
    if time.monotonic() - _started_s > SETTLED_S:
        return 0
    text = os.environ.get(ATTEMPT, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
