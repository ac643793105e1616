"""Files of liars: each is refused by the name of what is wrong, within the memory and the time that a child may use."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.builders import a_message, some_records
from tests.bundle_builder import a_manifest, certify, rows_of
from tests.hostile_bundle import KEYS, PAGE_UNCOMPRESSED, UNCOMPRESSED, Parts, inflate_page, replace_chunk, take_apart
from tests.thrift_compact import read_struct
from validator.protocol.codec.bundle_columns import SCHEMA, make_table
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY, pack_manifest
from validator.protocol.codec.manifest import encode_manifest
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import entries_root
from validator.protocol.model import EncryptionType, Manifest, MessageRef, Record

MEMORY_BYTES = 192 << 20
"""What a child may map beside interpreter and libraries; the smallest bomb would be 512 MiB."""
GROWTH_BYTES = 96 << 20
"""What a refusal may make resident beyond what a sound file does."""
LOOP_SECONDS = 200
NAMES_ONLY = {"footer (2, 0, 4)", "footer (6,)"}
"""The names of the row, and of the program that wrote it, which say nothing of what is in the file."""


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Two, with a value in every column."""
    full = a_message(
        timestamp_ms=some_records(1)[0].message.timestamp_ms,
        prev=MessageRef(5, 6),
        sequence_number=7,
        encryption_type=EncryptionType.AES,
        group_key_id="key-1",
        content=b"\xff",
    )
    return sorted([some_records(1)[0], make_record(full)], key=lambda record: record.order)


@pytest.fixture(scope="module")
def manifest(records: list[Record]) -> Manifest:
    return a_manifest([records])


