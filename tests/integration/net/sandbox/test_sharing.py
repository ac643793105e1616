"""Processes that share a file: they say that it holds, or one alone says what is wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.bundle_groups import write_groups, write_streams
from tests.paths import ROOT

VERIFY = """
import sys
from pathlib import Path
from validator.net.sandbox.sharing import verify_shared
from validator.protocol.codec.bundle_file import verify_bundle_file
from validator.protocol.errors import MalformedInput
for name in sys.argv[1:]:
    for verify in (lambda path: verify_shared(path, 3, 1), verify_bundle_file):
        try:
            print(verify(Path(name)).rows)
        except MalformedInput as error:
            print(error)
"""
AT_ONCE = """
import os, signal, sys
from validator.net.sandbox.sharing import all_end_well

def wait():
    sys.stdin.buffer.read(1)  # which never comes

def fail():
    raise MemoryError

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def tell():
    os.write(1, b"%d\\n" % os.getpid())
    wait()

def nothing():
    pass

"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_streams(folder / "sealed", (6, 9, 3, 6))
    write_groups(folder / "sound", pq.read_table(folder / "sealed"), folder / "sealed", 3)
    return folder / "sound"


def run(code: str, *arguments: Path) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        said = child.stdout.read()
    assert child.returncode == 0
    return said.splitlines()


def test_a_refusal_is_the_same_however_many_read(sound: Path, tmp_path: Path) -> None:
    table = pq.read_table(sound)
    write_groups(tmp_path / "swapped", table.take([*range(5), 6, 5, *range(7, 24)]), sound, 3)
    write_groups(tmp_path / "twice", table.take([*range(23), 22]), sound, 3)
    (tmp_path / "short").write_bytes(sound.read_bytes()[:-1])
    files = [sound, *(tmp_path / name for name in ("swapped", "twice", "short"))]
    said = run(VERIFY, *files)
    assert said[::2] == said[1::2]
    assert said[0] == "24"
    assert [text.partition(":")[0] for text in said[2::2]] == ["rows", "rows", "bundle"]


def test_one_that_fails_or_dies_ends_the_others() -> None:
    """Who waits would wait for ever."""
    works = ["[nothing] * 3", "[]", "[wait, fail]", "[wait, die, wait]", "[nothing, fail]"]
    code = AT_ONCE + "".join(f"print(all_end_well({works}))\n" for works in works)
    assert run(code) == ["True", "True", "False", "False", "False"]


def test_none_outlives_the_process_that_it_was_forked_from() -> None:
    """The pipe is at its end when nobody holds its other one."""
    command = [sys.executable, "-c", AT_ONCE + "all_end_well([tell, tell])"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        children = {int(child.stdout.readline()) for _ in range(2)}
        assert child.pid not in children
        os.kill(child.pid, signal.SIGKILL)
        assert child.stdout.read() == b""
