"""The broker's store against a sorted list: whatever goes in, every question has the list's answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_key, a_message
from validator.broker.store import DAY_MS, SqliteMessageStore
from validator.ports.message_store import Columns, MessageStore, SortKey, StoredRow
from validator.protocol.codec.message import make_record
from validator.protocol.model import Record

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
STREAM = "0x" + "11" * 20 + "/sensors"
PART = (STREAM, 0)


def _key_of(record: Record) -> SortKey:
    m = record.message
    return SortKey(m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, record.leaf)


def _pool() -> list[Record]:
    """Few places, so that many messages share one: several days, equal ids with different contents."""
    made = []
    for day in (-1, 0, 1):
        for offset in (0, 1):
            for sequence in (0, 1):
                for who in (1, 2):
                    for content in (b"{}", b'{"a":1}'):
                        made.append(
                            make_record(
                                a_message(
                                    a_key(who),
                                    stream_id=STREAM,
                                    timestamp_ms=NOON_MS + day * DAY_MS + offset,
                                    sequence_number=sequence,
                                    content=content,
                                )
                            )
                        )
    return made


POOL = _pool()
TIMES = sorted({r.message.timestamp_ms + shift for r in POOL for shift in (0, 1)} | {0, NOON_MS + 9 * DAY_MS})
batches = st.lists(st.lists(st.sampled_from(POOL), max_size=8), max_size=6)


@contextmanager
def _store(shards: int = 1) -> Iterator[SqliteMessageStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteMessageStore(Path(folder), shards=shards)
        yield store
        store.close()


def _fill(store: MessageStore, given_batches: list[list[Record]]) -> list[Record]:
    held: dict[bytes, Record] = {}
    for number, batch in enumerate(given_batches):
        fresh = {record.leaf for record in batch} - held.keys()
        assert store.insert(batch, 1000 + number) == len(fresh)
        held |= {record.leaf: record for record in batch}
    return sorted(held.values(), key=_key_of)


def _is(rows: list[StoredRow], records: list[Record]) -> bool:
    told = [(row.key, row.identity, row.canonical, row.signed_bytes) for row in rows]
    return told == [(_key_of(r), r.signed_digest, r.canonical, r.signed_bytes) for r in records]


@settings(max_examples=30, deadline=None)
@given(batches=batches, span=st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES)), limit=st.integers(1, 5))
def test_pages_of_a_span_are_the_sorted_list_of_it(
    batches: list[list[Record]], span: tuple[int, int], limit: int
) -> None:
    with _store() as store:
        held = _fill(store, batches)
        wanted = [r for r in held if span[0] <= r.message.timestamp_ms < span[1]]
        found: list[StoredRow] = []
        after = None
        while page := store.scan(PART, *span, after=after, limit=limit):
            assert len(page) <= limit
            found += page
            columns = store.page(PART, *span, after=after, limit=limit)
            assert columns == Columns.of_rows(page), "the same rows, column by column"
            after = page[-1].key
            assert columns.last_key == after
        assert not store.page(PART, *span, after=after, limit=limit)
        assert _is(found, wanted)
        assert [key for page in store.keys(PART, *span) for key in page] == [
            (r.message.timestamp_ms, r.leaf) for r in wanted
        ]
        state = store.state(PART, *span)
        assert state.count == len(wanted)
        assert (state.newest_arrival_ms >= 1000) is bool(wanted)


@settings(max_examples=20, deadline=None)
@given(batches=batches, count=st.integers(1, 60), asked=st.lists(st.sampled_from(POOL), max_size=10))
def test_last_and_fetch_are_those_of_the_list(batches: list[list[Record]], count: int, asked: list[Record]) -> None:
    with _store() as store:
        held = _fill(store, batches)
        assert _is(store.last(PART, count), held[-count:])
        wanted = {r.leaf for r in asked}
        pairs = [(r.message.timestamp_ms, r.leaf) for r in asked]
        assert _is(store.fetch(PART, pairs), [r for r in held if r.leaf in wanted])


@settings(max_examples=20, deadline=None)
@given(first=batches, second=batches, limit=st.integers(1, 7))
def test_another_number_of_shards_changes_no_answer(
    first: list[list[Record]], second: list[list[Record]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = SqliteMessageStore(Path(folder), shards=1)
        _fill(before, first)
        before.close()
        store = SqliteMessageStore(Path(folder), shards=3)
        for batch in second:
            store.insert(batch, 5000)
        held = sorted({r.leaf: r for batch in first + second for r in batch}.values(), key=_key_of)
        found: list[StoredRow] = []
        after = None
        while page := store.scan(PART, 0, TIMES[-1], after=after, limit=limit):
            found += page
            assert store.page(PART, 0, TIMES[-1], after=after, limit=limit) == Columns.of_rows(page)
            after = page[-1].key
        store.close()
        assert _is(found, held)


def test_dropping_days_drops_those_that_have_ended_and_no_other() -> None:
    with _store() as store:
        held = _fill(store, [POOL])
        middle = NOON_MS // DAY_MS * DAY_MS
        assert store.drop_days_before(middle) == 1
        assert _is(store.scan(PART, 0, TIMES[-1], limit=1000), [r for r in held if r.message.timestamp_ms >= middle])
        assert store.insert(POOL, 7000) == len([r for r in POOL if r.message.timestamp_ms < middle])
