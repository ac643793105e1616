"""The broker's store under load: several threads and processes, a full disk, large messages, a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.builders import a_key, a_message
from validator.broker import day_file, store
from validator.broker.store import DAY_MS, SqliteMessageStore
from validator.ports.message_store import RangeState
from validator.protocol.codec.message import make_record
from validator.protocol.errors import TransientError
from validator.protocol.model import Record

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
STREAM = "0x" + "22" * 20 + "/s"
PART = (STREAM, 0)


def _records(count: int, *, first: int = 0, size: int = 20) -> list[Record]:
    content = b'"' + b"x" * size + b'"'
    return [
        make_record(a_message(a_key(1), stream_id=STREAM, timestamp_ms=NOON_MS + first + n, content=content))
        for n in range(count)
    ]


def test_readers_see_whole_batches_while_a_writer_adds(tmp_path: Path) -> None:
    held = SqliteMessageStore(tmp_path)
    held.insert(_records(10), 1)
    torn: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            count = held.state(PART, 0, NOON_MS + DAY_MS).count
            if count % 10:
                torn.append(count)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 20):
        held.insert(_records(10, first=number * 10), 2)
    done.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert held.state(PART, 0, NOON_MS + DAY_MS) == RangeState(200, 2)
    held.close()


def test_a_page_ends_before_its_rows_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE_BYTES", 10_000)
    held = SqliteMessageStore(tmp_path)
    held.insert(_records(30, size=1000), 1)
    page = held.scan(PART, 0, NOON_MS + DAY_MS, limit=1000)
    assert 0 < len(page) < 15
    rest = held.scan(PART, 0, NOON_MS + DAY_MS, after=page[-1].key, limit=1000)
    assert rest[0].key.timestamp_ms == page[-1].key.timestamp_ms + 1
    assert len(held.last(PART, 30)) < 15
    held.close()


def test_two_stores_of_one_folder_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LISTED_S", 0.0)
    writer, reader = SqliteMessageStore(tmp_path), SqliteMessageStore(tmp_path)
    assert reader.parts() == []
    writer.insert(_records(5), 1)
    assert reader.parts() == [PART]
    assert len(reader.scan(PART, 0, NOON_MS + DAY_MS, limit=10)) == 5
    assert writer.drop_days_before(NOON_MS + DAY_MS) == 1
    assert reader.scan(PART, 0, NOON_MS + DAY_MS, limit=10) == []
    assert writer.insert(_records(2), 1) == 2
    assert len(reader.scan(PART, 0, NOON_MS + DAY_MS, limit=10)) == 2
    writer.close()
    reader.close()


def test_more_days_than_may_be_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "OPEN_FILES", 2)
    held = SqliteMessageStore(tmp_path)
    records = _records(1) + _records(1, first=DAY_MS) + _records(1, first=2 * DAY_MS) + _records(1, first=3 * DAY_MS)
    assert held.insert(records, 1) == 4
    assert held.insert(records, 1) == 0
    assert [row.key.leaf for row in held.scan(PART, 0, NOON_MS + 9 * DAY_MS, limit=10)] == [r.leaf for r in records]
    held.close()


def test_a_full_disk_is_a_transient_error_and_harms_nothing(tmp_path: Path) -> None:
    held = SqliteMessageStore(tmp_path)
    held.insert(_records(5), 1)
    name = next(iter(held._open))
    writer = held._open[name]._writer
    assert writer is not None
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own SQLITE_FULL, as the file system's would be
    with pytest.raises(TransientError, match="full"):
        held.insert(_records(500, first=5, size=500), 2)
    assert held.state(PART, 0, NOON_MS + DAY_MS).count == 5
    writer.execute("PRAGMA max_page_count=1000000")
    assert held.insert(_records(500, first=5, size=500), 2) == 500
    held.close()


_WRITER = """
import sys
from pathlib import Path
from tests.integration.broker.test_store import _records
from validator.broker.store import SqliteMessageStore
store = SqliteMessageStore(Path(sys.argv[1]))
for number in range(100000):
    store.insert(_records(20, first=int(sys.argv[2]) + number * 20), 1)
    print((number + 1) * 20, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_said_was_kept(tmp_path: Path) -> None:
    first = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert process.stdout is not None
        said = 0
        while said < 200:
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        said = int(rest[-1]) if rest else said
        held = SqliteMessageStore(tmp_path)
        assert held.state(PART, NOON_MS + first, NOON_MS + first + said).count == said
        for file in tmp_path.glob("*.sqlite"):
            with sqlite3.connect(file) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        held.close()
        first += 1_000_000


def test_a_file_is_whole_from_its_first_moment(tmp_path: Path) -> None:
    file = day_file.DayFile(tmp_path / "2026-01-01.0of1.sqlite")
    with pytest.raises(TransientError, match="unable to open"):
        file.parts()
    file.insert(_records(1), 1)
    assert file.parts() == [PART]
    file.close()
