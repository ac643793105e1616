"""The validator's command line under a clock that can be put wrong: ``--chaos clock``.

``python -m validator.devnet.stepped_clock FILE WORD…`` runs ``logstore-validator WORD…``. By how many seconds its clock
is off stands in FILE, read at most every tenth of a second; an empty or missing file means not at all. Only what Python
code asks for as ``time.time`` is put wrong, which is all that this project asks; the monotonic clock goes on as it is,
as it does where somebody sets a machine's clock.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_S = 0.1
NS = 1_000_000_000


class SteppedClock:
    """A clock that is as wrong as a file says."""

    def __init__(self, path: Path, true_ns: Callable[[], int], steady_s: Callable[[], float]) -> None:
        self._path = path
        self._true_ns = true_ns
        self._steady_s = steady_s
        self._looked_s: float | None = None
        self._off_ns = 0

    def time_ns(self) -> int:
        now_s = self._steady_s()
        if self._looked_s is None or now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._off_ns = self._read()
        return self._true_ns() + self._off_ns

    def time(self) -> float:
        return self.time_ns() / NS

    def _read(self) -> int:
        try:
            return round(float(self._path.read_text() or "0") * NS)
        except FileNotFoundError:
            return 0


def main() -> None:
    """Runs until the command ends, and exits as it does."""
    clock = SteppedClock(Path(sys.argv.pop(1)), time.time_ns, time.monotonic)
    time.time_ns, time.time = clock.time_ns, clock.time
    runpy.run_module("validator.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
