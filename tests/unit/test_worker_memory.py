"""What the C library keeps for the threads of a worker."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests import paths

ALLOCATE = """
import ctypes, sys, threading

if sys.argv[1] == "shared":
    import tasks.worker, pyarrow  # a library that starts threads
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


FREE = """
import ctypes, sys
from pathlib import Path
from tasks.worker import give_back_memory

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p

def allocate():
    place = library.malloc(4_000)
    ctypes.memset(place, 1, 4_000)
    return place

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def give_back():
    before = resident()
    give_back_memory()
    print(before - resident())

for _ in range(2):  # the second time is too soon
    held = [allocate() for _ in range(10_000)]
    last = allocate()
    for place in held:
        library.free(ctypes.c_void_p(place))
    give_back()
"""


def test_a_worker_gives_back_what_lies_before_something_that_is_kept_and_not_all_the_time() -> None:
    done = subprocess.run([sys.executable, "-c", FREE], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert first > 30 << 20
    assert second < 1 << 20


def test_arrow_takes_its_memory_from_the_c_library_in_a_worker() -> None:
    ask = "import tasks.worker, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    kept = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run([sys.executable, "-c", ask], cwd=paths.ROOT, env=kept, capture_output=True, check=True)
    assert done.stdout == b"system\n"


SEAL = """
import sys
from tests.builders import a_record
from validator.protocol.codec.bundle_columns import make_table

assert make_table([(False, a_record()), (True, a_record(content=b"none"))]).num_rows == 2
print("pandas" in sys.modules)
"""


def test_who_seals_does_not_import_pandas_though_it_is_here() -> None:
    assert importlib.util.find_spec("pandas")
    done = subprocess.run([sys.executable, "-c", SEAL], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
