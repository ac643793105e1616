"""What is heard of others, and of whoever speaks with one's own key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import a_key, a_message
from tests.fakes.broker_network import START_MS, SYSTEM
from tests.fakes.message_store import MemoryMessageStore
from validator.broker.evidence import KEPT, EvidenceBook, Lie
from validator.broker.heartbeat import STALE_MS, TWIN_MS, Hearing, make_heartbeat
from validator.broker.slices import SliceSums
from validator.broker.sum_book import SqliteSums
from validator.protocol.codec.heartbeat import write_heartbeat
from validator.protocol.codec.message import make_record
from validator.protocol.model import Record

ME, OTHER = a_key(1), a_key(2)


@pytest.fixture
def hear() -> Callable[..., Hearing]:
    book = EvidenceBook()
    hearing = Hearing(ME.address, SYSTEM, lambda: {OTHER.address}, book, lambda: now[0])
    now = [START_MS]

    def hear(*records: Record) -> Hearing:
        for record in records:
            now[0] = record.message.timestamp_ms
            hearing.hear(record)
        return hearing

    return hear


def a_beat(at_s: float, chain: str, key: object = OTHER, claimed_s: float | None = None) -> Record:
    sums = SliceSums(SqliteSums(":memory:"), MemoryMessageStore(), from_ms=START_MS - 600_000)
    at_ms = START_MS + round(at_s * 1000)
    claimed_ms = at_ms if claimed_s is None else START_MS + round(claimed_s * 1000)
    content = write_heartbeat(make_heartbeat(sums, claimed_ms, (), None))
    return make_record(
        a_message(key, stream_id=SYSTEM[0], timestamp_ms=at_ms, content=content, msg_chain_id=chain)  # type: ignore[arg-type]
    )


def test_a_restart_begins_a_new_chain_and_is_no_lie(hear: Callable[..., Hearing]) -> None:
    hearing = hear(*(a_beat(n, chain) for n, chain in enumerate("aaabbbccc")), *(a_beat(20, "d"), a_beat(3, "b")))
    assert hearing._book.all() == []
    assert hearing.newest[OTHER.address].said_ms == START_MS + 20_000


def test_two_with_one_key_are_caught_by_three_of_their_heartbeats(hear: Callable[..., Hearing]) -> None:
    beats = [a_beat(n / 2, chain) for n, chain in enumerate("abab")]
    (second, first) = hear(*beats)._book.all()
    assert (first.broker, first.lie, first.words) == (
        OTHER.address,
        Lie.EQUIVOCATED,
        tuple(b.canonical for b in beats[:3]),
    )
    assert second.words == tuple(b.canonical for b in beats[1:])


def test_whoever_has_our_key_is_heard_until_it_is_silent(hear: Callable[..., Hearing]) -> None:
    assert not hear(a_beat(0, "ours", ME), a_beat(1, "ours", ME), a_beat(2, "its", ME)).has_twin
    assert hear(a_beat(3, "ours", ME)).has_twin
    assert not hear(a_beat(4 + TWIN_MS / 1000, "ours", ME)).has_twin
    assert hear()._book.all() == []


def test_a_heartbeat_of_the_past_is_stale_and_only_so_often_kept(hear: Callable[..., Hearing]) -> None:
    behind_s = STALE_MS / 1000 + 20
    assert hear(a_beat(0, "a", claimed_s=-STALE_MS / 1000))._book.all() == []
    hearing = hear(*(a_beat(n + 1, "a", claimed_s=-behind_s) for n in range(KEPT + 5)))
    assert {e.lie for e in hearing._book.all()} == {Lie.STALE}
    assert len(hearing._book.all()) == KEPT
