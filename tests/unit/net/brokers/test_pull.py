"""What a pull keeps of the records that it hands over."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from tests.builders import GENESIS_MS, a_message, a_stream_id
from validator.net.brokers.pull import Room, RunningPull
from validator.net.brokers.ranges import Position
from validator.ports.sources import Broker
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.received import ARRAY
from validator.protocol.model import Address, StreamPart, Window

LINE = write_legacy_array(a_message(content=b"x" * 1000))


def line(number: int) -> bytes:
    return LINE.replace(b",%d," % GENESIS_MS, b",%d," % (GENESIS_MS + number))


def a_pull() -> RunningPull:
    broker = Broker(Address(b"\x01" * 20), "http://broker.example")
    part = (a_stream_id(), 0)
    window = Window(GENESIS_MS, GENESIS_MS + 60_000)
    return RunningPull(broker, part, window, None, Room("the broker", 1 << 30, 1 << 20), 0.0, _pass_on)


def _pass_on(_broker: Address, _part: StreamPart, _at: int, _records: Sequence[bytes], _form: str) -> None:
    """Somebody else keeps them."""


def test_records_that_were_handed_over_are_not_held() -> None:
    count = 4_000
    pull = a_pull()
    tracemalloc.start()
    try:
        for start in range(0, count, 50):
            pull.accept_page([line(number) for number in range(start, start + 50)], ARRAY)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pull.rows == count
    assert held < 100 * count


def test_the_last_record_that_can_be_read_says_where_the_next_page_begins() -> None:
    pull = a_pull()
    pull.accept_page([line(1), line(2), b"[not a message]"], ARRAY)
    assert pull.last == Position(GENESIS_MS + 2, 0)
    pull.accept_page([b"nor this"], ARRAY)
    assert pull.last == Position(GENESIS_MS + 2, 0), "it came in an earlier piece"
    pull.accept_page([line(3)], ARRAY)
    assert pull.last == Position(GENESIS_MS + 3, 0)
    pull.begin_page()
    assert pull.last is None
