"""``check --join``: what is missing before this validator has a seat, in the order in which it is done, and the command
that mends each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from validator.keys import variable_of
from validator.net.arweave.storage import ArweaveStorage
from validator.net.chain.account import show_pol, show_tokens
from validator.net.chain.metadata import parse_node_metadata, parse_node_wallet
from validator.net.chain.reader import ChainReader
from validator.net.http.urls import check_url
from validator.operations.check_chain import current_parameters, describe_difference, fetch_fees, make_reader
from validator.operations.check_machine import load_address
from validator.operations.findings import Finding, Level, fail, guarded, ok, warn
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.errors import ConfigError, MalformedInput, ValidatorError
from validator.protocol.model import Address, ChainState
from validator.quantities import show_count
from validator.settings import ENV_FILE, Settings, load_settings
from validator.steps.seat import Standing, describe_seat, find_seat
from validator.wiring import Node, NoTasks, load_wallet

PROGRAM = "logstore-validator"
REGISTER_GAS = 400_000
"""Of the transaction that registers a node with URL and wallet."""


def run_join_checks() -> Iterator[Finding]:
    """Everything before a seat, then the seat itself: "joins with epoch 7, in 3 h 12 min"."""
    try:
        settings = load_settings()
        node = Node(settings, NoTasks())
        network = node.network
    except ConfigError as error:
        begin = "" if Path(ENV_FILE).exists() else f"; begin with {PROGRAM} init --network URL|FILE"
        yield fail("settings", f"{error}{begin}")
        return
    yield ok("settings", f"network {network.name}, data in {settings.data_dir}")
    try:
        missing = False
        for finding in _check_keys(node):
            missing |= finding.level is Level.FAIL and finding.name == "voting key"
            yield finding
        yield from guarded("database", partial(_check_database, node))
        if not missing:
            yield from guarded("chain", partial(_check_on_chain, node))
    finally:
        node.close()


def _check_keys(node: Node) -> Iterator[Finding]:
    for purpose in ("voting", "gas", "query"):
        name, command = f"{purpose} key", f"{PROGRAM} keys new {purpose}"
        try:
            address = load_address(node, purpose)
        except ConfigError as error:
            yield fail(name, f"{error}; a new one: {command}")
            continue
        if address is None:
            yield fail(name, f"{command}, and name its file in {variable_of(purpose)}_FILE")
        else:
            yield ok(name, f"0x{address.hex()}")
    try:
        wallet = load_wallet(node.settings)
    except ConfigError as error:
        yield fail("wallet", str(error))
        return
    if wallet is None:
        yield fail("wallet", f"{PROGRAM} keys new wallet, and name its file in LOGSTORE_WALLET_FILE")
    else:
        yield ok("wallet", encode_storage_id(wallet.address))


def _check_database(node: Node) -> Iterator[Finding]:
    node.require_identity()
    yield ok("database", "at head, and the voting key's")


def _check_on_chain(node: Node) -> Iterator[Finding]:
    reader = make_reader(node)
    try:
        reader.check()
        difference = describe_difference(node.network, reader, reader.fetch_config())
        if difference:
            yield fail("contract", difference)
            return
        yield ok("contract", "holds what follows from the network file")
        state = reader.fetch_state(reader.fetch_head())
        steps = (
            ("node", partial(_check_registered, node, reader)),
            ("stake", partial(_check_stake, node, reader, state)),
            ("gas", partial(_check_gas, node, reader)),
            ("query", partial(_check_query, node, reader)),
            ("wallet", partial(_check_wallet_balance, node.settings)),
            ("seat", partial(_check_seat, node, state)),
        )
        for name, check in steps:
            yield from guarded(name, check)
    finally:
        reader.close()


def _check_registered(node: Node, reader: ChainReader) -> Iterator[Finding]:
    """The node's metadata: that it is there, that peers can read its URL, that it names the wallet in use."""
    raw = bytes(reader.fetch_view("NodeManager", "nodes", (f"0x{node.address.hex()}",))[1])
    wallet = load_wallet(node.settings)
    named = "<address of the wallet>" if wallet is None else encode_storage_id(wallet.address)
    join = f"{PROGRAM} join --url https://<where peers reach it> --arweave {named}"
    if not raw:
        cost = REGISTER_GAS * fetch_fees(node, reader).price_wei
        balance = reader.fetch_native_balance(node.address)
        if balance < cost:
            sent = f"send {show_pol(cost)} to 0x{node.address.hex()}, the voting key's account: joining costs so much"
            yield fail("voting key", f"{sent}; it holds {show_pol(balance)}")
        yield fail("node", f"not registered; {join}")
        return
    _, url = parse_node_metadata(raw)
    if url is None:
        yield fail("node", f"its metadata names no validator URL; {join}")
        return
    try:
        check_url(url, allow_http=node.settings.allow_http, allow_nets=node.settings.nets)
    except MalformedInput as error:
        yield fail("node", f"peers will refuse its URL: {error}; {join}")
        return
    yield ok("node", f"registered, at {url}")
    if wallet is not None and parse_node_wallet(raw) != wallet.address:
        yield fail("uploader", f"the metadata does not name the wallet; {PROGRAM} join --arweave {named}")


