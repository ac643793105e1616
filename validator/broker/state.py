"""What the processes of one broker share: day files in a folder of one machine, or a PostgreSQL for several."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from validator.broker.config import BrokerSettings
from validator.broker.keeping import DiskFloor, GuardedStore
from validator.broker.store import SqliteMessageStore
from validator.lasting import pause_s
from validator.log import get_logger
from validator.net.signed.signing import network_digest
from validator.ports.message_store import MessageStore
from validator.protocol.errors import TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import Network

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    messages: MessageStore
    close: Callable[[], None]


def open_state(settings: BrokerSettings, address: Address, network: Network, floor: DiskFloor) -> State:
    """Raises ConfigError. Waits for a database that does not answer yet."""
    link = settings.database_link()
    if link:
        return _open_database(link, address, network)
    days = SqliteMessageStore(settings.data_dir / "messages", shards=settings.shards)
    return State(GuardedStore(days, floor), days.close)


def _open_database(link: str, address: Address, network: Network) -> State:
    # only who uses it pays for it
    from validator.broker.postgres.database import Database
    from validator.broker.postgres.messages import PostgresMessageStore
    from validator.broker.postgres.schema import migrate

    database = Database(link)
    database.open()
    failures = 0
    while True:
        try:
            migrate(database, address, network_digest(network))
            break
        except TransientError as error:
            failures += 1
            log.warning("database.away", reason=str(error), failures=failures)
            time.sleep(pause_s(failures))
        except BaseException:
            database.close()
            raise
    return State(PostgresMessageStore(database), database.close)
