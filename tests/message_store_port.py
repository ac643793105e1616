"""What every message store does, against a sorted list: whatever goes in, every question has the list's answer.

A module of tests hands each of these a store that is empty.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.builders import a_key, a_message
from validator.broker.store import DAY_MS
from validator.ports.message_store import Columns, MessageStore, SortKey, StoredRow
from validator.protocol.codec.message import make_record
from validator.protocol.model import Record

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
STREAM = "0x" + "11" * 20 + "/sensors"
PART = (STREAM, 0)


def key_of(record: Record) -> SortKey:
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
spans = st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES))
limits = st.integers(1, 5)
counts = st.integers(1, 60)
some = st.lists(st.sampled_from(POOL), max_size=10)


def fill(store: MessageStore, given_batches: list[list[Record]]) -> list[Record]:
    held: dict[bytes, Record] = {}
    for number, batch in enumerate(given_batches):
        fresh = {record.leaf for record in batch} - held.keys()
        assert store.insert(batch, 1000 + number) == len(fresh)
        held |= {record.leaf: record for record in batch}
    return sorted(held.values(), key=key_of)


def is_same(rows: list[StoredRow], records: list[Record]) -> bool:
    told = [(row.key, row.identity, row.canonical, row.signed_bytes) for row in rows]
    return told == [(key_of(r), r.signed_digest, r.canonical, r.signed_bytes) for r in records]


def check_spans(store: MessageStore, batches: list[list[Record]], span: tuple[int, int], limit: int) -> None:
    """Pages of a span are the sorted list of it."""
    held = fill(store, batches)
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
    assert is_same(found, wanted)
    assert [key for page in store.keys(PART, *span) for key in page] == [
        (r.message.timestamp_ms, r.leaf) for r in wanted
    ]
    state = store.state(PART, *span)
    assert state.count == len(wanted)
    assert (state.newest_arrival_ms >= 1000) is bool(wanted)


def check_choices(store: MessageStore, batches: list[list[Record]], count: int, asked: list[Record]) -> None:
    """Last and fetch are those of the list."""
    held = fill(store, batches)
    assert is_same(store.last(PART, count), held[-count:])
    wanted = {r.leaf for r in asked}
    pairs = [(r.message.timestamp_ms, r.leaf) for r in asked]
    assert is_same(store.fetch(PART, pairs), [r for r in held if r.leaf in wanted])


def check_days(store: MessageStore) -> None:
    """Dropping days drops those that have ended, and no other."""
    held = fill(store, [POOL])
    middle = NOON_MS // DAY_MS * DAY_MS
    assert store.drop_days_before(middle) == 1
    assert is_same(store.scan(PART, 0, TIMES[-1], limit=1000), [r for r in held if r.message.timestamp_ms >= middle])
    assert store.insert(POOL, 7000) == len([r for r in POOL if r.message.timestamp_ms < middle])