def _check_stake(node: Node, reader: ChainReader, state: ChainState) -> Iterator[Finding]:
    """Enough to count as staked, and to be among those that a committee has seats for."""
    address = f"0x{node.address.hex()}"
    required = int(reader.fetch_view("NodeManager", "stakeRequiredAmount", ())[0])
    stake = int(reader.fetch_view("NodeManager", "nodes", (address,))[5])
    limit = current_parameters(node.network).committee_limit
    others = sorted((n.stake for n in state.nodes if n.validator_url and n.address != node.address), reverse=True)
    needed = max(required, others[limit - 1] + 1 if len(others) >= limit else 0)
    if stake >= needed:
        yield ok("stake", f"{show_tokens(stake)}, at least {show_tokens(needed)} are needed")
        return
    lacking = f"{needed - stake}base" if (needed - stake) % 10**18 else f"{(needed - stake) // 10**18}LSAN"
    full = f"; {limit} others have more" if needed > required else ""
    yield fail(
        "stake",
        f"{show_tokens(stake)} of {show_tokens(needed)}{full}; {PROGRAM} stake {lacking} --key <stake key>, then "
        f"{PROGRAM} delegate {lacking} --node {address} --key <stake key>",
    )


def _check_gas(node: Node, reader: ChainReader) -> Iterator[Finding]:
    address = _address(node, "gas")
    if address is None:
        return
    balance, fees = reader.fetch_native_balance(address), fetch_fees(node, reader)
    left = balance // fees.report_wei
    text = f"0x{address.hex()} holds {show_pol(balance)}: {show_count(left, 'report')} at today's price"
    yield ok("gas", text) if left else fail("gas", f"{text}; send it POL")


def _check_query(node: Node, reader: ChainReader) -> Iterator[Finding]:
    address = _address(node, "query")
    if address is None:
        return
    balance = reader.fetch_query_balance(address)
    text = f"0x{address.hex()} holds {show_tokens(balance)} in QueryManager"
    command = f"{PROGRAM} deposit 10LSAN --for 0x{address.hex()} --key <stake key>"
    yield ok("query", text) if balance else fail("query", f"{text}; brokers refuse who cannot pay; {command}")


def _check_wallet_balance(settings: Settings) -> Iterator[Finding]:
    wallet = load_wallet(settings)
    if wallet is None:
        return
    storage = ArweaveStorage(settings.gateway_urls, wallet, reward_cap=settings.max_reward_winston)
    try:
        balance = storage.fetch_balance()
    finally:
        storage.close()
    text = f"{encode_storage_id(wallet.address)} holds {balance / 10**12:.6f} AR"
    yield ok("wallet", text) if balance else warn("wallet", f"{text}; send it AR, until then our turns to upload pass")


def _check_seat(node: Node, state: ChainState) -> Iterator[Finding]:
    seat = find_seat(node.context, node.address, state, observer=node.settings.observer)
    text = describe_seat(seat, node.clock.now_ms())
    if seat.standing is Standing.STRANGER or (not seat.observer and seat.standing is Standing.FOLLOWER):
        yield fail("seat", text)
    else:
        yield ok("seat", text)


def _address(node: Node, purpose: str) -> Address | None:
    """None where it is not set or cannot be read, which was said before."""
    try:
        return load_address(node, purpose)
    except ValidatorError:
        return None
