"""Bundle files are read in a process of their own: its verdict comes back, its troubles stay there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import GENESIS_MS, a_record, some_records
from tests.bundle_builder import a_manifest, rows_of
from tests.paths import ROOT
from validator.net.sandbox import Sandbox
from validator.ports.storage import ReaderFailed
from validator.protocol.codec.bundle_file import DEFAULT_LEVEL, verify_bundle_file, write_bundle
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import Manifest, Record


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return some_records(5)


@pytest.fixture(scope="module")
def manifest(records: list[Record]) -> Manifest:
    return a_manifest([records])


@pytest.fixture
def path(tmp_path: Path, records: list[Record], manifest: Manifest) -> Path:
    write_bundle(tmp_path / "bundle", manifest, rows_of(manifest, [records]))
    return tmp_path / "bundle"


@pytest.mark.parametrize("processes", [1, 3])
def test_the_childs_verdict_is_that_of_a_reading_in_this_process(
    path: Path, manifest: Manifest, processes: int
) -> None:
    assert Sandbox(30, 512 << 20, processes).verify(path, manifest) == verify_bundle_file(path)


def test_a_child_waits_for_no_library_that_it_does_not_use(path: Path) -> None:
    """pyarrow imports pandas for the first Python value that it is to convert: half a second, and 40 MiB."""
    code = "import sys; from validator.net.sandbox.program import main; main(sys.argv[1:]); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=ROOT)
    verdict, modules = done.stdout.splitlines()
    assert json.loads(verdict)["rows"] == 5
    assert "'pyarrow'" in modules
    assert "'pandas'" not in modules


def test_what_the_child_finds_wrong_is_named_here(path: Path, manifest: Manifest) -> None:
    with pytest.raises(MalformedInput, match=r"manifest\.header: not the one that is agreed"):
        Sandbox().verify(path, replace(manifest, header=replace(manifest.header, number=3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MalformedInput, match="bundle: cut short"):
        Sandbox().verify(path)


def test_a_reading_that_needs_more_memory_than_it_may_use_is_tried_again_later(tmp_path: Path) -> None:
    """More than a process has left over of what is mapped at its start."""
    records = [a_record(timestamp_ms=GENESIS_MS + i, content=b'"%b"' % (b"x" * 1_000_000)) for i in range(8)]
    manifest = a_manifest([records])
    write_bundle(tmp_path / "bundle", manifest, rows_of(manifest, [records]), DEFAULT_LEVEL)
    with pytest.raises(ReaderFailed, match="needs more memory than is allowed"):
        Sandbox(memory_bytes=1).verify(tmp_path / "bundle")


def test_a_reading_that_outlasts_its_deadline_is_tried_again_later(path: Path) -> None:
    with pytest.raises(TransientError, match="did not end within"):
        Sandbox(timeout_s=0.001).verify(path)


def kill_readers(path: Path) -> None:
    """SIGKILL to the child that waits for the file's first byte, as soon as it is there."""
    for _ in range(3_000):
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in children.read_text().split():
                if os.fsencode(path) in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
                    return
        threading.Event().wait(0.01)


def test_a_reader_that_was_killed_says_nothing_of_the_file(tmp_path: Path) -> None:
    """As the kernel does where memory is short. Nobody writes to the pipe, so the child is sure to be there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    killer = threading.Thread(target=kill_readers, args=(pipe,))
    killer.start()
    with pytest.raises(ReaderFailed, match="ended by signal 9"):
        Sandbox().verify(pipe)
    killer.join()


def test_a_file_that_cannot_be_read_is_not_wrong(tmp_path: Path) -> None:
    with pytest.raises(ReaderFailed, match=r"ended with status 3: .*No such file"):
        Sandbox().verify(tmp_path / "missing")
