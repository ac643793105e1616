"""``logstore-validator init``: migrate the database, note when it began, tie it to the voting key."""

from __future__ import annotations

from validator.log import get_logger
from validator.operations.check_chain import describe_difference, make_reader
from validator.protocol.errors import ConfigError
from validator.protocol.model import Digest, Window
from validator.quantities import show_count
from validator.settings import Settings
from validator.store.database import migrate
from validator.wiring import Node, NoTasks

log = get_logger(__name__)


def initialise(settings: Settings, *, restored: bool = False) -> None:
    """Safe to repeat. ``restored``: the database does not know all that its key has signed.

    Raises:
        ConfigError: the database cannot be made, is another network's, or is not the key's.
        TransientError: the chain, asked for its newest block, does not answer.
    """
    migrate(settings.database_link())
    node = Node(settings, NoTasks())
    try:
        meta = node.create_identity(restored=restored)
        first = first_voted_window(node, meta.created_block_s)
    finally:
        node.close()
    log.info(
        "database.ready",
        database_id=meta.database_id,
        created_block=meta.created_block_number,
        votes_from_ms=None if first is None else first.start_ms,
    )
    if first is not None and first.start_ms != node.network.genesis_ms > meta.created_block_s * 1000:
        log.warning(
            "init.too_late",
            reason="the network begins before this database may vote; were it so everywhere, the first windows "
            "would never be agreed",
            genesis_ms=node.network.genesis_ms,
            votes_from_ms=first.start_ms,
        )


def compare_with_contract(settings: Settings) -> str:
    """That the network's file is what the contract was set up with, before a database is made for it.

    Raises:
        ConfigError: another chain, no contracts there, or parameters that differ.
        TransientError: the chain does not answer.
    """
    node = Node(settings, NoTasks())
    reader = make_reader(node)
    try:
        reader.check()
        held = reader.fetch_config()
        difference = describe_difference(node.network, reader, held)
    finally:
        reader.close()
        node.close()
    if difference:
        raise ConfigError(f"{settings.network_file}: the contract differs: {difference}", field="LOGSTORE_NETWORK_FILE")
    if held.config_digest == Digest(bytes(32)):
        return "the contract answers; it has no committee yet to compare the network's file with"
    return f"the contract holds what follows from the network's file: {show_count(len(held.committee), 'member')}"


def first_voted_window(node: Node, created_s: int) -> Window | None:
    """The first window that a database begun at ``created_s`` votes in; None if the network has ended by then."""
    network = node.network
    for window in network.windows_from(max(created_s * 1000, network.genesis_ms)):
        epoch = network.epoch_at(window.start_ms)
        assert epoch is not None
        wait_ms = epoch.parameters.fresh_wait_windows * epoch.parameters.window_ms
        if window.start_ms >= created_s * 1000 + wait_ms:
            return window
    return None
