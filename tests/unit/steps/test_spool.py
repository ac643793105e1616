"""Scratch bytes come back, from memory or disk, and leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from validator.protocol.errors import TransientError
from validator.steps.spool import RecordSpool, Spool


@pytest.mark.parametrize("memory", [1, 7, 100, 10_000])
def test_any_stretch_comes_back_wherever_it_lies(tmp_path: Path, memory: int) -> None:
    pieces = [bytes([n]) * (n % 13) for n in range(1, 60)]
    whole = b"".join(pieces)
    with Spool(tmp_path / "scratch", memory) as spool:
        offsets = [spool.append(piece) for piece in pieces]
        assert [spool.read(at, len(piece)) for at, piece in zip(offsets, pieces, strict=True)] == pieces
        assert len(spool) == len(whole)
        for start in range(0, len(whole), 5):
            for length in (1, 8, len(whole) - start):
                assert spool.read(start, length) == whole[start : start + length]


def test_little_never_touches_the_disk_and_much_leaves_no_name(tmp_path: Path) -> None:
    with Spool(tmp_path / "scratch", 100) as spool:
        spool.append(b"x" * 99)
        assert not (tmp_path / "scratch").exists()
        spool.append(b"y" * 2)
        assert list((tmp_path / "scratch").iterdir()) == []
        assert spool.read(98, 3) == b"xyy"


@pytest.mark.parametrize("memory", [1, 7, 100, 10_000])
def test_records_come_back_by_number_wherever_they_lie(tmp_path: Path, memory: int) -> None:
    records = [bytes([n]) * (n % 13) for n in range(1, 60)]
    spool = RecordSpool(tmp_path / "scratch", memory)
    for start in range(0, len(records), 4):
        spool.extend(records[start : start + 4])
    assert [spool[n] for n in range(len(spool))] == records
    assert list(spool.lengths) == [len(record) for record in records]
    for start in range(len(records)):
        for stop in (start + 1, start + 9, len(records)):
            assert spool.read(range(start, stop)) == records[start:stop]
    with pytest.raises(IndexError):
        spool[len(records)]
    spool.close()


def test_a_full_disk_is_a_transient_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with Spool(tmp_path, 1) as spool, pytest.raises(TransientError, match="No space left"):
        spool.append(b"xx")
