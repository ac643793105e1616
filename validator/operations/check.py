"""``logstore-validator check``: whether this validator can work, line by line, asking everything it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from validator.operations import check_chain, check_machine, check_network
from validator.operations.findings import Finding, fail, guarded, ok
from validator.protocol.errors import ConfigError, ValidatorError
from validator.protocol.model import Address
from validator.settings import Settings, load_settings
from validator.wiring import Node, NoTasks


def run_checks() -> Iterator[Finding]:
    """All findings, as they are made. Reads; what it learns of the chain is kept in the database like any reading."""
    try:
        settings = load_settings()
        node = Node(settings, NoTasks())
        network = node.network
    except ConfigError as error:
        yield fail("settings", str(error))
        return
    yield ok("settings", f"network {network.name}, data in {settings.data_dir}")
    try:
        yield from _check_all(settings, node)
    finally:
        node.close()


def _check_all(settings: Settings, node: Node) -> Iterator[Finding]:
    yield from check_machine.check_keys(node)
    yield from guarded("database", partial(check_machine.check_database, node))
    yield from guarded("disk", partial(check_machine.check_disk, settings))
    yield from check_machine.check_redis(settings)
    yield from guarded("sets", partial(check_machine.check_sets, settings))
    yield from check_network.check_versions(node)
    yield from _check_chain(node)
    yield from guarded("gateway", partial(check_network.check_gateways, node))
    yield from guarded("wallet", partial(check_network.check_wallet, node))
    yield from guarded("uploader", partial(check_network.check_named_wallet, node))
    yield from _check_committee(node)


def _check_chain(node: Node) -> Iterator[Finding]:
    try:
        reader = check_chain.make_reader(node)
    except ValidatorError as error:
        yield fail("rpc", str(error))
        return
    try:
        yield from guarded("rpc", partial(check_chain.check_sources, node, reader))
        yield from guarded("blocks", partial(check_chain.check_blocks, node, reader))
        yield from guarded("contract", partial(check_chain.check_contract, node, reader))
        by_key: dict[str, Callable[[Address], Iterator[Finding]]] = {
            "gas": partial(check_chain.check_gas, node, reader),
            "voting": partial(check_chain.check_voting_balance, node, reader),
            "query": partial(check_chain.check_query, reader),
        }
        for purpose, check in by_key.items():
            address = _address_or_none(node, purpose)
            if address is not None:
                yield from guarded(purpose, partial(check, address))
    finally:
        reader.close()


def _check_committee(node: Node) -> Iterator[Finding]:
    try:
        config = check_network.load_current_config(node)
    except ValidatorError as error:
        yield fail("committee", str(error))
        return
    yield from guarded("committee", partial(check_network.check_membership, node, config))
    yield from guarded("peers", partial(check_network.check_peers, node, config))


def _address_or_none(node: Node, purpose: str) -> Address | None:
    """The address of a key; None if it is missing or unreadable, which was said before."""
    try:
        return check_machine.load_address(node, purpose)
    except ConfigError:
        return None
