"""The broker's day files pass the message store's port tests, whatever the number of shards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings

from tests import message_store_port as port
from tests.message_store_port import PART, TIMES, batches, fill, is_same, key_of
from validator.broker.store import SqliteMessageStore
from validator.ports.message_store import Columns, StoredRow
from validator.protocol.model import Record


@contextmanager
def _store(shards: int = 1) -> Iterator[SqliteMessageStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteMessageStore(Path(folder), shards=shards)
        yield store
        store.close()


@settings(max_examples=30, deadline=None)
@given(batches=batches, span=port.spans, limit=port.limits)
def test_pages_of_a_span_are_the_sorted_list_of_it(
    batches: list[list[Record]], span: tuple[int, int], limit: int
) -> None:
    with _store() as store:
        port.check_spans(store, batches, span, limit)


@settings(max_examples=20, deadline=None)
@given(batches=batches, count=port.counts, asked=port.some)
def test_last_and_fetch_are_those_of_the_list(batches: list[list[Record]], count: int, asked: list[Record]) -> None:
    with _store() as store:
        port.check_choices(store, batches, count, asked)


@settings(max_examples=20, deadline=None)
@given(first=batches, second=batches, limit=port.limits)
def test_another_number_of_shards_changes_no_answer(
    first: list[list[Record]], second: list[list[Record]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = SqliteMessageStore(Path(folder), shards=1)
        fill(before, first)
        before.close()
        store = SqliteMessageStore(Path(folder), shards=3)
        for batch in second:
            store.insert(batch, 5000)
        held = sorted({r.leaf: r for batch in first + second for r in batch}.values(), key=key_of)
        found: list[StoredRow] = []
        after = None
        while page := store.scan(PART, 0, TIMES[-1], after=after, limit=limit):
            found += page
            assert store.page(PART, 0, TIMES[-1], after=after, limit=limit) == Columns.of_rows(page)
            after = page[-1].key
        store.close()
        assert is_same(found, held)


def test_dropping_days_drops_those_that_have_ended_and_no_other() -> None:
    with _store() as store:
        port.check_days(store)
