"""PostgreSQL passes the message store's port tests, and what several processes do to it at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from tests import message_store_port as port
from tests import servers
from tests.builders import a_key, a_message, an_ml_dsa_message
from tests.message_store_port import NOON_MS, PART, STREAM
from validator.broker.postgres import messages as adapter
from validator.broker.postgres.database import Database
from validator.broker.postgres.messages import PostgresMessageStore
from validator.broker.postgres.schema import migrate
from validator.broker.store import DAY_MS
from validator.protocol.codec.message import make_record
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address, Record

OWNER = Address(b"\x01" * 20)
ML_DSA_87_BYTES = 2592
SLOW = [HealthCheck.too_slow]


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with servers.fresh_database(postgres_server, "broker_port") as url:
        yield url


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.open()
    migrate(database, OWNER, b"network")
    yield database
    database.close()


def _empty(database: Database) -> PostgresMessageStore:
    with database.use() as cursor:
        cursor.execute("DELETE FROM messages")  # TRUNCATE takes ten times as long for few rows
        cursor.execute("DELETE FROM day_parts")
    return PostgresMessageStore(database)


def _records(count: int, *, first: int = 0, size: int = 20) -> list[Record]:
    content = b'"' + b"x" * size + b'"'
    return [
        make_record(a_message(a_key(1), stream_id=STREAM, timestamp_ms=NOON_MS + first + n, content=content))
        for n in range(count)
    ]


def test_pages_of_a_span_are_the_sorted_list_of_it(database: Database) -> None:
    @settings(max_examples=5, deadline=None, suppress_health_check=SLOW)
    @given(batches=port.batches, span=port.spans, limit=port.limits)
    def check(batches: list[list[Record]], span: tuple[int, int], limit: int) -> None:
        port.check_spans(_empty(database), batches, span, limit)

    check()


def test_last_and_fetch_are_those_of_the_list(database: Database) -> None:
    @settings(max_examples=4, deadline=None, suppress_health_check=SLOW)
    @given(batches=port.batches, count=port.counts, asked=port.some)
    def check(batches: list[list[Record]], count: int, asked: list[Record]) -> None:
        port.check_choices(_empty(database), batches, count, asked)

    check()


def test_dropping_days_drops_those_that_have_ended_and_no_other(database: Database) -> None:
    port.check_days(_empty(database))


def test_the_largest_keys_stand_in_order_too(database: Database) -> None:
    """They do not fit an index, and these differ at their ends alone."""
    store = _empty(database)
    publishers = [b"\x07" * (ML_DSA_87_BYTES - 1) + bytes([last]) for last in (3, 1, 2)]
    message = an_ml_dsa_message(stream_id=STREAM, timestamp_ms=NOON_MS)
    records = [
        make_record(replace(message, publisher_id=who, msg_chain_id=chain))
        for who in publishers
        for chain in ("b" * 256, "a\0")
    ]
    assert store.insert(records, 1) == len(records)
    wanted = sorted(map(port.key_of, records))
    assert [row.key for row in store.scan(PART, 0, NOON_MS + 1, limit=9)] == wanted
    first = store.scan(PART, 0, NOON_MS + 1, limit=2)
    assert [row.key for row in store.scan(PART, 0, NOON_MS + 1, after=first[-1].key, limit=9)] == wanted[2:]


def test_a_page_ends_before_its_rows_fill_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "PAGE_BYTES", 10_000)
    monkeypatch.setattr(adapter, "TOGETHER", 7)
    store = _empty(database)
    assert store.insert(_records(30, size=1000), 1) == 30
    page = store.scan(PART, 0, NOON_MS + DAY_MS, limit=1000)
    assert 0 < len(page) < 15
    assert len(store.page(PART, 0, NOON_MS + DAY_MS, limit=1000)) == len(page)
    rest = store.scan(PART, 0, NOON_MS + DAY_MS, after=page[-1].key, limit=1000)
    assert rest[0].key.timestamp_ms == page[-1].key.timestamp_ms + 1
    assert 0 < len(store.last(PART, 30)) < 15


def test_keys_come_page_by_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "KEYS_PAGE", 4)
    store, records = _empty(database), _records(10)
    store.insert(records, 1)
    pages = list(store.keys(PART, 0, NOON_MS + DAY_MS))
    assert [len(page) for page in pages] == [4, 4, 2]
    assert [leaf for page in pages for _, leaf in page] == [record.leaf for record in records]


def test_two_that_take_in_the_same_messages_at_once_keep_each_once(database: Database) -> None:
    """In opposite orders, on a day that neither has seen, while a third reads."""
    _empty(database).drop_days_before(NOON_MS + 9 * DAY_MS)
    records = _records(400)
    new: list[int] = []
    stores = [PostgresMessageStore(database) for _ in range(2)]
    orders = [records, records[::-1]]

    def take(store: PostgresMessageStore, order: list[Record]) -> None:
        new.extend(store.insert(order[at : at + 100], 1) for at in range(0, 400, 100))

    threads = [threading.Thread(target=take, args=pair) for pair in zip(stores, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new) == 400
    assert stores[0].state(PART, 0, NOON_MS + DAY_MS).count == 400


def test_what_is_asked_of_a_day_without_statistics_reads_no_more_than_the_answer(database: Database) -> None:
    store = _empty(database)
    store.insert([record for day in range(4) for record in _records(100, first=day * DAY_MS)], 1)
    number = store._number(PART)
    assert number is not None
    where, bounds = adapter._bounds(number, 0, NOON_MS + 9 * DAY_MS, store.last(PART, 150)[0].key)
    page = adapter._page(adapter._ROW, adapter._ROW, where, adapter._KEY), (*bounds, 20, 1 << 20)
    newest = adapter._page(adapter._ROW, adapter._ROW, "part = %s", adapter._NEWEST_FIRST), (number, 20, 1 << 20)
    keys = [row.key for row in store.last(PART, 20)]
    fetch = adapter._FETCH, ([key.timestamp_ms for key in keys], [key.leaf for key in keys], number)
    for query, values in (page, newest, fetch):
        with database.use() as cursor:
            plan = cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, values).fetchone()
        assert plan is not None
        assert _rows_read(plan[0][0]["Plan"]) <= 3 * 20


def _rows_read(node: dict[str, Any]) -> int:
    """Of all days together, those that an index gave and a condition refused too."""
    own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Index Name" in node else 0
    return int(own * max(1, node["Actual Loops"])) + sum(_rows_read(below) for below in node.get("Plans", ()))


def test_a_database_belongs_to_one_broker_of_one_network(database: Database) -> None:
    migrate(database, OWNER, b"network")
    with pytest.raises(ConfigError, match="belongs to the broker 0x0101"):
        migrate(database, Address(b"\x02" * 20), b"network")
    with pytest.raises(ConfigError, match="another network"):
        migrate(database, OWNER, b"another")


def test_a_newer_release_s_schema_is_refused(database: Database) -> None:
    with database.use() as cursor:
        cursor.execute("INSERT INTO broker_schema VALUES (9999)")
        with pytest.raises(ConfigError, match="newer release"):
            migrate(database, OWNER, b"network")
        cursor.execute("DELETE FROM broker_schema WHERE version = 9999")
