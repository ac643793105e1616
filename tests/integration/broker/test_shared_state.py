"""What a broker's processes share beside messages: the same answers of files and of PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.builders import a_key, a_message
from validator.broker.accounts import SqliteAccounts
from validator.broker.evidence import Evidence, EvidenceBook, FolderShelf, Lie
from validator.broker.postgres.accounts import PostgresAccounts
from validator.broker.postgres.database import Database
from validator.broker.postgres.lead import PostgresLead
from validator.broker.postgres.messages import PostgresMessageStore
from validator.broker.postgres.schema import migrate
from validator.broker.postgres.shelf import PostgresShelf
from validator.broker.postgres.sums import PostgresSums
from validator.broker.slices import SliceSums, SummedStore
from validator.broker.store import SqliteMessageStore
from validator.broker.sum_book import SqliteSums
from validator.ports.broker_state import Accounts, EvidenceShelf, SumBook
from validator.ports.message_store import MessageStore
from validator.protocol.codec.message import make_record
from validator.protocol.codec.receipt import Receipt, sign_receipt
from validator.protocol.model import Address, Digest, Record, StreamPart
from validator.protocol.slices import HOUR_MS, SLICE_MS

OWNER = Address(b"\x01" * 20)
CONSUMER = a_key(5)
START_MS = 20_000 * 24 * HOUR_MS
STREAM = "0x" + "33" * 20 + "/s"
LIMIT = 1000


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with servers.fresh_database(postgres_server, "broker_state") as url:
        yield url


@pytest.fixture(scope="module")
def opened(url: str) -> Iterator[Callable[[], Database]]:
    """Opens the same database as another process would."""
    databases: list[Database] = []

    def open_one() -> Database:
        databases.append(Database(url))
        databases[-1].open()
        return databases[-1]

    migrate(open_one(), OWNER, b"network")
    yield open_one
    for database in databases:
        database.close()


@pytest.fixture
def database(opened: Callable[[], Database]) -> Database:
    database = opened()
    with database.use() as cursor:
        for table in ("messages", "day_parts", "touched", "sums", "accounts", "evidence"):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("UPDATE broker_owner SET looked_from = NULL")
    return database


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def accounts(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Accounts:
    if engine == "sqlite":
        return SqliteAccounts(tmp_path / "accounts.sqlite", unpaid_limit=LIMIT)
    return PostgresAccounts(request.getfixturevalue("database"), unpaid_limit=LIMIT)


@pytest.fixture
def shelf(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> EvidenceShelf:
    return FolderShelf(tmp_path) if engine == "sqlite" else PostgresShelf(request.getfixturevalue("database"))


@pytest.fixture
def stored(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[MessageStore, SumBook]:
    if engine == "sqlite":
        return SqliteMessageStore(tmp_path / "messages"), SqliteSums(str(tmp_path / "sums.sqlite"))
    database = request.getfixturevalue("database")
    return PostgresMessageStore(database), PostgresSums(database)


def _receipt(epoch: int, cumulative: int) -> Receipt:
    return sign_receipt(
        CONSUMER, OWNER, epoch=epoch, cumulative_bytes=cumulative, max_price=1, chain_id=1, query_manager=OWNER
    )


def _records(*times_ms: int) -> list[Record]:
    return [make_record(a_message(a_key(1), stream_id=STREAM, timestamp_ms=ms)) for ms in times_ms]


def test_an_account_is_charged_paid_and_refused(accounts: Accounts) -> None:
    consumer = CONSUMER.address
    assert accounts.may_read(consumer)
    accounts.charge(consumer, LIMIT - 1)
    assert accounts.may_read(consumer)
    accounts.charge(consumer, 1)
    assert not accounts.may_read(consumer)
    assert accounts.credit(_receipt(1, 600))
    assert accounts.may_read(consumer)
    assert not accounts.credit(_receipt(1, 600)), "it promises no more than the last"
    accounts.charge(consumer, 600)
    assert not accounts.may_read(consumer)
    assert accounts.credit(_receipt(2, 100)), "the count begins anew with an epoch"
    assert accounts.may_read(consumer)
    assert not accounts.credit(_receipt(1, 9_000))
    accounts.save()
    assert accounts.count() == 1
    accounts.close()


def test_promises_without_end_are_kept(accounts: Accounts) -> None:
    most = (1 << 63) - 1
    assert accounts.credit(_receipt(most - 1, most))
    assert accounts.may_read(CONSUMER.address)
    accounts.close()


def test_two_machines_give_a_consumer_no_more_than_one_would(
    database: Database, opened: Callable[[], Database]
) -> None:
    places = [PostgresAccounts(database, unpaid_limit=LIMIT), PostgresAccounts(opened(), unpaid_limit=LIMIT)]
    given = [0, 0]

    def read(place: int) -> None:
        while places[place].may_read(CONSUMER.address):
            places[place].charge(CONSUMER.address, 10)
            given[place] += 10

    threads = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LIMIT <= sum(given) <= LIMIT + 10, "one page may be under way at the other"
    assert places[0].credit(_receipt(1, 500))
    assert places[1].may_read(CONSUMER.address)


def test_evidence_is_there_after_a_restart(shelf: EvidenceShelf) -> None:
    book = EvidenceBook(shelf)
    for at_ms in range(20):
        book.add(Evidence(OWNER, Lie.FORGED, "seen", at_ms, (b"word",)))
    again = EvidenceBook(shelf)
    assert again.all() == book.all()
    assert not again.load_new()
    book.add(Evidence(OWNER, Lie.STALE, "seen", 99))
    again.learn(again.load_new())
    assert again.all() == book.all()


def test_a_slice_is_summed_when_it_closes_and_again_when_something_came_late(
    stored: tuple[MessageStore, SumBook],
) -> None:
    store, book = stored
    sums = SliceSums(book, store, from_ms=START_MS)
    summed = SummedStore(store, sums)
    now_ms = START_MS + 10 * HOUR_MS
    summed.insert(_records(START_MS + 1, START_MS + SLICE_MS, START_MS + HOUR_MS), 1)
    assert sums.settle(now_ms) == 0
    assert sums.total(START_MS, START_MS + 2 * HOUR_MS).count == 3
    assert [s.count for s in sums.below(START_MS, START_MS + 2 * HOUR_MS)] == [2, 1], "two hours"
    late = _records(START_MS + 2)
    assert summed.insert(late, 2) == 1
    sums.freshen(START_MS, START_MS + SLICE_MS)
    assert sums.total(START_MS, START_MS + 2 * HOUR_MS).count == 4
    assert [s.count for s in sums.parts(START_MS)] == [2]
    again = SliceSums(book, store, from_ms=START_MS)
    assert again.settle(now_ms) == 0
    assert again.total(START_MS, START_MS + 2 * HOUR_MS) == sums.total(START_MS, START_MS + 2 * HOUR_MS)
    sums.drop_before(START_MS + SLICE_MS)
    assert sums.total(START_MS, START_MS + 2 * HOUR_MS).count == 2
    assert not book.marks()


def test_what_one_machine_stores_another_sums(database: Database, opened: Callable[[], Database]) -> None:
    """The one that leads; should two take themselves for it, neither writes what is older than the other's."""
    here, there = (PostgresMessageStore(place) for place in (database, opened()))
    books = [PostgresSums(database), PostgresSums(opened())]
    first, second = (SliceSums(book, here, from_ms=START_MS) for book in books)
    there.insert(_records(START_MS + 1), 1)
    stale = SliceSums(books[1], _Interrupted(there, lambda: _late(there, first)), from_ms=START_MS)
    first.settle(START_MS + HOUR_MS)
    assert first.total(START_MS, START_MS + SLICE_MS).count == 1
    there.insert(_records(START_MS + 2), 1)
    stale.settle(START_MS + HOUR_MS)
    second.settle(START_MS + HOUR_MS)
    assert second.total(START_MS, START_MS + SLICE_MS).count == 3
    assert not books[0].marks()


def _late(store: PostgresMessageStore, sums: SliceSums) -> None:
    """Something comes, and another process sums it, while one is about to write what it saw before."""
    store.insert(_records(START_MS + 3), 1)
    sums.settle(START_MS + HOUR_MS)


class _Interrupted(PostgresMessageStore):
    """Something happens once, behind the first look at keys."""

    def __init__(self, store: PostgresMessageStore, happens: Callable[[], None]) -> None:
        super().__init__(store._database)
        self._happens: Callable[[], None] | None = happens

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        pages = list(super().keys(part, from_ms, until_ms))
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        yield from pages


def test_one_leads_until_its_session_ends(database: Database, opened: Callable[[], Database]) -> None:
    first, second = PostgresLead(database), PostgresLead(opened())
    assert first.acquire()
    assert first.holds()
    assert not second.acquire()
    with database.use() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    assert not first.holds()
    assert second.acquire()
    assert not first.acquire()
    second.release()
    assert first.acquire()
    first.release()
