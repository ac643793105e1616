"""What the C library keeps for the threads of a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import paths

ALLOCATE = """
import ctypes, sys, threading
from tasks.worker import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
barrier = threading.Barrier(4)
def hold():
    held = [bytearray(5_000) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.parametrize(("start", "is_alone"), [("shared", True), ("as it comes", False)])
def test_threads_of_a_worker_share_one_arena(start: str, is_alone: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE, start], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert "Arena 0" in done.stderr
    assert ("Arena 1" not in done.stderr) is is_alone
