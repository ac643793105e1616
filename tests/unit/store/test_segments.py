"""Files of sets: what is written is read, and nothing else is believed."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from tests.builders import GENESIS_MS, a_record, a_stream_id, some_records
from tests.segments import load_set
from validator.protocol.codec import cbor
from validator.protocol.codec.message import leaf_of_canonical
from validator.protocol.codec.outcome import set_root
from validator.protocol.columns import row_of
from validator.protocol.consensus.window import make_entries
from validator.protocol.errors import ConfigError, InvariantError, TransientError
from validator.protocol.hashing import EMPTY_ROOT, hash_body
from validator.protocol.model import Digest, Record, Root
from validator.store import segment_writer, segments
from validator.store.segment_format import DamagedSegment, Index
from validator.store.segment_reader import read_block
from validator.store.segments import SegmentStore


def root_of(records: list[Record]) -> Root:
    return set_root(make_entries(records))


def saved(folder: Path, records: list[Record]) -> tuple[SegmentStore, Root, Path]:
    store = SegmentStore(str(folder))
    root = root_of(records)
    store.save(root, records)
    return store, root, Path(store.path(root))


def three_parts() -> list[Record]:
    return [
        *some_records(4, partition=1),
        *some_records(3, stream_id=a_stream_id(path="a")),
        a_record(sequence_number=2, timestamp_ms=GENESIS_MS + 2, partition=1),
    ]


def test_messages_come_back_in_canonical_order(tmp_path: Path) -> None:
    records = three_parts()
    store, root, _ = saved(tmp_path, records[::-1])
    ordered = sorted(records, key=lambda record: record.order)
    assert list(load_set(store, root)) == [record.canonical for record in ordered]
    assert {e.stream_part: e.count for e in store.load_entries(root)} == {
        (a_stream_id(), 1): 5,
        (a_stream_id(path="a"), 0): 3,
    }
    (page,) = store.load_pages(root, (a_stream_id(), 1))
    assert list(page.rows()) == [row_of(r) for r in ordered if r.message.partition == 1]
    assert list(store.load_pages(root, (a_stream_id(), 7))) == []


def test_the_empty_set_is_a_set(tmp_path: Path) -> None:
    store, root, _ = saved(tmp_path, [])
    assert root == EMPTY_ROOT
    assert list(load_set(store, root)) == []
    assert store.load_entries(root) == ()
    assert store.load_messages(root, [hash_body(b"x")]) == []


def test_single_messages_are_answered_without_reading_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_writer, "BLOCK_BYTES", 2_000)
    records = some_records(60)
    store, root, _ = saved(tmp_path, records)
    read: list[int] = []

    def counted(file: BinaryIO, index: Index, number: int) -> bytes:
        read.append(number)
        return read_block(file, index, number)

    monkeypatch.setattr(segments, "read_block", counted)
    wanted = [records[50].leaf, hash_body(b"unknown"), records[3].leaf, records[50].leaf]
    assert store.load_messages(root, wanted) == [records[n].canonical for n in (50, 3, 50)]
    assert len(read) == 2 < len(store._index(root).blocks)


def test_any_zstd_reader_gets_the_sequence(tmp_path: Path) -> None:
    records = some_records(5)
    _, _, path = saved(tmp_path, records)
    with path.open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert cbor.split_sequence(plain, max_items=10) == [record.canonical for record in records]


def test_a_set_is_saved_under_its_own_root_only(tmp_path: Path) -> None:
    records = some_records(3)
    with pytest.raises(InvariantError, match="does not have this root"):
        SegmentStore(str(tmp_path)).save(root_of(records), records[:2])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    records = some_records(3)
    store = SegmentStore(str(tmp_path))
    with pytest.raises(TransientError, match="No space left"):
        store.save(root_of(records), records)
    assert not store.exists(root_of(records))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedSegment, match="gone"):
        SegmentStore(str(tmp_path)).load_entries(EMPTY_ROOT)
    SegmentStore(str(tmp_path)).delete(EMPTY_ROOT)


@pytest.mark.parametrize("keep", [0, 7, 100, -1, -16, -40])
def test_a_file_cut_short_is_damaged(tmp_path: Path, keep: int) -> None:
    _, root, path = saved(tmp_path, three_parts())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedSegment):
        list(load_set(SegmentStore(str(tmp_path)), root))


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    records = three_parts()
    _, root, path = saved(tmp_path, records)
    good = path.read_bytes()
    leaves = {record.leaf for record in records}
    outcomes = {"damaged": 0, "same": 0, "other": 0}
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        store = SegmentStore(str(tmp_path))
        try:
            messages = list(load_set(store, root))
        except DamagedSegment:
            outcomes["damaged"] += 1
        else:
            same = {leaf_of_canonical(message) for message in messages} == leaves
            outcomes["same" if same else "other"] += 1
    assert outcomes["damaged"] > 0
    assert outcomes["other"] == 0


def test_a_block_that_holds_more_than_the_index_names_is_not_unpacked(tmp_path: Path) -> None:
    records = some_records(2)
    _, root, path = saved(tmp_path, records)
    store = SegmentStore(str(tmp_path))
    index = store._index(root)
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    offset, size, plain = index.blocks[0]
    before = path.read_bytes()[: offset + size]
    fields = cbor.encode_object(
        "set-index/3",
        root,
        [[len(before), len(bomb), plain]],
        [segment_writer.part_fields(part) for part in index.parts],
    )
    tail = fields + hashlib.sha256(fields).digest() + struct.pack(">Q8s", len(fields), b"LSINDEX3")
    path.write_bytes(before + bomb + struct.pack("<II", 0x184D2A50, len(tail)) + tail)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedSegment, match="not the size"):
            list(load_set(SegmentStore(str(tmp_path)), root))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_a_release_before_columns_is_obtained_again(tmp_path: Path) -> None:
    _, root, path = saved(tmp_path, three_parts())
    path.write_bytes(path.read_bytes()[:-8] + b"LSINDEX2")
    with pytest.raises(DamagedSegment, match="of this release"):
        SegmentStore(str(tmp_path)).load_entries(root)
    with pytest.raises(DamagedSegment):
        SegmentStore(str(tmp_path)).glance(root, path.stat().st_size)


def test_altered_columns_are_damage_though_messages_and_index_are_whole(tmp_path: Path) -> None:
    store, root, path = saved(tmp_path, three_parts())
    offset, size, *_ = store._index(root).parts[0].pages[0]
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 1
    path.write_bytes(data)
    fresh = SegmentStore(str(tmp_path))
    first, second = (entry.stream_part for entry in fresh.load_entries(root))
    with pytest.raises(DamagedSegment, match="altered"):
        list(fresh.load_pages(root, first))
    assert list(fresh.load_pages(root, second))


def test_leaves_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    records = some_records(5)
    store, root, _ = saved(tmp_path, records)
    finder = store._finder(root)
    assert [len(list(finder.candidates(record.leaf))) for record in records] == [1] * 5
    twin = records[2].leaf[:4] + bytes(28)
    assert len(list(finder.candidates(twin))) == 1
    assert store.load_messages(root, [Digest(twin), records[2].leaf]) == [records[2].canonical]


@pytest.mark.parametrize("altered", ["nothing", "a block", "the end"])
def test_of_a_damaged_file_is_kept_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, altered: str
) -> None:
    monkeypatch.setattr(segment_writer, "BLOCK_BYTES", 2_000)
    records = some_records(60)
    store, root, path = saved(tmp_path, records)
    data = bytearray(path.read_bytes())
    data[{"nothing": slice(0, 0), "a block": slice(30, 40), "the end": slice(-40, None)}[altered]] = b""
    path.write_bytes(data)
    if altered == "a block":
        path.write_bytes(data[:30] + bytes(10) + data[30:])
    store.put_aside(root)
    assert not store.exists(root)
    left = store.salvage(root)
    if altered == "the end":
        assert (left.messages, left.leaves) == ((), None)
        return
    assert left.leaves == frozenset(record.leaf for record in records)
    canonical = {record.canonical for record in records}
    assert set(left.messages) <= canonical
    assert (set(left.messages) == canonical) is (altered == "nothing")
    store.put_aside(root)
    store.save(root, records)
    assert sorted(load_set(store, root)) == sorted(canonical)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_the_system_does_not_let_us_read_is_not_damaged_unless_the_medium_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store, root, _ = saved(tmp_path, three_parts())

    def refused(*_arguments: object, **_keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store._fs, "open", refused)
    with pytest.raises(TransientError) as raised:
        store.load_entries(root)
    assert isinstance(raised.value, DamagedSegment) is (code == errno.EIO)


def test_a_new_folder_is_named_durably_before_the_set_counts_as_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    true_fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        true_fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    _, _, path = saved(tmp_path, three_parts())
    assert synced[1:] == [str(path.parent), str(tmp_path)]


def test_the_index_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "CACHED_ROWS", 5)
    store = SegmentStore(str(tmp_path))
    roots = []
    for number in range(4):
        records = some_records(3, partition=number)
        roots.append(root_of(records))
        store.save(roots[-1], records)
        store.load_entries(roots[-1])
    assert list(store._cache) == roots[-1:]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/sets", "s3:// needs more: pip install 'logstore-validator[s3]'"),
        ("gs://bucket/sets", "gs:// needs more: Please install gcsfs"),
        ("sss://bucket/sets", "Protocol not known: sss"),
    ],
)
def test_a_url_that_nothing_here_can_open_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # one that was there before
    with pytest.raises(ConfigError, match=r"^LOGSTORE_SEGMENTS_URL: ") as caught:
        SegmentStore(url)
    assert said in str(caught.value)


def test_sets_live_on_any_file_system_that_fsspec_knows() -> None:
    records = three_parts()
    store = SegmentStore("memory://sets-of-a-test")
    root = root_of(records)
    store.save(root, records)
    assert sorted(load_set(store, root)) == sorted(record.canonical for record in records)
    assert store.exists(root)
    store.delete(root)
    assert not store.exists(root)
