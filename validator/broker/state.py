"""What the processes of one broker share: files in a folder of one machine, or a PostgreSQL for several."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from validator.broker.accounts import SqliteAccounts
from validator.broker.config import BrokerSettings
from validator.broker.evidence import EvidenceBook, FolderShelf
from validator.broker.keeping import DiskFloor, GuardedStore
from validator.broker.store import SqliteMessageStore
from validator.broker.sum_book import SqliteSums
from validator.lasting import pause_s
from validator.log import get_logger
from validator.net.signed.signing import network_digest
from validator.ports.broker_state import Accounts, Lead, SumBook
from validator.ports.message_store import MessageStore
from validator.protocol.errors import TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import Network

log = get_logger(__name__)


class LeadsAlone:
    """Where no other process could lead (``ports.broker_state.Lead``): the role decides."""

    is_shared = False

    def acquire(self) -> bool:
        return True

    def holds(self) -> bool:
        return True

    def release(self) -> None:
        """Nobody waits for it."""


@dataclass(frozen=True, slots=True)
class State:
    messages: MessageStore
    sums: SumBook
    accounts: Accounts
    book: EvidenceBook
    lead: Lead
    ping: Callable[[], None]
    """Ask the database for anything. Raises TransientError."""
    close: Callable[[], None]


def open_state(settings: BrokerSettings, address: Address, network: Network, floor: DiskFloor) -> State:
    """Raises ConfigError. Waits for a database that does not answer yet."""
    link, limit = settings.database_link(), settings.unpaid_mib << 20
    if link:
        return _open_database(link, address, network, limit)
    folder = settings.data_dir
    days = SqliteMessageStore(folder / "messages", shards=settings.shards)
    return State(
        GuardedStore(days, floor),
        SqliteSums(str(folder / "sums.sqlite")),
        SqliteAccounts(folder / "accounts.sqlite", unpaid_limit=limit),
        EvidenceBook(FolderShelf(folder / "evidence")),
        LeadsAlone(),
        lambda: None,
        days.close,
    )


def _open_database(link: str, address: Address, network: Network, unpaid_limit: int) -> State:
    # only who uses it pays for it
    from validator.broker.postgres.accounts import PostgresAccounts
    from validator.broker.postgres.database import Database
    from validator.broker.postgres.lead import PostgresLead
    from validator.broker.postgres.messages import PostgresMessageStore
    from validator.broker.postgres.schema import migrate
    from validator.broker.postgres.shelf import PostgresShelf
    from validator.broker.postgres.sums import PostgresSums

    database = Database(link)
    writer = ThreadPoolExecutor(1, thread_name_prefix="evidence")

    def close() -> None:
        writer.shutdown()
        database.close()

    def prepare() -> EvidenceBook:
        migrate(database, address, network_digest(network))
        return EvidenceBook(PostgresShelf(database), writer.submit)

    try:
        database.open()
        book = _until_it_answers(prepare)
    except BaseException:
        close()
        raise
    return State(
        PostgresMessageStore(database),
        PostgresSums(database),
        PostgresAccounts(database, unpaid_limit=unpaid_limit),
        book,
        PostgresLead(database),
        database.ping,
        close,
    )


def _until_it_answers(prepare: Callable[[], EvidenceBook]) -> EvidenceBook:
    failures = 0
    while True:
        try:
            return prepare()
        except TransientError as error:
            failures += 1
            log.warning("database.away", reason=str(error), failures=failures)
            time.sleep(pause_s(failures))