@pytest.fixture(scope="module")
def sound(records: list[Record], manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "bundle"
    write_bundle(path, manifest, rows_of(manifest, [records]))
    return path.read_bytes()


# --- every place of a small file --------------------------------------------------------------------


@pytest.mark.timeout(LOOP_SECONDS + 40)
@pytest.mark.parametrize("kind", ["flips", "truncations", "footer lies", "added fields"])
def test_wherever_a_small_file_is_changed_it_is_refused_by_name_or_holds_the_same_records(
    kind: str, sound: bytes, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(sound)
    words = [sys.executable, "-m", "tests.hostile_reading", kind, str(tmp_path / "bundle")]
    done = subprocess.run(
        [*words, str(MEMORY_BYTES), str(LOOP_SECONDS)],
        capture_output=True,
        text=True,
        timeout=LOOP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["strange"] == []
    assert found["grown"] < GROWTH_BYTES
    assert all(field.strip(".") for field in found["refused"])
    same = found["same"]
    match kind:
        case "truncations":
            assert same == []
        case "footer lies":
            assert {label.partition(":")[0] for label in same} == NAMES_ONLY
        case "added fields":
            assert all("without field" in label for label in same), "what is not told is no lie"
        case "flips":
            places = [int(label.removeprefix("byte ")) for label in same]
            parts = take_apart(sound)
            names = sum(len(parts.footer.find(path)) for path in ((2, 0, 4), (6,)))
            assert sum(place >= len(parts.body) for place in places) <= names + 1, (
                "and an offset without a use, which is 0 or that of the first page"
            )
            assert len(places) < len(parts.body) / 4, "bits of frames and levels that mean nothing"


# --- bombs ------------------------------------------------------------------------------------------


MEASURED = """
import sys
from tests.hostile_reading import peak_bytes
from validator.net.sandbox import program
status = program.main(sys.argv[1:])
print(peak_bytes())
sys.exit(status)
"""


@dataclass(frozen=True)
class Read:
    """How a child ended: its status, what it said, the most of it that was resident."""

    status: int
    said: dict[str, Any]
    complaint: str
    resident: int


def read_in_child(path: Path) -> Read:
    words = [sys.executable, "-c", MEASURED, "--memory", str(MEMORY_BYTES), "--seconds", "60", str(path)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(words, capture_output=True, env=environment, text=True, timeout=120, check=False)
    *said, peak = done.stdout.splitlines()
    return Read(done.returncode, json.loads(said[0] if said else "{}"), done.stderr, int(peak))


@pytest.fixture(scope="module")
def usual(sound: bytes, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """How a sound file is read."""
    path = tmp_path_factory.mktemp("usual") / "bundle"
    path.write_bytes(sound)
    read = read_in_child(path)
    assert (read.status, read.said.get("rows")) == (0, 2), read.complaint
    return read


def refuse(path: Path, usual: Read) -> str:
    read = read_in_child(path)
    assert read.status == 1, f"not refused by name: {read}"
    assert read.resident < usual.resident + GROWTH_BYTES
    return f"{read.said['error']['field']}: {read.said['error']['reason']}"


def huge_page(sound: bytes, column: str, *, header: bool, footer: bool) -> bytes:
    """Half a gigabyte of zeros in a column's first page, of which its header tells, and the footer."""

    def change(parts: Parts, pages: bytes) -> bytes:
        changed = inflate_page(pages, 512 << 20, tells=header)
        (before, old_end), (after, new_end) = read_struct(pages), read_struct(changed)
        size = parts.column(column).find((UNCOMPRESSED,)) + new_end - old_end
        if footer:
            size += after.find((PAGE_UNCOMPRESSED,)) - before.find((PAGE_UNCOMPRESSED,))
        parts.column(column).put((UNCOMPRESSED,), size)
        return changed

    return replace_chunk(sound, column, change)


@pytest.mark.parametrize(
    ("column", "header", "footer", "named"),
    [
        ("content", True, True, "more bytes than"),
        ("content", True, False, "row group 0 column content: its pages are larger than its footer says"),
        ("content", False, False, "row group 0: not readable"),
        ("stream_id", True, False, "row group 0 column stream_id: its pages are larger than its footer says"),
        ("stream_id", False, False, "a dictionary of another size than its header says"),
        ("partition", False, False, "row group 0: not readable"),
    ],
)
def test_a_page_of_half_a_gigabyte_is_refused_whoever_tells_of_it(
    column: str, header: bool, footer: bool, named: str, sound: bytes, usual: Read, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(huge_page(sound, column, header=header, footer=footer))
    assert named in refuse(tmp_path / "bundle", usual)


def write_repeated(path: Path, manifest: Manifest, record: Record, column: str, value: Any, rows: int) -> None:
    """``rows`` times the record with this value in a column, under a manifest whose liars certified so many bytes."""
    window = manifest.windows[0].outcome
    entry = replace(window.entries[0], count=rows, canonical_bytes=rows * 600)
    lie = replace(window, entries=(entry,), root=entries_root((entry,)))
    own = replace(manifest, windows=(certify(lie, manifest.header.config_digest),))
    table = make_table([(False, record)] * rows)
    at, field = SCHEMA.get_field_index(column), SCHEMA.field(column)
    once = pa.DictionaryArray.from_arrays(pa.array([0] * rows, type=pa.int32()), pa.array([value], type=field.type))
    table = table.set_column(at, pa.field(column, once.type, nullable=field.nullable), once)
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({MANIFEST_KEY: pack_manifest(encode_manifest(own))})


@pytest.mark.parametrize(
    ("column", "size", "named"),
    [
        ("stream_id", 64 << 10, "row group 0 column stream_id: a dictionary with a value of 65536 bytes"),
        ("publisher_id", 64 << 10, "row group 0 column publisher_id: a dictionary with a value of 65536 bytes"),
        ("group_key_id", 257, "row group 0 column group_key_id: a dictionary with a value of 257 bytes"),
    ],
)
def test_one_long_value_for_thousands_of_rows_is_refused_before_it_is_repeated(
    column: str,
    size: int,
    named: str,
    manifest: Manifest,
    records: list[Record],
    usual: Read,
    tmp_path: Path,
) -> None:
    write_repeated(tmp_path / "bundle", manifest, records[0], column, "x" * size, 8_192)
    assert (tmp_path / "bundle").stat().st_size < 100_000
    assert refuse(tmp_path / "bundle", usual) == named


def test_one_long_content_for_thousands_of_rows_is_refused_before_it_is_repeated(
    manifest: Manifest, records: list[Record], usual: Read, tmp_path: Path
) -> None:
    """Where a content is in a dictionary it is read as the format does not write it, and for as long as it says."""
    value = b"\xff" * (1 << 20)
    write_repeated(tmp_path / "bundle", manifest, records[0], "content_bytes", value, 8_192)
    named = "row group 0 column content_bytes: a dictionary with a value of 1048576 bytes"
    assert refuse(tmp_path / "bundle", usual) == named


def with_keys(sound: bytes, change: Callable[[Any], None]) -> bytes:
    parts = take_apart(sound)
    change(parts.footer.find((KEYS,)).values)
    return parts.join()


def packed(manifest: bytes) -> bytes:
    return base64.b64encode(zstandard.ZstdCompressor(level=3).compress(manifest))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (lambda: bytes(50 << 20), "footer: 52"),
        (lambda: b"A" * (15 << 20), "logstore.manifest: not zstd"),
        (lambda: packed(bytes(512 << 20)), "logstore.manifest: more than 16777216 bytes"),
        (lambda: packed(b"\x81" * (15 << 20)), "manifest/1: nested deeper than 8"),
        (lambda: packed(b"\x9a\x00\xef\xff\xff" + b"\x80" * 0xEFFFFF), "manifest/1: more than"),
        (lambda: packed(b"\x9b" + b"\xff" * 8), "manifest/1: array longer than its bytes"),
    ],
    ids=["50 MiB", "15 MiB of nothing", "512 MiB of zeros", "nested", "15 million lists", "a list without end"],
)
def test_a_manifest_without_measure_is_refused(
    value: Callable[[], bytes], named: str, sound: bytes, usual: Read, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(with_keys(sound, lambda keys: keys[0].put((2,), value())))
    assert refuse(tmp_path / "bundle", usual).startswith(named)
