"""Bundle files are read in a process of their own: its verdict comes back, its troubles stay there."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.builders import some_records
from tests.bundle_builder import a_manifest, rows_of
from validator.net.sandbox import Sandbox
from validator.ports.storage import ReaderFailed
from validator.protocol.codec.bundle_columns import SCHEMA
from validator.protocol.codec.bundle_file import verify_bundle_file, write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY
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


def test_the_childs_verdict_is_that_of_a_reading_in_this_process(path: Path, manifest: Manifest) -> None:
    assert Sandbox(30, 512 << 20).verify(path, manifest) == verify_bundle_file(path)


def test_what_the_child_finds_wrong_is_named_here(path: Path, manifest: Manifest) -> None:
    with pytest.raises(MalformedInput, match=r"manifest\.header: not the one that is agreed"):
        Sandbox().verify(path, replace(manifest, header=replace(manifest.header, number=3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MalformedInput, match="bundle: cut short"):
        Sandbox().verify(path)


def write_huge_content(path: Path, size: int) -> None:
    """The file again with a first content of ``size`` zeros: a few kilobytes of zstd."""
    keys = pq.ParquetFile(path).metadata.metadata
    table = pq.read_table(path)
    contents = [bytes(size), *table.column("content_bytes").to_pylist()[1:]]
    at = SCHEMA.get_field_index("content_bytes")
    table = table.set_column(at, SCHEMA.field(at), pa.array(contents, type=pa.binary())).cast(SCHEMA)
    options = {"use_dictionary": False, "store_schema": False, "write_statistics": False}
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({MANIFEST_KEY: keys[MANIFEST_KEY]})


def varint(number: int) -> bytes:
    """A thrift compact integer: zigzag, seven bits a byte."""
    number <<= 1
    pieces = []
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])


def test_a_content_larger_than_the_outcomes_is_refused_by_the_footer(path: Path) -> None:
    write_huge_content(path, 1 << 20)
    with pytest.raises(MalformedInput, match="more bytes than the outcomes have"):
        Sandbox().verify(path)


def test_a_page_far_larger_than_its_footer_says_ends_in_the_child(path: Path) -> None:
    write_huge_content(path, 512 << 20)
    claimed = pq.ParquetFile(path).metadata.row_group(0).column(SCHEMA.get_field_index("content_bytes"))
    honest = varint(claimed.total_uncompressed_size)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert data[start:-8].count(honest) == 1
    footer = data[start:-8].replace(honest, varint(1_000))
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ReaderFailed, match="needs more memory than is allowed"):
        Sandbox(memory_bytes=128 << 20).verify(path)


def test_a_reading_that_outlasts_its_deadline_is_tried_again_later(path: Path) -> None:
    with pytest.raises(TransientError, match="not read within"):
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
