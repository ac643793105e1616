"""What gathering holds in memory, and what it does at its edges."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.builders import GENESIS_MS, a_message, a_stream_id
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.consensus.proposal import Span
from validator.protocol.model import Address, Reason, StreamPart
from validator.steps import admission, tallies, window_buffer
from validator.steps.spool import RecordSpool, Spool
from validator.steps.window_buffer import WindowBuffer
from validator.store.segments import SegmentStore

PART: StreamPart = (a_stream_id(), 0)
BROKERS = [Address(bytes([n]) * 20) for n in (1, 2)]
SPAN = Span(GENESIS_MS, GENESIS_MS + 1_000_000)
LINE = write_legacy_array(a_message(content=b"x" * 600))


def line(number: int) -> bytes:
    """A message of another time; its signature does not hold."""
    return LINE.replace(b",%d," % GENESIS_MS, b",%d," % (GENESIS_MS + number))


def test_memory_per_message_is_small_and_does_not_hold_its_bytes(tmp_path: Path) -> None:
    count = 12_000
    with (
        patch.multiple(window_buffer, BATCH_RECORDS=500, RUN_ROWS=1_000),
        patch.object(admission, "check_recovered", lambda signed: (True for _ in signed)),
        patch.object(window_buffer, "Spool", lambda folder: Spool(folder, 64 << 10)),
        patch.object(window_buffer, "RecordSpool", lambda folder: RecordSpool(folder, 64 << 10)),
        WindowBuffer(tmp_path / "scratch", [PART]) as buffer,
    ):
        tracemalloc.start()
        try:
            for broker in BROKERS:
                for number in range(count):
                    buffer.ingest(broker, PART, number, [line(number)], "array")
            buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=1 << 20)
            saved = SegmentStore(str(tmp_path / "sets")).save_ordered(buffer.merge())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert saved.info.count == count
    assert peak < 8 * 2**20 + 300 * count


def test_a_window_of_some_thousand_messages_holds_little_while_it_waits_and_is_checked(tmp_path: Path) -> None:
    count = 6_000
    with (
        patch.object(admission, "check_recovered", lambda signed: (True for _ in signed)),
        WindowBuffer(tmp_path / "scratch", [PART]) as buffer,
    ):
        tracemalloc.start()
        try:
            for broker in BROKERS:
                for start in range(0, count, 50):
                    buffer.ingest(broker, PART, start, [line(number) for number in range(start, start + 50)], "array")
            waiting, _ = tracemalloc.get_traced_memory()
            buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=1 << 20)
            checked, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count * len(LINE) > 5 << 20
    assert max(waiting, checked) < 3 << 20
    assert peak < 8 << 20


def test_what_arrives_after_the_check_began_is_not_taken(tmp_path: Path) -> None:
    with WindowBuffer(tmp_path, [PART]) as buffer:
        buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=1 << 20)
        buffer.ingest(BROKERS[0], PART, 0, [LINE], "array")
        assert list(buffer.merge()) == []
        assert not buffer.rejections


def test_many_refusals_are_counted_by_broker_and_keep_bounded_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "MAX_DETAILS", 3)
    with WindowBuffer(tmp_path, [PART]) as buffer:
        for number in range(10):
            line = LINE.replace(b",0,", b",%d," % (100 + number), 1)
            buffer.ingest(BROKERS[number % 2], PART, number, [line], "array")
        buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=1 << 20)
        reason = Reason.PARTITION_OUT_OF_RANGE.value
        assert buffer.refusals() == {(BROKERS[0], reason): 5, (BROKERS[1], reason): 5}
        assert buffer.refused_records == 10
        words = [detail.partition(": ")[2] for _, _, _, detail in buffer.rejections]
        assert len(set(words)) == 4
        assert words.count("") == 7


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    with WindowBuffer(tmp_path, [PART]) as buffer:
        buffer.ingest(BROKERS[0], PART, 0, [LINE], "array")
        buffer.check(SPAN, lambda *_: True, lambda _: False, message_limit=1 << 20)
        first = list(buffer.merge()), buffer.serve_counts(), buffer.shares([], BROKERS, free="")
        assert (list(buffer.merge()), buffer.serve_counts(), buffer.shares([], BROKERS, free="")) == first
